// Package build runs a Dockerfile's plan: a graph of stages whose steps map file
// system trees to file system trees, each reused where its exact key is known.
//
// Owns: what a step's key holds, when a result may be stored, the order of
// steps, the choice of the recorder, the image's config and history, and what
// leaves the build. It is the only package that knows the whole story.
//
// Invariants:
//   - No result is stored before its layer is sealed and durable, and none of a
//     step before that of the step under it (LAWS 11).
//   - The tree handed to the next step is the parent with the layer's changes
//     applied, never what a recorder happens to have in memory (LAWS 13).
//   - A step that failed, was interrupted or lost its recorder stores nothing.
//
// Concurrency: independent stages run at the same time; one failing step cancels
// the rest. Layers are sealed behind the steps, one at a time; a failing build
// still waits for the layers that are good, so that the next build finds them.
//
// Fails when: a step fails (*StepError), the host cannot run commands
// (exec.ErrUnavailable), or a source cannot be had (the typed errors of oci,
// dockerfile and buildctx).
package build

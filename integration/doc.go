// Package integration drives the fbuild binary as people do: as root and as an
// ordinary user, with each recorder, on scripts, on bad input and under the laws
// that only the whole program can keep.
//
// Owns: testdata/script, the base images that tests start from, the user
// fbuild-test, the registries of this process.
//
// Invariants: it imports nothing of ours. After every fbuild no process of it is
// left, after every script no mount, no temporary file, and a sound store.
//
// Everything but this comment has the build tag integration; see docs/testing.md.
package integration

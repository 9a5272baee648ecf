// Package oci reads base images, assembles images and writes them: registries,
// OCI layouts and archives, docker save archives, credentials.
//
// Owns: what a reference means, which manifest of an index fits a platform, the
// bytes of configs and manifests, and how an image leaves the build.
//
// Invariants:
//   - Nothing is believed before its digest and size were checked: manifests and
//     configs when they are read, layers at the end of their stream (an error of
//     Read in place of io.EOF).
//   - Manifests are at most 4 MiB and configs at most 8 MiB.
//   - A digest is parsed before it becomes part of a path.
//   - Plain HTTP goes to loopback registries only, or where the caller asked.
//   - No error holds a credential, nor the query of a URL.
//   - The same input gives the same bytes.
//
// On-disk format: OCI image layout 1.0; index.json is replaced last, by a rename.
//
// Concurrency: a Remote may be used by many goroutines at once. Layers open
// independently of each other.
//
// Fails when: see the sentinels in errors.go.
package oci

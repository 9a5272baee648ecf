// Package cache is the store on the disk: blobs, packs, layer indexes, results
// by key, images by name, and the index of contents.
//
// Owns: what stands under the store's root, how it gets there and when it goes.
//
// Invariants:
//   - A name is written last: a temporary file, synced where others rely on it,
//     is renamed. A kill at any instant loses at most what was being written.
//   - A blob and a pack are durable before the layer index or record that names
//     them exists (LAWS 33). Records themselves are not synced: they carry a
//     checksum, and a torn one is a miss.
//   - Doubt is a miss: what does not verify answers ErrNotFound and is removed.
//   - The Badger index is never the only copy (LAWS 30). Without it everything
//     works; equal contents are then only stored twice.
//   - What a running process uses is never collected (LAWS 32), see below.
//
// On-disk format, under the root:
//
//	version              "fbuild store 1\n" (versionText)
//	limit                how many bytes the store may take (limit.go)
//	oci-layout, index.json, blobs/sha256/HEX
//	                     an OCI image layout; the images by name are the
//	                     manifests of index.json that carry a name
//	packs/ID             package pack
//	records/KIND/HH/NAME a record (codec.go); NAME is the key where that is 64
//	                     hex digits, with or without "sha256:", else the SHA-256
//	                     of the key; HH its first two digits
//	records/layer/HH/HEX the layer index of diffID HEX, tree.Encode as it comes
//	records/tar/HH/NAME  key: a pack that is the tar of a layer; value: its diffID
//	index/               Badger: content digest -> extents (index.go)
//	contexts/HEX         one stat cache for each build context
//	trees/HEX/           a layer as a directory, layer/, with the owners of one id mapping,
//	                     and info, when it was made and what it held (package snapshot
//	                     makes it; trees.go checks it); flocked shared by its users
//	mounts/HEX.N/        one directory of a cache mount: data/, which RUN steps see,
//	                     and info, whose it is; flocked by its users, shared or
//	                     exclusively as the mount says; HEX is the SHA-256 of its key
//	tmp/run-NANOS-HEX/   the lease of one Store that is open since NANOS, and all
//	                     its temporary files; flocked exclusively while it lives
//	tmp/locks/           flock files: "gate", "images", "index", one per step key;
//	                     "index.sock", where the holder of "index" answers for it;
//	                     "ballast", 64 KiB that a Prune on a full disk starts from
//
// What is in use. Each Store is a lease with a start. Whatever it looks up gets
// a modification time not before that start, whatever it creates has one
// anyway. Prune keeps all that is not older than the oldest living lease, and
// what that leads to: record -> layer indexes and blobs, layer index -> packs,
// named image -> manifest -> config and layers. Looking up holds the gate
// shared for a moment, Prune holds it exclusively while it decides and takes
// names away, so that nobody finds a record whose blobs are just going. Packs
// and open blobs are held by a shared flock on the file as well.
//
// Lock order: step keys (Lock), cache mounts in the order of their keys, images,
// gate, flock of one object. The mutexes
// of the index and of the pack set are leaves.
//
// Concurrency: a Store serves any number of goroutines, and any number of
// processes may have a Store on one directory. A BlobWriter is for one.
//
// Fails when: the file system is unsuitable (ErrUnsuitable), the store was made
// by another version (ErrVersion), or the disk is full (ENOSPC is in the chain
// of the error, and nothing half-made keeps a name).
//
// What stands in cache mounts is nobody's promise: it is not verified, and no key
// or record depends on it.
package cache

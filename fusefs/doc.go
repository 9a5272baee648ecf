// Package fusefs is the FUSE recorder: it serves a step's parent tree as a
// writable root directory and yields the tree after.
//
// Owns: the mapping of FUSE requests on inodes over an immutable tree, the
// spool in which written bytes wait to become the step's pack, and the order in
// which a step ends (LAWS 12).
//
// Invariants:
//   - Every name of a hard link group is in memory as soon as one of them is,
//     so that a change through one name is seen through all.
//   - A byte range of the spool belongs to one inode or to nobody; ranges of
//     other packs are shared freely, because nobody writes there.
//   - Inode numbers are a function of the path in the parent (LAWS 21).
//   - The process never touches its own mount but to unmount it (LAWS 20).
//
// Lock order: content.mu of one or two inodes (by id), then step.mu, then
// spool.mu. None is held while another request is waited for.
//
// Concurrency: go-fuse serves each request on a goroutine of its own; any
// number of steps live side by side.
//
// Fails when: the spool or a pack can't be read or written, a handler panics,
// or the kernel does not let go of the mount in time; the step then fails.
package fusefs

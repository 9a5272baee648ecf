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
//   - What of the spool is in memory is the truth for its range; it is handed out
//     to nobody else, and its room on the disk is not punched, until it was
//     written.
//   - A WRITE is answered when its room on the disk is taken; its bytes lie in the
//     spool by then, which a thread of its own writes (LAWS 17).
//   - Inode numbers are a function of the path in the parent (LAWS 21).
//   - The process never touches its own mount but to unmount it (LAWS 20).
//
// Lock order: content.mu of one or two inodes (by id), then step.mu, then
// spool.mu. None is held while another request is waited for.
//
// Concurrency: one worker for each two processors reads the step's device and
// answers, one request after the other, into an arena of the spool of its own;
// any number of steps live side by side. Where requests come fast, another thread serves
// on the caller's processor instead (samecore.go).
//
// Fails when: the spool or a pack can't be read or written, a handler panics,
// or the kernel does not let go of the mount in time; the step then fails.
package fusefs

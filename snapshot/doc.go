// Package snapshot makes trees directories, and records what a command did to
// one of them by walking it before and after: the recorder "walk", which needs no
// file system of our own.
//
// Owns: what a tree looks like on a disk, and how a changed directory becomes a
// tree again.
//
// Invariants:
//   - A file whose inode, size, mode, ids, link count, mtime and ctime are what
//     they were when the command started is unchanged; the command starts only
//     when the clock has passed the last of these ctimes (LAWS 22). Everything
//     else is compared by content.
//   - What a directory of this host cannot show (device nodes in a user
//     namespace, foreign xattrs) stays in the tree as it was.
//   - Every step is relative to an open directory: no symlink of the tree is
//     ever followed, and no path is too long.
//
// Concurrency: a Backend serves any number of steps at once; a step is used by
// one call at a time, Abort excepted.
//
// Fails when: the ids of the tree are not mapped here; the file system of the
// work directory cannot hold what the tree holds; a step made what no layer can
// hold (LAWS 24).
package snapshot

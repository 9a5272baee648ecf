// Package buildctx reads local build contexts: directories that COPY and ADD take files from, seen as trees.
//
// Owns: which files of a directory belong to a context (.dockerignore), what a file of the host looks like in an image
// (owner 0:0, no sockets, few extended attributes), the reading of contents into a Sink, and the stat cache that spares
// reading unchanged files again.
//
// Invariants: nothing outside the directory is ever read, whatever symlinks stand in it or are put there meanwhile: every
// open starts at the descriptor of the root and follows no symlink; symlinks are resolved here, component by component,
// inside the root. A digest belongs to bytes that were read between two equal fstat results, by this process or, where the
// stat cache vouches for it, by an earlier one.
//
// On-disk format: see statcache.go.
//
// Concurrency: the methods of a Context may be called at once from several goroutines; Close comes last. A Sink is called
// from several goroutines.
//
// Fails when: a file cannot be represented in an image or read, or changes while it is read: *PathError names it.
package buildctx

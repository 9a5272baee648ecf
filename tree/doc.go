// Package tree holds file systems as immutable values: nodes, lookup, edit,
// the difference of two trees in its normal form, and the merge of a
// difference into a tree.
//
// Owns: what an entry of an image is, when two entries are equal, and what a
// layer holds (docs/design.md, "Trees").
//
// Invariants:
//   - A Tree and every Node reachable from it never change once published. An
//     Editor works on copies and shares what it did not touch.
//   - Paths are clean, slash separated, relative and without a leading slash;
//     "" is the root. They are bytes and need not be UTF-8.
//   - All names of a hard link group share one *Node, and that node knows them
//     all (Node.Links).
//
// On-disk format: see codec.go.
//
// The package is pure: no disk, no clock, no kernel.
package tree

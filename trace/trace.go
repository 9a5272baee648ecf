// Package trace is what a step saw of the file systems below it, as questions, and
// whether another file system would have given the same answers. A result whose
// questions are all answered as before may be used again, whatever else changed.
//
// Owns: the kinds of questions, what their answers are, a trace and its form on the
// disk, and when it matches.
//
// Invariants:
//   - It is pure: no disk, no clock, no kernel. Contents are digested by whom the
//     caller names.
//   - Doubt is no match (LAWS 10).
package trace

import (
	"cmp"

	"github.com/fbuild/fbuild/tree"
)

// Kind is what a question asks about a path (LAWS 2).
type Kind uint8

// The kinds of questions.
const (
	Entry   Kind = iota + 1 // is it there; kind, mode, owner, device, links and, of a file, its size
	List                    // the names in a directory, sorted, with their kinds
	Content                 // every byte of a file
	Link                    // the target of a symlink
	Xattr                   // all extended attributes
	Names                   // every name of a file with several
	Time                    // when it was last written
)

func (k Kind) String() string {
	switch k {
	case Entry:
		return "entry"
	case List:
		return "list"
	case Content:
		return "content"
	case Link:
		return "link"
	case Xattr:
		return "xattr"
	case Names:
		return "names"
	case Time:
		return "time"
	}
	return "unknown"
}

// Question is one look at a path of a tree as it was before the step.
type Question struct {
	Root int    // 0 is the stage's file system, n the n-th bind mount of the step
	Path string // clean, without a leading slash; "" is the root
	Kind Kind
}

// Compare orders questions by root, path (as tree.Compare does) and kind.
func (q Question) Compare(r Question) int {
	return cmp.Or(cmp.Compare(q.Root, r.Root), tree.Compare(q.Path, r.Path), cmp.Compare(q.Kind, r.Kind))
}

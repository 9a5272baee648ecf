package trace

import (
	"path"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// maxFollows bounds the symlinks of one path, as tree.Resolve does.
const maxFollows = 40

// Way returns the questions of who resolves p: the entry at each component and the
// target of each symlink, the last one's too. Lookup finds an entry without following
// symlinks.
func Way(lookup func(p string) *tree.Node, p string) []Question {
	var out []Question
	at, rest, follows := "", strings.Split(p, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at, _ = tree.Split(at)
			continue
		}
		next := tree.Join(at, name)
		out = append(out, Question{Path: next, Kind: Entry})
		n := lookup(next)
		if n == nil || n.Kind != tree.Symlink {
			at = next
			continue
		}
		out = append(out, Question{Path: next, Kind: Link})
		if follows++; follows > maxFollows {
			break
		}
		if path.IsAbs(n.Target) {
			at = ""
		}
		rest = append(strings.Split(n.Target, "/"), rest...)
	}
	return out
}

// Edits collects the questions of an edit whose difference from its parent becomes a
// layer: that difference depends on what the parent has wherever something is put,
// on equal entries, which it drops, with their times, and on the directories above,
// which it repeats (LAWS 4).
type Edits struct {
	parent tree.Tree
	dirs   map[string]bool // whether there is a directory of the parent
	asked  []Question
}

// NewEdits starts with no question about parent.
func NewEdits(parent tree.Tree) *Edits {
	return &Edits{parent: parent, dirs: map[string]bool{}}
}

// Ask adds questions.
func (e *Edits) Ask(qs ...Question) { e.asked = append(e.asked, qs...) }

// Put adds those of something that is put at p.
func (e *Edits) Put(p string) {
	if dir, _ := tree.Split(p); p != "" && !e.dir(dir) {
		return // nothing can be there
	}
	n := e.parent.Lookup(p)
	if n != nil && n.Kind == tree.Dir {
		e.dir(p)
		return
	}
	e.Ask(Question{Path: p, Kind: Entry})
	if n == nil {
		return
	}
	for _, k := range []Kind{Content, Link, Xattr, Names, Time} {
		e.Ask(Question{Path: p, Kind: k})
	}
}

// dir asks about a directory and those above it, and reports whether there is one.
func (e *Edits) dir(p string) bool {
	if there, known := e.dirs[p]; known {
		return there
	}
	there := true
	if p != "" {
		up, _ := tree.Split(p)
		there = e.dir(up)
	}
	if there {
		e.Ask(Question{Path: p, Kind: Entry}, Question{Path: p, Kind: Xattr})
		n := e.parent.Lookup(p)
		there = n != nil && n.Kind == tree.Dir
	}
	e.dirs[p] = there
	return there
}

// Questions returns all that was asked, sorted, each once.
func (e *Edits) Questions() []Question {
	return Sorted(e.asked)
}

// Sorted returns questions in order, each once.
func Sorted(qs []Question) []Question {
	qs = slices.Clone(qs)
	if !slices.IsSortedFunc(qs, Question.Compare) {
		slices.SortFunc(qs, Question.Compare)
	}
	return slices.Compact(qs)
}

// Missing returns the first path at which a layer changes something although no
// question tells what the parent has there; "" where there is none. Questions are
// sorted. A step that was traced completely asked about every place that it changed.
func Missing(parent tree.Tree, cs tree.Changes, questions []Question) string {
	asked := func(p string, k Kind) bool {
		_, ok := slices.BinarySearchFunc(questions, Question{Path: p, Kind: k}, Question.Compare)
		return ok
	}
	for i := range cs {
		p := cs[i].Path
		if asked(p, Entry) {
			continue
		}
		known := namesAsked(parent.Lookup(p), asked)
		for up := p; up != "" && !known && parent.Lookup(p) == nil; {
			up, _ = tree.Split(up)
			if isDir(parent.Lookup(up)) { // the list says that there is no such name
				known = asked(up, List)
				break
			}
			known = asked(up, Entry) // and nothing can be below
		}
		if !known {
			return p
		}
	}
	return ""
}

// namesAsked tells whether a file was asked about by another of its names, and for all of them: a step that changes a file by one name changes it at every other.
func namesAsked(n *tree.Node, asked func(p string, k Kind) bool) bool {
	return n != nil && slices.ContainsFunc(n.Links(), func(l string) bool { return asked(l, Entry) && asked(l, Names) })
}

func isDir(n *tree.Node) bool { return n != nil && n.Kind == tree.Dir }

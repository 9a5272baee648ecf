package tree

import (
	"fmt"
	"slices"
	"strings"
)

// Editor makes a new tree out of an old one. The old tree stays as it is;
// directories on the edited paths are copied once. An Editor is for one
// goroutine.
type Editor struct {
	root  *Node
	owned []*Node
	loose map[*Node]bool // linked nodes that may have lost names
}

// Edit starts an edit of t.
func (t Tree) Edit() *Editor {
	e := &Editor{}
	e.root = e.own(t.root)
	return e
}

// Tree ends the edit and returns the result. The Editor must not be used again.
func (e *Editor) Tree() Tree {
	for n := range e.loose {
		if left := e.names(n); len(left) > 0 && len(left) < len(n.links) {
			e.regroup(n, left)
		}
	}
	for _, n := range e.owned {
		n.dir, n.edit = n.edit.freeze(), nil
	}
	e.owned = nil
	return Tree{e.root}
}

// Lookup returns the node at p as edited so far, without following symlinks.
func (e *Editor) Lookup(p string) *Node { return Tree{e.root}.Lookup(p) }

// Resolve is Tree.Resolve on the tree as edited so far.
func (e *Editor) Resolve(p string) (string, *Node, error) { return resolve(e.root, p, true) }

// ResolveParent is Tree.ResolveParent on the tree as edited so far.
func (e *Editor) ResolveParent(p string) (string, *Node, error) { return resolve(e.root, p, false) }

// own returns a copy of directory n that this edit may change.
func (e *Editor) own(n *Node) *Node {
	if n.edit != nil && n.edit.by == e {
		return n
	}
	c := n.Attrs()
	c.edit = &edit{by: e}
	if n.dir != nil {
		d := n.entries()
		c.edit.sorted = dirents{names: slices.Clone(d.names), nodes: slices.Clone(d.nodes)}
	}
	e.owned = append(e.owned, &c)
	return &c
}

// dirAt returns the directory at p ready for change. Missing directories are
// made with mode 0755, owner 0:0 and mtime, unless mtime is nil.
func (e *Editor) dirAt(p string, mtime *Time) (*Node, error) {
	n := e.root
	for rest := p; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		c := n.edit.get(name)
		switch {
		case c == nil && mtime == nil:
			return nil, nil
		case c == nil:
			c = e.own(&Node{Kind: Dir, Mode: 0o755, Mtime: *mtime})
		case c.Kind != Dir:
			return nil, fmt.Errorf("edit %q: %q is not a directory", p, name)
		default:
			c = e.own(c)
		}
		n.edit.set(name, c)
		n = c
	}
	return n, nil
}

// Put sets the entry at p to the attributes and contents of n. A directory over
// a directory keeps its entries; anything else that stood there is removed with
// all that is below it. Missing ancestors become directories, 0755, 0:0, with
// n's time; an ancestor that is no directory is an error.
func (e *Editor) Put(p string, n Node) error {
	n = n.Attrs()
	if p == "" {
		if n.Kind != Dir {
			return fmt.Errorf("edit root: not a directory")
		}
		n.edit = e.root.edit
		*e.root = n
		return nil
	}
	dirPath, name := Split(p)
	dir, err := e.dirAt(dirPath, &n.Mtime)
	if err != nil {
		return err
	}
	old := dir.edit.get(name)
	e.putIn(dir, p, name, old, &n)
	return nil
}

// putIn is Put into dir, which the edit owns, where old stands. n is not shared.
func (e *Editor) putIn(dir *Node, p, name string, old, n *Node) {
	if old != nil && old.Kind == Dir && n.Kind == Dir {
		c := e.own(old)
		n.edit = c.edit
		*c = *n
		dir.edit.set(name, c)
		return
	}
	e.drop(p, old)
	if n.Kind == Dir {
		n = e.own(n)
	}
	dir.edit.set(name, n)
}

// Link makes p another name of the entry at target, which must exist and be no
// directory. Missing ancestors are made as Put makes them.
func (e *Editor) Link(p, target string) error {
	t := e.Lookup(target)
	if t == nil {
		return fmt.Errorf("link %q: no entry %q", p, target)
	}
	if t.Kind == Dir {
		return fmt.Errorf("link %q: %q is a directory", p, target)
	}
	if p == target || e.Lookup(p) == t {
		return nil
	}
	if strings.HasPrefix(target, p+"/") {
		return fmt.Errorf("link %q: %q stands below it", p, target)
	}
	dirPath, name := Split(p)
	dir, err := e.dirAt(dirPath, &t.Mtime)
	if err != nil {
		return err
	}
	e.drop(p, dir.edit.get(name))
	dir.edit.set(name, nil) // or the old entry would still count as a name
	names := []string{target}
	if t.links != nil {
		names = slices.Clone(e.names(t))
	}
	names = append(names, p)
	slices.SortFunc(names, Compare)
	dir.edit.set(name, t)
	e.regroup(t, names)
	return nil
}

// regroup points every path of names at one copy of n that knows them all.
func (e *Editor) regroup(n *Node, names []string) {
	c := n.Attrs()
	if len(names) > 1 {
		c.links = names
	}
	for _, p := range names {
		dirPath, name := Split(p)
		// The directory exists: the name stands in it.
		if dir, err := e.dirAt(dirPath, nil); err == nil && dir != nil {
			dir.edit.set(name, &c)
		}
	}
}

// Remove takes the entry at p away with all that is below it. What is not there
// needs no removing.
func (e *Editor) Remove(p string) error {
	if p == "" {
		return fmt.Errorf("remove root: not allowed")
	}
	dirPath, name := Split(p)
	if e.Lookup(p) == nil {
		return nil
	}
	dir, err := e.dirAt(dirPath, nil)
	if err != nil || dir == nil {
		return err
	}
	e.drop(p, dir.edit.get(name))
	dir.edit.remove(name)
	return nil
}

// RemoveChildren empties the directory at p.
func (e *Editor) RemoveChildren(p string) error {
	n := e.Lookup(p)
	if n == nil || n.Kind != Dir {
		return nil
	}
	for _, name := range slices.Clone(n.Names()) {
		if err := e.Remove(Join(p, name)); err != nil {
			return err
		}
	}
	return nil
}

// drop notes that the names at and below p, where n still stands, leave their hard
// link groups. The groups are put right at the end, in Tree: one by one, a file of
// many names would cost the square of their number.
func (e *Editor) drop(p string, n *Node) {
	if n == nil {
		return
	}
	_ = walk(p, n, func(_ string, n *Node) error {
		if n.links != nil {
			if e.loose == nil {
				e.loose = map[*Node]bool{}
			}
			e.loose[n] = true
		}
		return nil
	})
}

// names returns the names that a linked node has by now.
func (e *Editor) names(n *Node) []string {
	if !e.loose[n] {
		return n.links
	}
	var left []string
	for _, p := range n.links {
		if e.Lookup(p) == n {
			left = append(left, p)
		}
	}
	return left
}

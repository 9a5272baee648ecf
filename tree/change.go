package tree

import (
	"fmt"
	"slices"
)

// Change is one entry of a layer.
//
//	Node set            the entry at Path; two changes with the same *Node are
//	                    names of one hard link group
//	LinkTo set          another name of what the parent tree has at LinkTo (only
//	                    layers of others have it: ours hold whole groups)
//	Opaque              everything below Path in the parent is gone; with a nil
//	                    Node the directory keeps its attributes
//	none of these       a whiteout: Path is gone
type Change struct {
	Path   string
	Node   *Node
	LinkTo string
	Opaque bool
}

// Whiteout reports whether the change removes Path.
func (c *Change) Whiteout() bool { return c.Node == nil && c.LinkTo == "" && !c.Opaque }

// Changes are what a layer holds, sorted by Compare on Path, one for each path.
// A Node in it carries no entries of its own.
type Changes []Change

// Sort orders cs as Changes demands.
func (cs Changes) Sort() {
	byPath := func(a, b Change) int { return Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(cs, byPath) { // as they mostly are, and a stable sort is slow
		slices.SortStableFunc(cs, byPath)
	}
}

// Apply puts a layer on top of t. Whiteouts and opaque marks act on t only,
// wherever they stand; an ancestor that is a symlink is followed inside the
// root; a missing one becomes a directory, 0755, 0:0 (LAWS 15).
func (t Tree) Apply(cs Changes) (Tree, error) {
	e := t.Edit()
	for i := range cs {
		if c := &cs[i]; c.Whiteout() || c.Opaque {
			if err := e.hide(c); err != nil {
				return Tree{}, fmt.Errorf("apply %q: %w", c.Path, err)
			}
		}
	}
	g := newGroups(cs)
	var at cursor
	for i := range cs {
		if err := e.put(t, &cs[i], g, &at); err != nil {
			return Tree{}, fmt.Errorf("apply %q: %w", cs[i].Path, err)
		}
	}
	for _, one := range g.list {
		e.join(one)
	}
	return e.Tree(), nil
}

func (e *Editor) hide(c *Change) error {
	p, n, err := e.ResolveParent(c.Path)
	if err != nil || n == nil {
		return err
	}
	if c.Opaque {
		return e.RemoveChildren(p)
	}
	return e.Remove(p)
}

// groups are the hard links of a layer. They are joined when every entry stands:
// one by one, a file of many names would cost the square of their number.
type groups struct {
	of   map[*Node]*group // nil for a node of one name
	list []*group
}

// newGroups finds out which nodes of cs have several names.
func newGroups(cs Changes) *groups {
	g := &groups{of: map[*Node]*group{}}
	met := make(map[*Node]struct{}, len(cs))
	for i := range cs {
		n := cs[i].Node
		if n == nil || n.Kind == Dir {
			continue
		}
		before := len(met)
		if met[n] = struct{}{}; len(met) == before && g.of[n] == nil {
			one := &group{node: n}
			g.of[n] = one
			g.list = append(g.list, one)
		}
	}
	return g
}

type group struct {
	node  *Node    // of the layer, or of the lower tree
	lower string   // its path there; "" for a node of the layer
	names []string // the layer's
}

// lower returns the group of a node that the lower tree has at path.
func (g *groups) lower(n *Node, path string) *group {
	one := g.of[n]
	if one == nil {
		one = &group{node: n, lower: path}
		g.of[n] = one
		g.list = append(g.list, one)
	}
	return one
}

// cursor is the directory that the last change was in: mostly the next is as well.
type cursor struct {
	dir  *Node  // nil if there is none
	said string // as the layer calls it
	path string // without symlinks
}

// put enters c, which says that a directory stands above it.
func (e *Editor) put(lower Tree, c *Change, g *groups, at *cursor) error {
	if c.Node == nil && c.LinkTo == "" {
		return nil
	}
	said, name := Split(c.Path)
	if at.dir == nil || at.said != said || name == "" || name == "." || name == ".." {
		at.dir = nil
		p, _, err := e.ResolveParent(c.Path)
		if err != nil {
			return err
		}
		if err := e.clearWay(p); err != nil {
			return err
		}
		if p == "" && c.LinkTo == "" {
			return e.Put("", *c.Node)
		}
		at.said = said
		at.path, name = Split(p)
	}
	p, n := Join(at.path, name), c.Node
	if c.LinkTo != "" {
		lp, ln, err := lower.ResolveParent(c.LinkTo)
		if err != nil {
			return err
		}
		if ln == nil || ln.Kind == Dir {
			return fmt.Errorf("hard link to %q, which is no file", c.LinkTo)
		}
		one := g.lower(ln, lp)
		one.names = append(one.names, p)
		n = ln
	} else if one := g.of[n]; one != nil {
		one.names = append(one.names, p)
	}
	if at.dir == nil {
		var err error
		if at.dir, err = e.dirAt(at.path, &n.Mtime); err != nil {
			return err
		}
	}
	if n.Kind == Dir || n.links != nil {
		attrs := n.Attrs()
		n = &attrs
	} // the others nobody changes, and the tree may have them
	old := at.dir.edit.get(name)
	e.putIn(at.dir, p, name, old, n)
	if old != nil && (old.Kind == Symlink || old.Kind == Dir && n.Kind != Dir) {
		at.dir = nil // the way may have led through it
	}
	return nil
}

// join gives the names of a group one node: those of the layer, and, for a link
// into the lower tree, those that the file has there, unless this layer put
// something else in its place.
func (e *Editor) join(g *group) {
	var names []string
	for _, p := range g.names {
		if n := e.Lookup(p); n != nil && sameFile(n, g.node) {
			names = append(names, p)
		}
	}
	if g.lower != "" {
		if n := e.Lookup(g.lower); n != nil && sameFile(n, g.node) {
			names = append(names, g.lower)
			names = append(names, e.names(n)...)
		}
	}
	slices.SortFunc(names, Compare)
	if names = slices.Compact(names); len(names) > 1 {
		e.regroup(g.node, names)
	}
}

func sameFile(a, b *Node) bool {
	return a.Mtime == b.Mtime && slices.Equal(a.Extents, b.Extents) && SameAttrs(a, b)
}

// clearWay removes an ancestor of p that is neither directory nor symlink: the
// layer says that a directory stands there.
func (e *Editor) clearWay(p string) error {
	for i := range p {
		if p[i] != '/' {
			continue
		}
		n := e.Lookup(p[:i])
		if n == nil {
			return nil
		}
		if n.Kind != Dir {
			return e.Remove(p[:i])
		}
	}
	return nil
}

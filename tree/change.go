package tree

import (
	"fmt"
	"slices"
	"strings"
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
	slices.SortStableFunc(cs, func(a, b Change) int { return Compare(a.Path, b.Path) })
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
	first := make(map[*Node]string)
	for i := range cs {
		if err := e.put(t, &cs[i], first); err != nil {
			return Tree{}, fmt.Errorf("apply %q: %w", cs[i].Path, err)
		}
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

func (e *Editor) put(lower Tree, c *Change, first map[*Node]string) error {
	if c.Node == nil && c.LinkTo == "" {
		return nil
	}
	p, _, err := e.ResolveParent(c.Path)
	if err != nil {
		return err
	}
	if err := e.clearWay(p); err != nil {
		return err
	}
	if c.LinkTo != "" {
		return e.putLink(lower, p, c.LinkTo, first)
	}
	if c.Node.Kind == Dir {
		return e.Put(p, *c.Node)
	}
	if target, ok := first[c.Node]; ok && e.Lookup(target) != nil {
		return e.Link(p, target)
	}
	first[c.Node] = p
	return e.Put(p, *c.Node)
}

// putLink links p to what the lower tree has at target. Where this layer put
// something else there, p gets the lower entry as a file of its own, which later
// links to the same target share.
func (e *Editor) putLink(lower Tree, p, target string, first map[*Node]string) error {
	lp, ln, err := lower.ResolveParent(target)
	if err != nil {
		return err
	}
	if ln == nil || ln.Kind == Dir {
		return fmt.Errorf("hard link to %q, which is no file", target)
	}
	if now := e.Lookup(lp); now != nil && now.Kind == ln.Kind && slices.Equal(now.Extents, ln.Extents) && sameAttrs(now, ln) && now.Mtime == ln.Mtime && !strings.HasPrefix(lp, p+"/") {
		return e.Link(p, lp)
	}
	if twin, ok := first[ln]; ok && e.Lookup(twin) != nil {
		return e.Link(p, twin)
	}
	first[ln] = p
	return e.Put(p, *ln)
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

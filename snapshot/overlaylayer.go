package snapshot

import (
	"github.com/fbuild/fbuild/tree"
)

// whiteout is what overlayfs takes for a removal.
var whiteout = tree.Node{Kind: tree.CharDevice}

// layerTree is what must lie in the lower directory of a layer that makes after out of
// before: every entry that differs, with the directories above it, and whiteouts for
// what is gone. Other than in a difference in normal form every attribute counts, since
// a command sees them all. It reports whether there is anything.
//
// Devices are never there: the kernel lets nobody make them in a user namespace
// (LAWS 19), and a character device 0/0 would be a whiteout (LAWS 24).
func layerTree(before, after tree.Tree) (tree.Tree, bool, error) {
	l := &layerMaker{edit: tree.Empty().Edit(), first: map[*tree.Node]string{}}
	changed, err := l.dir("", before.Root(), after.Root())
	return l.edit.Tree(), changed, err
}

type layerMaker struct {
	edit  *tree.Editor
	first map[*tree.Node]string // of each link group, the name that was put
}

// dir adds what differs below the directory b of after; a is what stood there, if
// anything. It reports whether something did.
func (l *layerMaker) dir(p string, a, b *tree.Node) (bool, error) {
	if a == b {
		return false, nil
	}
	merged := a != nil && a.Kind == tree.Dir
	changed := p != "" && (!merged || !sameDir(a, b))
	if merged {
		for _, name := range a.Names() {
			if c := b.Child(name); c == nil || device(c) && !device(a.Child(name)) {
				changed = true
				if err := l.edit.Put(tree.Join(p, name), whiteout); err != nil {
					return false, err
				}
			}
		}
	}
	for _, name := range b.Names() {
		child, c := tree.Join(p, name), b.Child(name)
		var old *tree.Node
		if merged {
			old = a.Child(name)
		}
		added := false
		var err error
		switch {
		case c == old || device(c):
		case c.Kind == tree.Dir:
			added, err = l.dir(child, old, c)
		default:
			added, err = true, l.leaf(child, c)
		}
		if err != nil {
			return false, err
		}
		changed = changed || added
	}
	if !changed || p == "" { // the root's attributes are those of the upper directory
		return changed, nil
	}
	return true, l.edit.Put(p, overlayAttrs(b))
}

func (l *layerMaker) leaf(p string, n *tree.Node) error {
	if len(n.Links()) < 2 {
		return l.edit.Put(p, overlayAttrs(n))
	}
	if first, ok := l.first[n]; ok {
		return l.edit.Link(p, first)
	}
	l.first[n] = p
	return l.edit.Put(p, overlayAttrs(n))
}

func device(n *tree.Node) bool { return n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice }

// sameDir compares what stat and listxattr tell of two directories.
func sameDir(a, b *tree.Node) bool {
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Mtime != b.Mtime || len(a.Xattrs) != len(b.Xattrs) {
		return false
	}
	for i := range a.Xattrs {
		if a.Xattrs[i] != b.Xattrs[i] {
			return false
		}
	}
	return true
}

// overlayAttrs is a node without what overlayfs would take for its own (LAWS 24).
func overlayAttrs(n *tree.Node) tree.Node {
	c := n.Attrs()
	var kept []tree.Xattr
	for _, x := range c.Xattrs {
		if !overlayOwn(x.Name) {
			kept = append(kept, x)
		}
	}
	c.Xattrs = kept
	return c
}

package tree

import (
	"fmt"
	"slices"
)

// SameContent answers whether two files of equal size hold the same bytes. Diff
// asks it only where extents and digests do not already tell.
type SameContent func(a, b *Node) (bool, error)

// Diff returns what a layer must hold to make child out of parent, in the normal
// form of LAWS 14: ancestors present, the root itself never (no layer can carry
// its attributes: unpackers ignore them); entries equal to the parent in content,
// type, mode, owner, xattrs and mtime dropped; the mtime of a directory in which
// no name changed is no difference; link groups complete where one of their
// names is written; whiteouts for removed names, never opaque marks.
//
// It costs what differs where child was made by editing parent, and never looks
// into a directory that both share.
func Diff(parent, child Tree, same SameContent) (Changes, error) {
	d := differ{parent: parent, child: child, same: same, out: map[string]Change{}, groups: map[*Node]bool{}, met: map[*Node]bool{}, subsets: map[[2]*Node]bool{}}
	if err := d.dir("", parent.root, child.root); err != nil {
		return nil, err
	}
	d.splitGroups()
	for n := range d.groups {
		for _, p := range n.links {
			d.out[p] = Change{Path: p, Node: n}
		}
	}
	d.ancestors()
	cs := make(Changes, 0, len(d.out))
	for _, c := range d.out {
		cs = append(cs, c)
	}
	cs.Sort()
	layerNodes(cs)
	return cs, nil
}

// EqualContent reports whether extents or digests prove that two files hold the
// same bytes, and whether they prove anything.
func EqualContent(a, b *Node) (equal, known bool) {
	switch {
	case a.Size != b.Size:
		return false, true
	case a.Size == 0 || len(a.Extents) > 0 && slices.Equal(a.Extents, b.Extents):
		return true, true
	case a.Digest != "" && b.Digest != "":
		return a.Digest == b.Digest, true
	}
	return false, false
}

type differ struct {
	parent, child Tree
	same          SameContent
	out           map[string]Change
	// groups are the child's hard link groups that must be written.
	groups map[*Node]bool
	// met are the parent's hard link groups that were met at a name whose node
	// differs.
	met     map[*Node]bool
	subsets map[[2]*Node]bool // answers of subset
}

func (d *differ) dir(p string, a, b *Node) error {
	if a == b {
		return nil
	}
	names, changed := b.Names(), false
	for _, name := range a.Names() {
		if b.Child(name) == nil {
			changed = true
			d.out[Join(p, name)] = Change{Path: Join(p, name)}
			d.meet(a.Child(name))
		}
	}
	for _, name := range names {
		an, bn := a.Child(name), b.Child(name)
		changed = changed || an == nil
		if err := d.entry(Join(p, name), an, bn); err != nil {
			return err
		}
	}
	attrs := b.Attrs()
	if !changed {
		attrs.Mtime = a.Mtime
	}
	if p != "" && (!SameAttrs(a, b) || attrs.Mtime != a.Mtime) {
		d.out[p] = Change{Path: p, Node: &attrs}
	}
	return nil
}

func (d *differ) entry(p string, a, b *Node) error {
	switch {
	case a == b:
		return nil
	case a != nil && a.Kind == Dir && b.Kind == Dir:
		return d.dir(p, a, b)
	case a == nil || a.Kind != b.Kind:
		d.meet(a)
		return walk(p, b, func(p string, n *Node) error {
			d.write(p, n)
			return nil
		})
	}
	d.meet(a)
	equal, err := d.equal(p, a, b)
	if err != nil {
		return err
	}
	if !equal || !d.subset(b, a) {
		d.write(p, b)
	}
	return nil
}

// SameEntry reports whether a layer need not hold b where a stands: it compares
// two entries that are no directories, but for their links. same may be nil: then
// contents that can't be told to be equal are not.
func SameEntry(a, b *Node, same SameContent) (bool, error) {
	if !SameAttrs(a, b) || a.Mtime != b.Mtime {
		return false, nil
	}
	if a.Kind != File {
		return true, nil
	}
	if eq, known := EqualContent(a, b); known || same == nil {
		return eq, nil
	}
	return same(a, b)
}

// equal is SameEntry of the entries at p.
func (d *differ) equal(p string, a, b *Node) (bool, error) {
	eq, err := SameEntry(a, b, d.same)
	if err != nil {
		return false, fmt.Errorf("compare contents of %q: %w", p, err)
	}
	return eq, nil
}

// subset reports whether every name of the child's group stands in the parent's,
// at one of whose names both stand. It is asked for each name and answered once.
func (d *differ) subset(b, a *Node) bool {
	if b.links == nil {
		return true
	}
	pair := [2]*Node{b, a}
	known, ok := d.subsets[pair]
	if !ok {
		known = true
		for i := 0; known && i < len(b.links); i++ {
			_, known = slices.BinarySearchFunc(a.links, b.links[i], Compare)
		}
		d.subsets[pair] = known
	}
	return known
}

// write enters an entry; of a hard link group all names follow at the end.
func (d *differ) write(p string, n *Node) {
	if n.links != nil {
		d.groups[n] = true
		return
	}
	if n.Kind == Dir {
		attrs := n.Attrs()
		n = &attrs
	}
	d.out[p] = Change{Path: p, Node: n}
}

func (d *differ) meet(a *Node) {
	if a != nil && a.links != nil {
		d.met[a] = true
	}
}

// splitGroups writes the parts of a group of the parent whose names no longer
// share a node, but for one: left alone, stacking the layer would link them again.
func (d *differ) splitGroups() {
	for a := range d.met {
		var heir *Node // the part that keeps what the parent has
		for _, p := range a.links {
			n := d.child.Lookup(p)
			if n == nil || n.Kind == Dir || n == heir || d.written(p, n) {
				continue
			}
			if heir == nil {
				heir = n
			} else {
				d.write(p, n)
			}
		}
	}
}

func (d *differ) written(p string, n *Node) bool {
	if n.links != nil {
		return d.groups[n]
	}
	_, ok := d.out[p]
	return ok
}

// ancestors enters the directories above every change, with the parent's time
// where they are there only for that.
func (d *differ) ancestors() {
	paths := make([]string, 0, len(d.out))
	for p := range d.out {
		paths = append(paths, p)
	}
	for _, p := range paths {
		for dir, _ := Split(p); dir != ""; dir, _ = Split(dir) {
			if _, ok := d.out[dir]; ok {
				break
			}
			attrs := d.child.Lookup(dir).Attrs()
			if a := d.parent.Lookup(dir); a != nil && a.Kind == Dir {
				attrs.Mtime = a.Mtime
			}
			d.out[dir] = Change{Path: dir, Node: &attrs}
		}
	}
}

// layerNodes makes the nodes what a layer can hold: whole seconds, which a foreign
// base's need not be (LAWS 13), and one node without the tree's own fields for
// each link group.
func layerNodes(cs Changes) {
	copies := map[*Node]*Node{}
	for i := range cs {
		n := cs[i].Node
		if n == nil || n.links == nil && n.Mtime.Nsec == 0 {
			continue
		}
		c := copies[n]
		if c == nil {
			attrs := n.Attrs()
			attrs.Mtime = attrs.Mtime.Truncate()
			c = &attrs
			copies[n] = c
		}
		cs[i].Node = c
	}
}

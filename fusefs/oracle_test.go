package fusefs

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// checkChanges compares what changes found with the difference of whole trees: the
// oracle of every test that finishes a step. LAWS 14. It also compares what a build gets
// of them in pieces.
func checkChanges(s *step, c *collector) error {
	cs, notes, live := c.changes(), c.notes, c.live
	if err := checkPieces(s.parent, c, cs); err != nil {
		return err
	}
	child, wantNotes, err := s.result()
	if err != nil {
		return err
	}
	want, err := tree.Diff(s.parent, child, s.sameContent)
	if err != nil {
		return err
	}
	truncateTimes(want)
	if got, want := tree.Format(cs), tree.Format(want); got != want {
		return fmt.Errorf("changes: got\n%s\nwant, by the difference of the trees,\n%s", got, want)
	}
	if string(tree.Encode(cs)) != string(tree.Encode(want)) {
		return fmt.Errorf("changes: encoded they differ from the difference of the trees: %s", tree.Format(cs))
	}
	if !slices.Equal(notes, wantNotes) {
		return fmt.Errorf("notes: got %q, want %q", notes, wantNotes)
	}
	if want := liveBytes(want, s.spool.w.ID()); live != want {
		return fmt.Errorf("bytes of the spool that live: got %d, want %d", live, want)
	}
	return nil
}

// checkPieces compares changes that are told piece by piece, and the tree that grows of
// them, with what is known of cs.
func checkPieces(parent tree.Tree, c *collector, cs tree.Changes) error {
	g := parent.Grow()
	if err := recorder.SendChanges(g.Add, c.count, c.each); err != nil {
		return err
	}
	return checkGrown(parent, g, cs)
}

func checkGrown(parent tree.Tree, g *tree.Growing, cs tree.Changes) error {
	got, after, err := g.End()
	if err != nil {
		return err
	}
	want, err := parent.Apply(cs)
	if err != nil {
		return err
	}
	if string(tree.Encode(got)) != string(tree.Encode(cs)) {
		return fmt.Errorf("changes in pieces: got\n%s\nwant\n%s", tree.Format(got), tree.Format(cs))
	}
	rest, err := tree.Diff(want, after, nil)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("the tree that grew differs from changes that were applied:\n%s", tree.Format(rest))
	}
	return err
}

// result builds the tree after from the parent and the inodes in memory.
func (s *step) result() (tree.Tree, []string, error) {
	m := merger{s: s, e: s.parent.Edit(), files: map[*inode][]string{}, moved: map[*inode]bool{}}
	if err := m.dir(s.rootDir, "", true); err != nil {
		return tree.Tree{}, nil, err
	}
	if err := m.putFiles(); err != nil {
		return tree.Tree{}, nil, err
	}
	slices.Sort(m.notes)
	return m.e.Tree(), m.notes, nil
}

// merger edits the parent into the tree after.
type merger struct {
	s     *step
	e     *tree.Editor
	files map[*inode][]string // every name of what has several
	moved map[*inode]bool     // has a name that the parent has not
	order []*inode
	notes []string
}

// dir brings the directory at p up to date. Where it is in place only what is in
// memory can differ; elsewhere everything in it is new.
func (m *merger) dir(d *inode, p string, inPlace bool) error {
	if d.dirty || !inPlace {
		if err := m.e.Put(p, m.node(d, p)); err != nil {
			return err
		}
	}
	if !inPlace && d.base != nil {
		for _, name := range d.base.Names() {
			if _, ok := d.dir.kids[name]; ok {
				continue
			}
			if err := m.copy(tree.Join(p, name), d.base.Child(name)); err != nil {
				return err
			}
		}
	}
	for _, name := range sortedKids(d) {
		if err := m.entry(d, name, tree.Join(p, name), inPlace); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) entry(d *inode, name, p string, inPlace bool) error {
	c := d.dir.kids[name]
	same := inPlace && c != nil && isBase(d, name, c)
	there := inPlace && d.base != nil && d.base.Child(name) != nil
	if there && !same {
		if err := m.e.Remove(p); err != nil {
			return err
		}
	}
	switch {
	case c == nil || c.untouched():
		return nil
	case c.kind == unix.S_IFSOCK:
		m.notes = append(m.notes, fmt.Sprintf("left out socket %q: an image can't hold one", "/"+p))
		return nil
	case c.dir != nil:
		return m.dir(c, p, same)
	}
	if c.nlink == 1 {
		if same && !c.dirty {
			return nil
		}
		return m.e.Put(p, m.node(c, p))
	}
	if m.files[c] == nil {
		m.order = append(m.order, c)
	}
	m.files[c] = append(m.files[c], p)
	m.moved[c] = m.moved[c] || !same
	return nil
}

// copy puts what the parent has as n, untouched, at p.
func (m *merger) copy(p string, n *tree.Node) error {
	if err := m.e.Put(p, *n); err != nil {
		return err
	}
	for _, name := range n.Names() {
		if err := m.copy(tree.Join(p, name), n.Child(name)); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) putFiles() error {
	for _, i := range m.order {
		if !i.dirty && !m.moved[i] {
			continue
		}
		names := m.files[i]
		if err := m.e.Put(names[0], m.node(i, names[0])); err != nil {
			return err
		}
		for _, p := range names[1:] {
			if err := m.e.Link(p, names[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// node is step.node without the attributes that no layer may bring in.
func (m *merger) node(i *inode, p string) tree.Node {
	var n tree.Node
	m.s.node(i, &n)
	n.Xattrs = slices.DeleteFunc(slices.Clone(n.Xattrs), func(x tree.Xattr) bool {
		if !stripped(x.Name) {
			return false
		}
		if i.base != nil {
			if v, ok := i.base.Xattr(x.Name); ok && v == x.Value {
				return false
			}
		}
		m.notes = append(m.notes, fmt.Sprintf("left out xattr %s of %q: an image can't hold one", x.Name, "/"+p))
		return true
	})
	if len(n.Xattrs) == 0 {
		n.Xattrs = nil
	}
	return n
}

// truncateTimes drops fractions of seconds that came from the parent: what is
// written again is written without.
func truncateTimes(cs tree.Changes) {
	copies := map[*tree.Node]*tree.Node{}
	for k := range cs {
		n := cs[k].Node
		if n == nil || n.Mtime.Nsec == 0 {
			continue
		}
		c := copies[n]
		if c == nil {
			attrs := n.Attrs()
			attrs.Mtime = attrs.Mtime.Truncate()
			c = &attrs
			copies[n] = c
		}
		cs[k].Node = c
	}
}

// liveBytes counts the bytes of one pack that cs needs.
func liveBytes(cs tree.Changes, id tree.PackID) int64 {
	var sum int64
	seen := map[*tree.Node]bool{}
	for k := range cs {
		n := cs[k].Node
		if n == nil || seen[n] {
			continue
		}
		seen[n] = true
		for _, x := range n.Extents {
			if x.Pack == id {
				sum += x.Len
			}
		}
	}
	return sum
}

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// finish ends the step in the order of LAWS 12 and works out what it did.
func (s *step) finish(ctx context.Context) (recorder.Result, error) {
	defer close(s.over)
	defer s.spool.w.Abort() // after Commit it does nothing
	if err := s.detach(ctx); err != nil {
		return recorder.Result{}, errors.Join(err, s.failure())
	}
	if err := os.Remove(s.root); err != nil {
		return recorder.Result{}, fmt.Errorf("remove mount point: %w", err)
	}
	s.spool.flush()
	if err := s.failure(); err != nil {
		return recorder.Result{}, err
	}
	child, notes, err := s.result()
	if err != nil {
		return recorder.Result{}, err
	}
	cs, err := tree.Diff(s.parent, child, s.sameContent)
	if err != nil {
		return recorder.Result{}, err
	}
	truncateTimes(cs)
	res := recorder.Result{Changes: cs, Notes: notes}
	res.Questions, res.Doubt = s.questions()
	res.Pack, err = s.commit(cs)
	if err != nil {
		return recorder.Result{}, err
	}
	return res, nil
}

func (s *step) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// result builds the tree after from the parent and the inodes in memory: its
// cost follows what was touched.
func (s *step) result() (tree.Tree, []string, error) {
	s.loadMovedLinks(s.rootDir, true)
	for _, i := range s.inodes {
		if i.file == nil {
			continue
		}
		if err := i.file.dropSlack(s.spool); err != nil {
			return tree.Tree{}, nil, err
		}
		if i.nlink == 0 {
			if err := i.file.cut(s.spool, 0, 1<<62); err != nil {
				return tree.Tree{}, nil, err
			}
		}
	}
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

// loadMovedLinks makes the inodes of hard link groups that have names in moved
// directories, so that what is copied from the parent below has none.
func (s *step) loadMovedLinks(d *inode, inPlace bool) {
	if !inPlace && d.base != nil {
		for _, name := range d.base.Names() {
			if _, ok := d.dir.kids[name]; !ok {
				s.loadLinks(d.base.Child(name))
			}
		}
	}
	for name, c := range d.dir.kids {
		if c != nil && c.dir != nil {
			s.loadMovedLinks(c, inPlace && isBase(d, name, c))
		}
	}
}

func (s *step) loadLinks(n *tree.Node) {
	if n.Links() != nil && !s.loaded(n) {
		s.group(n)
	}
	for _, name := range n.Names() {
		s.loadLinks(n.Child(name))
	}
}

// loaded reports whether n's group has its inode.
func (s *step) loaded(n *tree.Node) bool {
	dir, name := tree.Split(n.Links()[0])
	d := s.baseDirs[dir]
	if d == nil {
		return false
	}
	_, ok := d.dir.kids[name]
	return ok
}

// isBase reports whether c still is what the parent has as name in d.
func isBase(d *inode, name string, c *inode) bool {
	return d.base != nil && c.base != nil && d.base.Child(name) == c.base
}

func sortedKids(d *inode) []string {
	names := make([]string, 0, len(d.dir.kids))
	for name := range d.dir.kids {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
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
	n := m.s.node(i)
	n.Xattrs = slices.DeleteFunc(n.Xattrs, func(x tree.Xattr) bool {
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

var treeKinds = map[uint32]tree.Kind{
	unix.S_IFDIR: tree.Dir, unix.S_IFREG: tree.File, unix.S_IFLNK: tree.Symlink,
	unix.S_IFIFO: tree.Fifo, unix.S_IFCHR: tree.CharDevice, unix.S_IFBLK: tree.BlockDevice,
}

// node gives i the form of a tree. Times are rounded as the layer writer rounds
// them (LAWS 13), but for one that is the parent's own.
func (s *step) node(i *inode) tree.Node {
	n := tree.Node{
		Kind: treeKinds[i.kind], Mode: i.mode, UID: i.uid, GID: i.gid, Mtime: i.mtime,
		Size: i.size, Target: i.target, Major: i.major, Minor: i.minor, Xattrs: slices.Clone(i.xattrs),
	}
	if i.base == nil || i.mtime != i.base.Mtime {
		n.Mtime = n.Mtime.Truncate()
	}
	if i.file == nil {
		return n
	}
	if i.file.own {
		n.Extents = s.extents(i.file, i.size)
	} else {
		n.Extents, n.Digest = i.base.Extents, i.base.Digest
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

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

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
	var flushed sync.WaitGroup
	flushed.Go(func() {
		s.spool.flush()
		if err := s.spool.drop(); err != nil { // its memory goes before that of the changes comes
			s.fail(err)
		}
	})
	cs, notes, live, err := s.changes()
	flushed.Wait()
	if err := errors.Join(s.failure(), err); err != nil {
		return recorder.Result{}, err
	}
	if s.check != nil {
		if err := s.check(s, cs, notes, live); err != nil {
			return recorder.Result{}, err
		}
	}
	res := recorder.Result{Changes: cs, Notes: notes}
	res.Questions, res.Doubt = s.questions(cs)
	res.Pack, err = s.commit(cs, live)
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
	if d.base == nil && len(d.dir.order) == len(d.dir.kids) {
		for _, a := range d.dir.order { // often in order already
			names = append(names, a.name)
		}
	} else {
		for name := range d.dir.kids {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// node gives i the form of a tree. Times are rounded as the layer writer rounds
// them (LAWS 13), but for one that is the parent's own.
func (s *step) node(i *inode, n *tree.Node) {
	n.Kind, n.Mode, n.UID, n.GID, n.Mtime = tree.KindOf(i.kind), i.mode, i.uid, i.gid, i.mtime
	n.Size, n.Target, n.Major, n.Minor = i.size, i.target, i.major, i.minor
	if len(i.xattrs) > 0 {
		n.Xattrs = i.xattrs // nobody changes it
	}
	if i.base == nil || i.mtime != i.base.Mtime {
		n.Mtime = n.Mtime.Truncate()
	}
	switch {
	case i.file == nil:
	case i.file.own:
		n.Extents = s.extents(i.file, i.size)
	default:
		n.Extents, n.Digest = i.base.Extents, i.base.Digest
	}
}

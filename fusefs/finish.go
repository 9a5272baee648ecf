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

// finish ends the step in the order of LAWS 12 and works out what it did. Changes go to
// the sink, if there is one, while the rest of the spool is written; only when both are
// done is the step good, and only then are its questions looked for.
func (s *step) finish(ctx context.Context, to recorder.Sink) (res recorder.Result, err error) {
	defer close(s.over)
	defer s.spool.w.Abort() // after Commit it does nothing
	if err := s.detach(ctx); err != nil {
		return recorder.Result{}, errors.Join(err, s.failure())
	}
	if err := os.Remove(s.root); err != nil {
		return recorder.Result{}, fmt.Errorf("remove mount point: %w", err)
	}
	defer func() { err = errors.Join(err, s.spool.drop()) }()
	var spool sync.WaitGroup
	defer spool.Wait() // before drop, which must not find it writing
	spool.Go(s.spool.flush)
	var sender *recorder.Sender
	if to.Piece != nil {
		sender = recorder.NewSender(to.Piece, len(s.inodes))
	}
	c, err := s.collect(sender)
	if err != nil {
		return recorder.Result{}, errors.Join(s.failure(), err)
	}
	if res, err = s.hand(c, &spool, to); err != nil {
		return recorder.Result{}, err
	}
	if to.Whole != nil {
		if err := to.Whole(res); err != nil {
			return recorder.Result{}, err
		}
	}
	res.Questions, res.Doubt = s.questions(c)
	return res, nil
}

// hand makes the spool, which is all written when spool is done, a pack, while the build is
// told the last of what c found. Where bytes are copied from it first (LAWS 16), the build
// is told all again.
func (s *step) hand(c *collector, spool *sync.WaitGroup, to recorder.Sink) (res recorder.Result, err error) {
	if c.to != nil {
		err = c.to.End()
	}
	spool.Wait()
	if err := errors.Join(s.failure(), err); err != nil {
		return res, err
	}
	if s.check != nil {
		if err := s.check(s, c); err != nil {
			return res, err
		}
	}
	res.Notes = c.notes
	var cs tree.Changes
	if res.Pack, cs, err = s.commit(c); err != nil {
		return res, err
	}
	switch {
	case to.Piece == nil && cs == nil:
		res.Changes = c.changes()
	case to.Piece == nil:
		res.Changes = cs
	case cs != nil:
		err = errors.Join(to.Again(), recorder.SendChanges(to.Piece, len(cs), recorder.Each(cs)))
	}
	return res, err
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
// them (LAWS 13), but for one that is the parent's own. Its extents take the room of
// those that n has.
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
		n.Extents = nil
	case i.file.own:
		n.Extents = s.extents(n.Extents, i.file, i.size)
	default:
		n.Extents, n.Digest = i.base.Extents, i.base.Digest
	}
}

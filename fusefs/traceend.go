package fusefs

import (
	"slices"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// modelled are the requests whose answers the rules cover; any other is a doubt.
var modelled = func() (known [opcodes]bool) {
	for _, op := range []int{
		opLookup, opForget, opGetattr, opSetattr, opReadlink, opMkdir, opUnlink, opRmdir, opRename, opRead, opWrite, opRelease, opFsync,
		opGetxattr, opInit, opReaddirPlus, opReleasedir, opCreate, opInterrupt, opBatchForget, opRename2,
		6, 8, 13, 51, // SYMLINK, MKNOD, LINK, TMPFILE
		21, 23, 24, // SETXATTR, LISTXATTR, REMOVEXATTR
		43, 46, 47, 53, // FALLOCATE, LSEEK, COPY_FILE_RANGE and with 64 bits
		14, 17, 25, 27, 30, 34, 38, // one answer always: OPEN, STATFS, FLUSH, OPENDIR, FSYNCDIR, ACCESS, DESTROY
		31, 32, 33, 37, 39, 40, 50, 52, // refused always: GETLK, SETLK, SETLKW, BMAP, IOCTL, POLL, SYNCFS, STATX
	} {
		known[op] = true
	}
	return known
}()

// questions are what the step, which did what c found, asked of its parent, once nobody can
// ask any more; and why there may be others.
func (s *step) questions(c *collector) ([]trace.Question, string) {
	t := &s.traces
	if !t.on {
		return nil, "the recorder was not asked to trace"
	}
	t.layer = c
	s.endDir(s.rootDir, true)
	for _, i := range s.inodes {
		if i.base != nil && i.asked != 0 {
			t.noteInode(i)
		}
	}
	for p, i := range t.linked {
		if i.asked&askNames == 0 { // else all its names are there
			t.note(p, i.asked&asksOf(i.base))
		}
	}
	t.fold()
	t.merge()
	for op := range s.counts {
		if s.counts[op].Load() > 0 && !modelled[op] {
			t.doubts("the step made requests of kind %d, which are not traced", op)
		}
	}
	return t.expand(), t.doubt
}

// noteInode enters what was asked of i. A file of several names is known by those
// that were looked up; where the step changed it, by all.
func (t *traces) noteInode(i *inode) {
	a, links := i.asked&asksOf(i.base), i.base.Links()
	switch {
	case links == nil:
		t.note(i.basePath, a)
	case a&askNames != 0:
		for _, p := range links {
			t.note(p, a)
			for dir, _ := tree.Split(p); dir != ""; dir, _ = tree.Split(dir) {
				t.note(dir, t.asks[ruleAncestor]) // the layer writes every name
			}
		}
	case t.asks[ruleLinks] == 0:
		t.note(i.basePath, a)
	}
}

// expand makes questions of what was found.
func (t *traces) expand() []trace.Question {
	n := 0
	for _, f := range t.found {
		for k := trace.Entry; k <= trace.Time; k++ {
			n += int(f.asks >> (k - 1) & 1)
		}
	}
	out := make([]trace.Question, 0, n)
	for _, f := range t.found {
		if strange(f.path) {
			t.doubts("the step asked for %q, which is no path of a tree", f.path)
			continue
		}
		for k := trace.Entry; k <= trace.Time; k++ {
			if f.asks>>(k-1)&1 != 0 {
				out = append(out, trace.Question{Path: f.path, Kind: k})
			}
		}
	}
	return out
}

// strange reports names that stand for other things than entries.
func strange(p string) bool {
	_, name := tree.Split(p)
	return name == "." || name == ".." || name == "" && p != ""
}

// endDir applies the rules of the end of a step (LAWS 4) to directory d, which is in
// place if it and all above it stand where the parent has them. It reports whether
// anything in d or below it changed.
func (s *step) endDir(d *inode, inPlace bool) (changed bool) {
	for name, c := range d.dir.kids {
		var there *tree.Node // what the parent has here
		if inPlace && d.base != nil {
			there = d.base.Child(name)
		}
		if c != nil && there != nil && there != c.base {
			s.traces.replaced(tree.Join(d.basePath, name), there)
		}
		switch {
		case c == nil:
			changed = true
		case c.base == nil:
			changed = changed || !c.untouched()
			if c.dir != nil {
				s.endDir(c, false)
			}
		case there == c.base:
			changed = s.endInPlace(c) || changed
		default:
			changed = true
			s.endMoved(c)
		}
	}
	if !inPlace && d.base != nil {
		for _, name := range d.base.Names() {
			if _, ok := d.dir.kids[name]; !ok {
				s.noteSubtree(tree.Join(d.basePath, name), d.base.Child(name))
			}
		}
	}
	return changed
}

// replaced asks about what the parent had at p and below, where the step put something
// else that is equal to it, so that the normal form dropped it, or that would be if
// that had other attributes or bytes (LAWS 5).
func (t *traces) replaced(p string, victim *tree.Node) {
	n, written := t.layer.written(p)
	if written && (n == nil || n.Kind != victim.Kind) {
		return
	}
	switch {
	case !written:
		t.note(p, t.asks[ruleDropped]&asksOf(victim))
	case sameEntry(n, victim):
		t.note(p, t.asks[ruleDropped]&asksOf(victim)&^askTime)
	}
	for _, name := range victim.Names() {
		t.replaced(tree.Join(p, name), victim.Child(name))
	}
}

// sameEntry reports whether two entries of one kind may be equal as far as what was
// asked of them tells. The time of a directory is no difference.
func sameEntry(a, b *tree.Node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Size == b.Size &&
		(a.Kind == tree.Dir || a.Mtime.Truncate() == b.Mtime.Truncate())
}

// endMoved is endDir for what stands elsewhere than in the parent: the layer has all of it.
func (s *step) endMoved(c *inode) {
	moved := s.traces.asks[ruleMoved]
	if c.fresh {
		moved &^= askContent
	}
	c.asked |= moved
	s.endNames(c)
	if c.dir != nil {
		s.endDir(c, false)
	}
}

// endInPlace is endDir for what stands where the parent has it.
func (s *step) endInPlace(c *inode) (changed bool) {
	if c.dir != nil {
		changed = s.endDir(c, true) || c.dirty
		if changed {
			s.saw(c, ruleAncestor)
		}
		return changed
	}
	if !c.dirty {
		return false
	}
	s.endNames(c)
	same, dropped := c.sameAttrs(), s.traces.asks[ruleDropped]
	if same && c.timed { // it was given the time that it has
		c.asked |= dropped & askTime
	}
	switch {
	case !same && c.fresh:
		c.asked |= s.traces.asks[ruleLayer] &^ askContent
	case !same || c.base.Links() != nil:
		s.saw(c, ruleLayer)
	case c.file != nil && c.file.own: // its bytes were compared with the parent's
		c.asked |= dropped &^ askTime
	default:
		return false
	}
	return true
}

// endNames asks for all names of a file that has several.
func (s *step) endNames(c *inode) {
	if c.base.Links() != nil {
		s.saw(c, ruleNames)
	}
}

// sameAttrs reports whether all but the bytes is as the parent has it, so that the
// normal form may drop the entry.
func (i *inode) sameAttrs() bool {
	mtime := i.mtime
	if mtime != i.base.Mtime {
		mtime = mtime.Truncate() // as node
	}
	return i.mode == i.base.Mode && i.uid == i.base.UID && i.gid == i.base.GID && i.size == i.base.Size &&
		int(i.nlink) == i.base.Nlink() && mtime == i.base.Mtime && slices.Equal(i.xattrs, i.base.Xattrs)
}

// noteSubtree asks everything of what the parent has at p and below: it moved, and
// nobody looked at it.
func (s *step) noteSubtree(p string, n *tree.Node) {
	t := &s.traces
	a := t.asks[ruleMoved] | t.asks[ruleNames]
	t.note(p, a&asksOf(n))
	for _, name := range n.Names() {
		s.noteSubtree(tree.Join(p, name), n.Child(name))
	}
}

package fusefs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxTarget is the longest link target that every unpacker takes (LAWS 21).
const maxTarget = 4095

// whiteoutPrefix starts the names that mean something else in a layer.
const whiteoutPrefix = ".wh."

// nameable refuses names that no image can hold (LAWS 21, 24).
func nameable(name string) fuse.Status {
	switch {
	case len(name) > maxName:
		return fuse.Status(unix.ENAMETOOLONG)
	case strings.HasPrefix(name, whiteoutPrefix):
		return fuse.EINVAL
	}
	return fuse.OK
}

// make enters a new inode as name in the directory that h names.
func (s *step) make(h *fuse.InHeader, name string, kind, mode, umask uint32) (*inode, fuse.Status) {
	if st := nameable(name); st != fuse.OK {
		return nil, st
	}
	d, st := s.directory(h.NodeId)
	if st != fuse.OK {
		return nil, st
	}
	if d.nlink == 0 {
		return nil, fuse.ENOENT
	}
	if d.has(name) {
		s.sawName(d, name, s.child(d, name))
		return nil, fuse.Status(unix.EEXIST)
	}
	s.sawName(d, name, nil)
	c := s.newIn(d, h.Owner, kind, mode, umask)
	d.attach(name, c)
	s.touched(d)
	return c, fuse.OK
}

// newIn makes an inode that belongs into d, without a name yet: a directory
// with the setgid bit gives its group, one with a default ACL that.
func (s *step) newIn(d *inode, owner fuse.Owner, kind, mode, umask uint32) *inode {
	if d.mode&unix.S_ISGID != 0 {
		owner.Gid = d.gid
		if kind == unix.S_IFDIR {
			mode |= unix.S_ISGID
		}
	}
	c := s.newInode(kind, mode, owner)
	s.saw(d, ruleSetXattr) // a default ACL
	c.inherit(d, umask)
	return c
}

// Mkdir is mkdir(2).
func (s *step) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, st := s.make(&in.InHeader, name, unix.S_IFDIR, in.Mode, in.Umask)
	if st != fuse.OK {
		return st
	}
	return s.entry(c, out)
}

// Mknod is mknod(2) for pipes, sockets and files. The kernel refuses devices in
// a user namespace, but for the 0/0 that means a whiteout elsewhere (LAWS 24).
func (s *step) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	kind := in.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return fuse.EPERM
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, st := s.make(&in.InHeader, name, kind, in.Mode, in.Umask)
	if st != fuse.OK {
		return st
	}
	return s.entry(c, out)
}

// Symlink is symlink(2).
func (s *step) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if len(target) > maxTarget {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, st := s.make(h, name, unix.S_IFLNK, 0o777, 0)
	if st != fuse.OK {
		return st
	}
	c.target, c.size = target, int64(len(target))
	return s.entry(c, out)
}

// Readlink is readlink(2).
func (s *step) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(h.NodeId)
	if i == nil || i.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	s.saw(i, ruleLink)
	return []byte(i.target), fuse.OK
}

// Link is link(2).
func (s *step) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := nameable(name); st != fuse.OK {
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, st := s.directory(in.NodeId)
	if st != fuse.OK {
		return st
	}
	c := s.inode(in.Oldnodeid)
	s.sawName(d, name, s.child(d, name))
	switch {
	case c == nil:
		return fuse.Status(unix.ESTALE)
	case c.dir != nil:
		return fuse.EPERM
	case d.nlink == 0:
		return fuse.ENOENT
	case d.has(name):
		return fuse.Status(unix.EEXIST)
	}
	d.attach(name, c)
	c.nlink++
	c.stub = false
	s.changed(c)
	s.touched(d)
	return s.entry(c, out)
}

// Unlink is unlink(2).
func (s *step) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return s.remove(h, name, false)
}

// Rmdir is rmdir(2).
func (s *step) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return s.remove(h, name, true)
}

func (s *step) remove(h *fuse.InHeader, name string, dir bool) fuse.Status {
	gone, st := s.removeLocked(h, name, dir)
	if gone != nil {
		s.release(gone)
	}
	return st
}

func (s *step) removeLocked(h *fuse.InHeader, name string, dir bool) (*inode, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, st := s.directory(h.NodeId)
	if st != fuse.OK {
		return nil, st
	}
	c := s.child(d, name)
	s.sawName(d, name, c)
	if dir && c != nil {
		s.saw(c, ruleVictim)
	}
	switch {
	case c == nil:
		return nil, fuse.ENOENT
	case dir && c.dir == nil:
		return nil, fuse.ENOTDIR
	case !dir && c.dir != nil:
		return nil, fuse.EISDIR
	case dir && !c.empty():
		return nil, fuse.Status(unix.ENOTEMPTY)
	}
	d.detach(name)
	s.touched(d)
	return s.unlinked(c), fuse.OK
}

// unlinked takes a name from c; it returns c if nobody can reach it any more.
func (s *step) unlinked(c *inode) *inode {
	c.nlink--
	s.changed(c)
	return s.dropIfUnused(c)
}

// Rename is renameat2(2), with RENAME_NOREPLACE and RENAME_EXCHANGE.
func (s *step) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if st := nameable(to); st != fuse.OK {
		return st
	}
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	gone, st := s.renameLocked(in, from, to)
	if gone != nil {
		s.release(gone)
	}
	return st
}

func (s *step) renameLocked(in *fuse.RenameIn, from, to string) (*inode, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, st := s.directory(in.NodeId)
	if st != fuse.OK {
		return nil, st
	}
	b, st := s.directory(in.Newdir)
	if st != fuse.OK {
		return nil, st
	}
	c, old := s.child(a, from), s.child(b, to)
	s.sawName(a, from, c)
	s.sawName(b, to, old)
	if old != nil {
		s.saw(old, ruleVictim)
	}
	exchange := in.Flags&unix.RENAME_EXCHANGE != 0
	if st := mayRename(c, old, b, in.Flags); st != fuse.OK || c == old {
		return nil, st
	}
	var gone *inode
	if exchange {
		if st := nameable(from); st != fuse.OK {
			return nil, st
		}
		a.attach(from, old)
		old.stub = false
		s.changed(old)
	} else {
		a.detach(from)
	}
	b.attach(to, c)
	s.dirMoved = s.dirMoved || c.dir != nil || exchange && old.dir != nil
	c.stub = false
	s.changed(c)
	s.touched(a)
	if b != a {
		s.touched(b)
	}
	if old != nil && !exchange {
		gone = s.unlinked(old)
	}
	return gone, fuse.OK
}

func mayRename(c, old, dir *inode, flags uint32) fuse.Status {
	exchange := flags&unix.RENAME_EXCHANGE != 0
	switch {
	case c == nil, exchange && old == nil, dir.nlink == 0:
		return fuse.ENOENT
	case flags&unix.RENAME_NOREPLACE != 0 && old != nil:
		return fuse.Status(unix.EEXIST)
	case old == nil || exchange || c == old:
		return fuse.OK
	case c.dir != nil && old.dir == nil:
		return fuse.ENOTDIR
	case c.dir == nil && old.dir != nil:
		return fuse.EISDIR
	case old.dir != nil && !old.empty():
		return fuse.Status(unix.ENOTEMPTY)
	}
	return fuse.OK
}

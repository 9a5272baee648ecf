package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

const capability = "security.capability"

// GetAttr is stat(2).
func (s *step) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(in.NodeId)
	if i == nil {
		return fuse.Status(unix.ESTALE)
	}
	s.saw(i, ruleEntry)
	out.SetTimeout(forever)
	s.attr(i, &out.Attr)
	return fuse.OK
}

// SetAttr is chmod(2), chown(2), truncate(2) and utimensat(2). Permissions were
// checked by the kernel (default_permissions).
func (s *step) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	i := s.inode(in.NodeId)
	s.mu.Unlock()
	if i == nil {
		return fuse.Status(unix.ESTALE)
	}
	if size, ok := in.GetSize(); ok {
		if i.file == nil {
			return fuse.EINVAL
		}
		if st := s.truncate(i, int64(size)); st != fuse.OK {
			return st
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sawSet(i, in)
	s.changed(i)
	s.setOwner(i, in)
	if mode, ok := in.GetMode(); ok {
		i.chmod(mode)
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		i.mtime = i.ctime
		s.killPrivileges(i, in.Valid&fuse.FATTR_KILL_SUIDGID != 0)
	}
	setTime(&i.atime, i.ctime, in.Valid&fuse.FATTR_ATIME != 0, in.Valid&fuse.FATTR_ATIME_NOW != 0, in.Atime, in.Atimensec)
	i.timed = i.timed || in.Valid&fuse.FATTR_MTIME != 0
	setTime(&i.mtime, i.ctime, in.Valid&fuse.FATTR_MTIME != 0, in.Valid&fuse.FATTR_MTIME_NOW != 0, in.Mtime, in.Mtimensec)
	out.SetTimeout(forever)
	s.attr(i, &out.Attr)
	return fuse.OK
}

// setOwner changes ids; as in every Linux file system that ends setuid, setgid
// and capabilities of anything but a directory.
func (s *step) setOwner(i *inode, in *fuse.SetAttrIn) {
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if !hasUID && !hasGID {
		return
	}
	if hasUID {
		i.uid = uid
	}
	if hasGID {
		i.gid = gid
	}
	if i.dir == nil {
		s.killPrivileges(i, true)
	}
}

// killPrivileges takes file capabilities away and, if ids, the setuid bit and
// the setgid bit of an executable (KILLPRIV_V2 leaves that to the server).
// It reports whether that changed the mode.
func (s *step) killPrivileges(i *inode, ids bool) bool {
	before := i.mode
	if ids {
		i.mode &^= unix.S_ISUID
		if i.mode&unix.S_IXGRP != 0 {
			i.mode &^= unix.S_ISGID
		}
	}
	i.xattrs = without(i.xattrs, capability)
	return i.mode != before
}

func setTime(t *tree.Time, now tree.Time, set, toNow bool, sec uint64, nsec uint32) {
	switch {
	case toNow:
		*t = now
	case set:
		*t = tree.Time{Sec: int64(sec), Nsec: int32(nsec)}
	}
}

// Access is never asked: the mount has default_permissions.
func (s *step) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// StatFs is constant: what varies would have to be in a step's identity (LAWS 8).
func (s *step) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{
		Blocks: 1 << 28, Bfree: 1 << 27, Bavail: 1 << 27, Files: 1 << 24, Ffree: 1 << 23,
		Bsize: 4096, NameLen: maxName, Frsize: 4096,
	}
	return fuse.OK
}

package fusefs

import (
	"encoding/binary"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// POSIX ACLs. The kernel checks permissions by them and asks for them as xattrs
// whose ids are those of the mount, which are the image's. What a file system has to
// do by itself is done here, as posix_acl(5) and the kernel's posix_acl.c have it: an
// ACL and the mode say the same, and a directory's default ACL is what is made in it
// starts with, instead of the umask.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// The form of an ACL in an xattr: a version, then tag, permissions and id of each.
const (
	aclVersion = 2
	aclHead    = 4
	aclEntry   = 8

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// acl is the value of such an xattr.
type acl []byte

// parseACL returns nil for what is no ACL that means anything.
func parseACL(v []byte) acl {
	if len(v) < aclHead+3*aclEntry || (len(v)-aclHead)%aclEntry != 0 || binary.LittleEndian.Uint32(v) != aclVersion {
		return nil
	}
	a := acl(slices.Clone(v))
	if a.find(aclUserObj) == nil || a.find(aclGroupObj) == nil || a.find(aclOther) == nil {
		return nil
	}
	return a
}

// perms are the entries' permissions, which can be changed there.
func (a acl) find(tag uint16) []byte {
	for at := aclHead; at < len(a); at += aclEntry {
		if binary.LittleEndian.Uint16(a[at:]) == tag {
			return a[at+2 : at+4]
		}
	}
	return nil
}

// group is the entry that the mode's bits of the group stand for.
func (a acl) group() []byte {
	if m := a.find(aclMask); m != nil {
		return m
	}
	return a.find(aclGroupObj)
}

// mode is what a says, in the bits of a mode.
func (a acl) mode() uint32 {
	bits := func(p []byte) uint32 { return uint32(p[0] & 7) }
	return bits(a.find(aclUserObj))<<6 | bits(a.group())<<3 | bits(a.find(aclOther))
}

// minimal reports whether a says no more than a mode can.
func (a acl) minimal() bool { return len(a) == aclHead+3*aclEntry }

// chmod makes a say what mode does.
func (a acl) chmod(mode uint32) {
	a.find(aclUserObj)[0] = byte(mode >> 6 & 7)
	a.group()[0] = byte(mode >> 3 & 7)
	a.find(aclOther)[0] = byte(mode & 7)
}

// restrict makes a allow no more than mode, which is what was asked for when
// something was made.
func (a acl) restrict(mode uint32) {
	a.find(aclUserObj)[0] &= byte(mode >> 6 & 7)
	a.group()[0] &= byte(mode >> 3 & 7)
	a.find(aclOther)[0] &= byte(mode & 7)
}

func (i *inode) acl(name string) acl {
	for _, x := range i.xattrs {
		if x.Name == name {
			return parseACL([]byte(x.Value))
		}
	}
	return nil
}

// inherit gives a new entry of d its mode: by the default ACL of d, else by umask.
func (i *inode) inherit(d *inode, umask uint32) {
	if i.kind == unix.S_IFLNK {
		return
	}
	def := d.acl(defaultACL)
	if def == nil {
		i.mode &^= umask & 0o777
		return
	}
	a := slices.Clone(def)
	a.restrict(i.mode)
	i.mode = i.mode&^0o777 | a.mode()
	if !a.minimal() {
		i.xattrs = with(i.xattrs, accessACL, string(a))
	}
	if i.dir != nil {
		i.xattrs = with(i.xattrs, defaultACL, string(def))
	}
}

// chmod is the mode part of SetAttr.
func (i *inode) chmod(mode uint32) {
	i.mode = mode & 0o7777
	if a := i.acl(accessACL); a != nil {
		a.chmod(mode)
		i.xattrs = with(i.xattrs, accessACL, string(a))
	}
}

// setACL is setxattr(2) of an ACL, which the kernel has checked.
func (s *step) setACL(i *inode, name string, value []byte, killGroup bool) fuse.Status {
	a := parseACL(value)
	switch {
	case a == nil, len(value) > maxXattr:
		return fuse.EINVAL
	case i.kind == unix.S_IFLNK:
		return fuse.Status(unix.EOPNOTSUPP)
	case name == defaultACL && i.dir == nil:
		return fuse.EACCES
	case name == defaultACL:
		i.xattrs = with(i.xattrs, name, string(a))
	default:
		i.mode = i.mode&^0o777 | a.mode()
		if killGroup {
			i.mode &^= unix.S_ISGID
		}
		if i.xattrs = without(i.xattrs, name); !a.minimal() {
			i.xattrs = with(i.xattrs, name, string(a))
		}
	}
	s.changed(i)
	return fuse.OK
}

// with returns list with name set to value. The list itself stays as it is.
func with(list []tree.Xattr, name, value string) []tree.Xattr {
	rest := without(list, name)
	out := append(make([]tree.Xattr, 0, len(rest)+1), rest...)
	return tree.SortXattrs(append(out, tree.Xattr{Name: name, Value: value}))
}

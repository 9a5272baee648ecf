package fusefs

import (
	"encoding/binary"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// maxXattr bounds one value, and the names of one inode together (LAWS 21).
const maxXattr = 64 << 10

// without returns list lacking name. The list itself stays as it is.
func without(list []tree.Xattr, name string) []tree.Xattr {
	for k := range list {
		if list[k].Name == name {
			out := make([]tree.Xattr, 0, len(list)-1)
			return append(append(out, list[:k]...), list[k+1:]...)
		}
	}
	return list
}

// hidden tells which attributes a RUN can't use: labels of security modules are the
// host's, and "system." is the kernel's own. What the parent has is kept.
func hidden(name string) bool {
	return strings.HasPrefix(name, "system.") && name != accessACL && name != defaultACL || strings.HasPrefix(name, "security.") && name != capability
}

// stripped tells which attributes a layer must not bring in: overlayfs would
// take them for its own (LAWS 24).
func stripped(name string) bool {
	return strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.overlay.")
}

// GetXAttr is getxattr(2).
func (s *step) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if hidden(name) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(h.NodeId)
	if i == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	s.saw(i, ruleXattr)
	for _, x := range i.xattrs {
		if x.Name == name {
			return fill(dest, x.Value)
		}
	}
	return 0, fuse.ENOATTR
}

// ListXAttr is listxattr(2).
func (s *step) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(h.NodeId)
	if i == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	s.saw(i, ruleXattr)
	return fill(dest, nameList(i.xattrs))
}

func nameList(list []tree.Xattr) string {
	var b strings.Builder
	for _, x := range list {
		if !hidden(x.Name) {
			b.WriteString(x.Name)
			b.WriteByte(0)
		}
	}
	return b.String()
}

func fill(dest []byte, v string) (uint32, fuse.Status) {
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// SetXAttr is setxattr(2).
func (s *step) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	switch {
	case hidden(name):
		return fuse.Status(unix.EOPNOTSUPP)
	case len(name) > maxName:
		return fuse.ERANGE
	case len(value) > maxXattr:
		return fuse.Status(unix.E2BIG)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(in.NodeId)
	if i == nil {
		return fuse.Status(unix.ESTALE)
	}
	s.saw(i, ruleSetXattr)
	rest := without(i.xattrs, name)
	there := len(rest) != len(i.xattrs)
	switch {
	case in.Flags&unix.XATTR_CREATE != 0 && there:
		return fuse.Status(unix.EEXIST)
	case in.Flags&unix.XATTR_REPLACE != 0 && !there:
		return fuse.ENOATTR
	}
	switch name {
	case capability:
		value = version2(value)
	case accessACL, defaultACL:
		return s.setACL(i, name, value, in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0)
	}
	list := with(rest, name, string(value))
	if len(nameList(list)) > maxXattr {
		return fuse.Status(unix.ENOSPC)
	}
	i.xattrs = list
	s.changed(i)
	return fuse.OK
}

// version2 turns capabilities bound to the root of this mount's user namespace
// into what an image holds: version 2, the root of whoever runs it (LAWS 26).
// Those bound to a namespace below keep their root.
func version2(v []byte) []byte {
	const revision, v2, v3, size2, size3 = 0xff000000, 0x02000000, 0x03000000, 20, 24
	if len(v) != size3 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&revision != v3 || binary.LittleEndian.Uint32(v[size2:]) != 0 {
		return v
	}
	out := append([]byte(nil), v[:size2]...)
	binary.LittleEndian.PutUint32(out, magic&^uint32(revision)|v2)
	return out
}

// RemoveXAttr is removexattr(2).
func (s *step) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if hidden(name) {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(h.NodeId)
	if i == nil {
		return fuse.Status(unix.ESTALE)
	}
	s.saw(i, ruleSetXattr)
	rest := without(i.xattrs, name)
	if len(rest) == len(i.xattrs) {
		return fuse.ENOATTR
	}
	i.xattrs = rest
	s.changed(i)
	return fuse.OK
}

package buildctx

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// errSkip says that an entry is left out of the context.
var errSkip = errors.New("left out")

const maxTarget = 4096

// statAt returns the node of entry NAME of directory DIR; P is its path, for errors and notes. errSkip means that it is no
// part of the context (a socket, or gone meanwhile).
func (c *Context) statAt(dir *os.File, name, p string) (tree.Node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return tree.Node{}, errSkip
		}
		return tree.Node{}, pathError("scan", p, err)
	}
	if strings.HasPrefix(name, ".wh.") {
		return tree.Node{}, &PathError{
			Op: "scan", Path: p, Err: errors.New("names that begin with .wh. mean a removal in an image layer"),
			Hint: "rename it, or " + ignoreHint,
		}
	}
	n := tree.Node{Mode: st.Mode & 0o7777, Mtime: tree.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Kind, n.Size = tree.File, st.Size
	case unix.S_IFDIR:
		n.Kind = tree.Dir
	case unix.S_IFLNK:
		target, err := readlinkAt(dir, name)
		if err != nil {
			return tree.Node{}, pathError("scan", p, err)
		}
		n.Kind, n.Target, n.Size = tree.Symlink, target, int64(len(target))
		return n, nil
	case unix.S_IFIFO:
		n.Kind = tree.Fifo
		return n, nil
	case unix.S_IFSOCK:
		c.note("socket %q of the build context is left out: an image cannot hold it", p)
		return tree.Node{}, errSkip
	default:
		return tree.Node{}, &PathError{Op: "scan", Path: p, Err: errors.New("it is a device"), Hint: ignoreHint}
	}
	xattrs, err := c.xattrsAt(dir, name, p)
	n.Xattrs = xattrs
	return n, err
}

func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, maxTarget)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// xattrsAt reads the extended attributes that an image keeps: user.* and file capabilities. Attributes that drive overlayfs
// would act on whoever unpacks the image and are left out with a note (LAWS 24); the rest belongs to this host.
func (c *Context) xattrsAt(dir *os.File, name, p string) ([]tree.Xattr, error) {
	file := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
	if n, err := unix.Llistxattr(file, nil); err == nil && n == 0 { // most files: nothing allocated
		return nil, nil
	}
	list, err := growing(func(b []byte) (int, error) { return unix.Llistxattr(file, b) })
	if err != nil {
		return nil, ignoreXattr(p, err)
	}
	var xattrs []tree.Xattr
	for key := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		switch {
		case strings.HasPrefix(key, "user.overlay."), strings.HasPrefix(key, "trusted.overlay."):
			c.note("extended attribute %s of %q is left out: overlayfs would obey it", key, p)
			continue
		case key != "security.capability" && !strings.HasPrefix(key, "user."):
			continue
		}
		value, err := growing(func(b []byte) (int, error) { return unix.Lgetxattr(file, key, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, ignoreXattr(p, err)
		}
		if key == "security.capability" {
			value = capabilityV2(value)
		}
		xattrs = append(xattrs, tree.Xattr{Name: key, Value: string(value)})
	}
	return tree.SortXattrs(xattrs), nil
}

// ignoreXattr tells file systems without attributes, and files whose attributes this user may not see (docker's client
// leaves those out too), from faults.
func ignoreXattr(p string, err error) error {
	for _, none := range []error{unix.ENOTSUP, unix.ENOSYS, unix.EACCES, unix.EPERM, unix.ENOENT} {
		if errors.Is(err, none) {
			return nil
		}
	}
	return pathError("read attributes of", p, err)
}

// growing calls READ with a buffer that is large enough.
func growing(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 512)
	for {
		n, err := read(buf)
		switch {
		case err == nil:
			return buf[:n], nil
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<20:
			buf = make([]byte, 8*len(buf))
		default:
			return nil, err
		}
	}
}

// capabilityV2 turns file capabilities of version 3 (bound to a user namespace of this host) into version 2, which is what
// a tree holds (LAWS 26): the root id at the end goes, the flags stay.
func capabilityV2(v []byte) []byte {
	const revisionMask, v2, v3 = 0xff000000, 0x02000000, 0x03000000
	if len(v) != 24 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&revisionMask != v3 {
		return v
	}
	out := append([]byte(nil), v[:20]...)
	binary.LittleEndian.PutUint32(out, magic&^uint32(revisionMask)|v2)
	return out
}

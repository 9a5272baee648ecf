package snapshot

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// capability is the xattr of file capabilities.
const capability = "security.capability"

// setAttrs gives the entry NAME of a directory (itself where NAME is ".") owner,
// xattrs, mode and time, in the order in which none undoes or forbids another:
// chown clears setuid bits and capabilities, and a mode may forbid xattrs. It
// returns the xattrs that this host refuses.
func setAttrs(dirfd int, name string, n *tree.Node, owners bool) (refused []tree.Xattr, err error) {
	if owners {
		if err := unix.Fchownat(dirfd, name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, ownerError(n, err)
		}
	}
	for _, x := range n.Xattrs {
		err := unix.Lsetxattr(procPath(dirfd, name), x.Name, []byte(x.Value), 0)
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EINVAL):
			refused = append(refused, x)
		default:
			return nil, fmt.Errorf("set xattr %s: %w", x.Name, err)
		}
	}
	if n.Kind != tree.Symlink {
		// Without AT_SYMLINK_NOFOLLOW, which older kernels lack: it is no symlink.
		if err := unix.Fchmodat(dirfd, name, n.Mode, 0); err != nil {
			return nil, fmt.Errorf("set mode: %w", err)
		}
	}
	return refused, setTime(dirfd, name, n.Mtime)
}

func setTime(dirfd int, name string, t tree.Time) error {
	ts := unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	if err := unix.UtimesNanoAt(dirfd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

func ownerError(n *tree.Node, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("set owner %d:%d: %w: these ids do not exist here; the caller needs ranges in /etc/subuid and /etc/subgid, and newuidmap (package uidmap)", n.UID, n.GID, err)
	}
	return fmt.Errorf("set owner %d:%d: %w", n.UID, n.GID, err)
}

// procPath is a path to NAME of an open directory for calls that have no *at
// form.
func procPath(dirfd int, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)
}

// readXattrs returns what a layer keeps of an entry's xattrs, and the names of
// those that were the command's but that no layer holds (LAWS 24). Labels of the
// host's security modules are nobody's.
func readXattrs(dirfd int, name string) (kept []tree.Xattr, stripped []string, err error) {
	file := procPath(dirfd, name)
	list, err := readGrowing(func(b []byte) (int, error) { return unix.Llistxattr(file, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list xattrs: %w", err)
	}
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		switch {
		case key == "", strings.HasPrefix(key, "security.") && key != capability:
			continue
		case strings.HasPrefix(key, "system.") && !posixACL(key), strings.HasPrefix(key, "user.overlay."), strings.HasPrefix(key, "trusted.overlay."):
			stripped = append(stripped, key)
			continue
		}
		value, err := readGrowing(func(b []byte) (int, error) { return unix.Lgetxattr(file, key, b) })
		if err != nil {
			return nil, nil, fmt.Errorf("read xattr %s: %w", key, err)
		}
		if key == capability {
			value = capabilityV2(value)
		}
		kept = append(kept, tree.Xattr{Name: key, Value: string(value)})
	}
	return tree.SortXattrs(kept), stripped, nil
}

// posixACL tells which of the kernel's own attributes a layer keeps: their ids are
// those of whoever reads them.
func posixACL(key string) bool {
	return key == "system.posix_acl_access" || key == "system.posix_acl_default"
}

// capabilityV2 takes the id of a user namespace's root out of file capabilities:
// in a tree they are version 2 (LAWS 26).
func capabilityV2(v []byte) []byte {
	const versionByte, v3, v2, sizeV2 = 3, 3, 2, 20
	if len(v) != sizeV2+4 || v[versionByte] != v3 {
		return v
	}
	v[versionByte] = v2
	return v[:sizeV2]
}

// readGrowing calls an xattr function with buffers that fit.
func readGrowing(call func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := call(buf)
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) {
			return nil, err
		}
		if n, err = call(nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+64)
	}
}

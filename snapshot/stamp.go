package snapshot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// identity tells one inode from another that got its number later.
type identity struct {
	ino   uint64
	btime tree.Time
}

// stamp is all that stat tells of an entry. Two equal ones of one path mean that
// nothing happened to it (LAWS 22).
type stamp struct {
	identity
	ctime, mtime tree.Time
	size         uint64
	mode         uint16
	uid, gid     uint32
	nlink        uint32
	major, minor uint32
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// statAt reads the stamp of the entry NAME of a directory, of the directory
// itself where NAME is "".
func statAt(dirfd int, name string) (stamp, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := ignoringEINTR(func() error { return unix.Statx(dirfd, name, flags, statMask, &st) }); err != nil {
		return stamp{}, fmt.Errorf("stat: %w", err)
	}
	return stamp{
		identity: identity{ino: st.Ino, btime: timeOf(st.Btime)},
		ctime:    timeOf(st.Ctime), mtime: timeOf(st.Mtime),
		size: st.Size, mode: st.Mode, uid: st.Uid, gid: st.Gid, nlink: st.Nlink,
		major: st.Rdev_major, minor: st.Rdev_minor,
	}, nil
}

func timeOf(t unix.StatxTimestamp) tree.Time { return tree.Time{Sec: t.Sec, Nsec: int32(t.Nsec)} }

// kind is the kind of entry, tree.Invalid for a socket.
func (s *stamp) kind() tree.Kind { return tree.KindOf(uint32(s.mode)) }

// whiteout reports whether overlayfs takes the entry for a removal.
func (s *stamp) whiteout() bool { return s.kind() == tree.CharDevice && s.major == 0 && s.minor == 0 }

func ignoringEINTR(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openDirAt opens the directory NAME of a directory, never through a symlink.
func openDirAt(dirfd int, name string) (fd int, err error) {
	err = ignoringEINTR(func() error {
		fd, err = unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// openAt opens the file NAME of a directory, never through a symlink.
func openAt(dirfd int, name string, flags int) (fd int, err error) {
	err = ignoringEINTR(func() error {
		fd, err = unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	return fd, err
}

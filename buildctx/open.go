package buildctx

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openBeneath opens path P of the tree under ROOT without following any symlink; ELOOP or ENOTDIR says that there is one.
func openBeneath(root *os.File, p string, flags int) (*os.File, error) {
	if p == "" {
		p = "."
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(root.Fd()), p, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), p), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // an old kernel, or a filter that does not know the call
			return openSteps(root, p, flags)
		}
		return nil, err
	}
}

// openSteps is openBeneath without openat2: one component after the other.
func openSteps(root *os.File, p string, flags int) (*os.File, error) {
	dir := root
	for {
		name, rest, more := strings.Cut(p, "/")
		mode := flags
		if more {
			mode = unix.O_PATH | unix.O_DIRECTORY
		}
		var fd int
		var err error
		for {
			fd, err = unix.Openat(int(dir.Fd()), name, mode|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if dir != root {
			_ = dir.Close() // only a handle to go on from
		}
		if err != nil {
			return nil, err
		}
		dir, p = os.NewFile(uintptr(fd), name), rest
		if !more {
			return dir, nil
		}
	}
}

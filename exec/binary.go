package exec

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// exeFD is where the descriptor of the binary lies: above every descriptor that a child is given, since those are put in place before the execve.
const exeFD = maxFiles + 64

// protectedBinary opens this binary by a way that gives nobody write access to it. A command can make the kernel run the binary of its own parent
// ("#!/proc/self/exe") and then reach it as /proc/PID/exe (CVE-2019-5736): as root, or the owner, it could write to the file on the host once it has ended. So the
// children run from a read-only mount of it, or, where it has no name any more, from a sealed copy in memory.
func protectedBinary() (*os.File, error) {
	f, err := mountedBinary()
	if err != nil {
		var cerr error
		if f, cerr = copiedBinary(); cerr != nil {
			return nil, errors.Join(err, cerr)
		}
	}
	defer func() { _ = f.Close() }() // it lives on as the duplicate
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, exeFD)
	if err != nil {
		return nil, fmt.Errorf("protect binary: %w", err)
	}
	return os.NewFile(uintptr(fd), "binary"), nil
}

// mountedBinary binds the binary on itself, read-only, in this mount namespace.
func mountedBinary() (*os.File, error) {
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("find binary: %w", err)
	}
	if err := sameFile(name); err != nil {
		return nil, err
	}
	if err := unix.Mount(name, name, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind binary: %w", err)
	}
	if err := remount(name, unix.MS_RDONLY); err != nil {
		return nil, err
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open binary: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// sameFile refuses a name that another binary has taken.
func sameFile(name string) error {
	running, err := os.Stat("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("look at binary: %w", err)
	}
	named, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("look at binary: %w", err)
	}
	if !os.SameFile(running, named) {
		return fmt.Errorf("find binary: %s is not the one that runs", name)
	}
	return nil
}

// copiedBinary copies the binary to sealed memory.
func copiedBinary() (*os.File, error) {
	fd, err := unix.MemfdCreate("fbuild", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create binary in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "fbuild")
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open binary: %w", err), f.Close())
	}
	defer func() { _ = from.Close() }() // only read
	_, err = io.Copy(f, from)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy binary: %w", err), f.Close())
	}
	return f, nil
}

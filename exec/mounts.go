package exec

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// enterRoot makes the command's root this process' root, with everything mounted in it that docker has there.
func enterRoot(j job) error {
	// The mounts of the sandbox are private already; this costs nothing and keeps the rule in one place.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return &setupError{fmt.Errorf("make mounts private: %w", err)}
	}
	r, err := bindRoot(j.Root)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only a handle
	for _, step := range []func() error{
		r.mountProc,
		func() error { return r.mountDev(j.TTYGroup, j.ShmSize) },
		func() error { return r.mountSys(j.NoNet) },
		r.mask,
		func() error { return r.mountAll(j.Mounts) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return r.pivot()
}

// root is the command's root before it is entered. Targets are resolved beneath it without following any symlink: the root's contents are not to be trusted.
type root struct{ fd int }

// bindRoot makes DIR a mount of its own, as pivot_root demands, on which device nodes cannot be opened (LAWS 19: nodev always, nosuid never).
func bindRoot(dir string) (*root, error) {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind root %s: %w", dir, err)
	}
	if err := remount(dir, unix.MS_NODEV); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", dir, err)
	}
	return &root{fd}, nil
}

// Close gives the descriptor back.
func (r *root) Close() error { return unix.Close(r.fd) }

// at opens TARGET beneath the root and calls DO with a path for it.
func (r *root) at(target string, do func(p string) error) error {
	fd, err := unix.Openat2(r.fd, strings.TrimPrefix(target, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("find mount point %s: %w", target, err)
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	return do(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// mount mounts a file system of TYPE.
func (r *root) mount(fstype, target string, flags uintptr, options string) error {
	return r.at(target, func(p string) error {
		if err := unix.Mount(fstype, p, fstype, flags, options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
		}
		return nil
	})
}

// bind shows SOURCE at TARGET, with what is mounted below it.
func (r *root) bind(source, target string) error {
	return r.at(target, func(p string) error {
		if err := unix.Mount(source, p, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s on %s: %w", source, target, err)
		}
		return nil
	})
}

// restrict adds flags to the mount at TARGET and, if RECURSIVE, to those below.
func (r *root) restrict(target string, attr uint64, recursive bool) error {
	return r.at(target, func(p string) error {
		flags := uint(0)
		if recursive {
			flags = unix.AT_RECURSIVE
		}
		err := unix.MountSetattr(unix.AT_FDCWD, p, flags, &unix.MountAttr{Attr_set: attr})
		if errors.Is(err, unix.ENOSYS) {
			err = setattrOld(p, attr, recursive)
		}
		if err != nil {
			return fmt.Errorf("restrict mount %s: %w", target, err)
		}
		return nil
	})
}

// setattrOld does what mount_setattr does on kernels before 5.12.
func setattrOld(p string, attr uint64, recursive bool) error {
	at, err := os.Readlink(p)
	if err != nil {
		return err
	}
	var flags uintptr
	for _, f := range []struct {
		attr uint64
		flag uintptr
	}{{unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY}, {unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID}, {unix.MOUNT_ATTR_NODEV, unix.MS_NODEV}, {unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC}} {
		if attr&f.attr != 0 {
			flags |= f.flag
		}
	}
	if !recursive {
		return remount(p, flags)
	}
	mounts, err := mountsBelow(at)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := remount(m, flags); err != nil {
			return err
		}
	}
	return nil
}

// mountsBelow lists the mount points at DIR and below.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		at := unescape.Replace(fields[4])
		if at == dir || strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/") {
			found = append(found, at)
		}
	}
	return found, nil
}

// remount adds flags to those that the mount has: flags of a mount from outside are locked and must be repeated.
func remount(p string, add uintptr) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p, &st); err != nil {
		return fmt.Errorf("look at mount %s: %w", p, err)
	}
	flags := add
	for _, f := range []struct {
		has  int64
		flag uintptr
	}{
		{unix.ST_RDONLY, unix.MS_RDONLY},
		{unix.ST_NOSUID, unix.MS_NOSUID},
		{unix.ST_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOATIME, unix.MS_NOATIME},
		{unix.ST_NODIRATIME, unix.MS_NODIRATIME},
		{unix.ST_RELATIME, unix.MS_RELATIME},
	} {
		if int64(st.Flags)&f.has != 0 { //nolint:unconvert // int64 on some architectures only
			flags |= f.flag
		}
	}
	if err := unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("change flags of mount %s: %w", p, err)
	}
	return nil
}

// pivot enters the root and lets go of the old one, with every mount of the sandbox: a FUSE mount must not be kept alive from here.
func (r *root) pivot() error {
	if err := unix.Fchdir(r.fd); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// The old root ends up on top of the new one, and the working directory is in it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return &setupError{fmt.Errorf("pivot root: %w", err)}
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	return nil
}

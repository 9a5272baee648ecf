package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stage is where files of memory are made before they are bound to their targets: below our own /dev, which nobody has seen yet.
const stage = "/dev/.fbuild"

// mountAll makes the mounts of the spec, in their order: what lies below another mount comes after it.
func (r *root) mountAll(mounts []Mount) error {
	staged, err := r.stageFiles(mounts)
	if err != nil {
		return err
	}
	for i, m := range mounts {
		if err := r.mountOne(m, mounts[:i], staged[i]); err != nil {
			return err
		}
	}
	if len(staged) == 0 {
		return nil
	}
	// Only the files that are bound remain.
	err = r.at(stage, func(p string) error { return unix.Unmount(p, unix.MNT_DETACH) })
	if err == nil {
		err = r.at("/dev", func(dev string) error { return unix.Rmdir(filepath.Join(dev, filepath.Base(stage))) })
	}
	if err != nil {
		return fmt.Errorf("clear stage of files: %w", err)
	}
	return nil
}

func (r *root) mountOne(m Mount, before []Mount, staged string) error {
	dir, err := isDir(m)
	if err != nil {
		return err
	}
	if below := covers(before, m.Target); below != "" {
		if err := r.makeMountPoint(below, m.Target, dir); err != nil {
			return fmt.Errorf("make mount point %s: %w", m.Target, err)
		}
	}
	attr := uint64(unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	switch m.Type {
	case "tmpfs":
		err = r.mount("tmpfs", m.Target, unix.MS_NOSUID|unix.MS_NODEV, m.Options)
	case "file":
		attr |= unix.MOUNT_ATTR_NOSUID
		err = r.at(staged, func(source string) error { return r.bind(source, m.Target) })
	default:
		err = r.bind(filepath.Clean(m.Source), m.Target)
	}
	if err != nil {
		return err
	}
	return r.restrict(m.Target, attr, true)
}

// isDir tells whether a mount needs a directory to stand on.
func isDir(m Mount) (bool, error) {
	if m.Type != "bind" {
		return m.Type == "tmpfs", nil
	}
	st, err := os.Stat(m.Source)
	if err != nil {
		return false, fmt.Errorf("look at source of mount %s: %w", m.Target, err)
	}
	return st.IsDir(), nil
}

// covers returns the innermost place that TARGET lies below and where mount points may be made: /dev, which is ours, or an earlier mount; "" is none.
func covers(before []Mount, target string) string {
	best := ""
	if strings.HasPrefix(target, "/dev/") {
		best = "/dev"
	}
	for _, m := range before {
		if strings.HasPrefix(target, m.Target+"/") && len(m.Target) > len(best) {
			best = m.Target
		}
	}
	return best
}

// makeMountPoint makes what is missing of TARGET below the mount BELOW, following no symlink.
func (r *root) makeMountPoint(below, target string, dir bool) error {
	names := strings.Split(strings.TrimPrefix(target, below+"/"), "/")
	return r.at(below, func(p string) error {
		at, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for _, name := range names[:len(names)-1] {
			next, err := openOrMake(at, name)
			_ = unix.Close(at) // only a handle
			if err != nil {
				return err
			}
			at = next
		}
		defer func() { _ = unix.Close(at) }() // only a handle
		return makeLast(at, names[len(names)-1], dir)
	})
}

func openOrMake(at int, name string) (int, error) {
	const how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, how, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkdirat(at, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, fmt.Errorf("%q: %w", name, err)
		}
		fd, err = unix.Openat(at, name, how, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("%q: %w", name, err)
	}
	return fd, nil
}

func makeLast(at int, name string, dir bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil:
		if is := st.Mode&unix.S_IFMT == unix.S_IFDIR; is != dir || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return errors.New("another kind of file is there")
		}
		return nil
	case !errors.Is(err, unix.ENOENT):
		return err
	case dir:
		return unix.Mkdirat(at, name, 0o755)
	}
	fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// stageFiles writes the "file" mounts into memory and returns their paths in the root, by the number of the mount.
func (r *root) stageFiles(mounts []Mount) (map[int]string, error) {
	staged := map[int]string{}
	for i, m := range mounts {
		if m.Type != "file" {
			continue
		}
		if len(staged) == 0 {
			if err := r.mountStage(); err != nil {
				return nil, fmt.Errorf("make stage of files: %w", err)
			}
		}
		name := strconv.Itoa(i)
		if err := r.at(stage, func(dir string) error { return writeStaged(filepath.Join(dir, name), m) }); err != nil {
			return nil, fmt.Errorf("make file for %s: %w", m.Target, err)
		}
		staged[i] = filepath.Join(stage, name)
	}
	return staged, nil
}

// mountStage mounts a ramfs, whose pages are never swapped out, else a tmpfs.
func (r *root) mountStage() error {
	err := r.at("/dev", func(dev string) error { return unix.Mkdir(filepath.Join(dev, filepath.Base(stage)), 0o700) })
	if err != nil {
		return err
	}
	if r.mount("ramfs", stage, safe, "mode=700") == nil {
		return nil
	}
	return r.mount("tmpfs", stage, safe, "mode=700")
}

func writeStaged(name string, m Mount) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(m.Data)
	// The mode after the owner: chown takes the setuid bits away.
	return errors.Join(err, f.Chown(int(m.UID), int(m.GID)), unix.Fchmod(int(f.Fd()), m.Perm), f.Close())
}

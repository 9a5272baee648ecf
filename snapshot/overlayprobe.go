package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// OverlayProbe is the child that tries whether a directory can hold what the overlay
// recorder needs: descriptor 3 names it, and what is missing is said on stderr.
const OverlayProbe = "overlay-probe"

func overlayProbeMain() int {
	dir, err := io.ReadAll(os.NewFile(3, "directory"))
	if err == nil {
		err = TryOverlay(string(dir))
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TryOverlay mounts an overlayfs in a directory below dir, uses it, and removes it
// (LAWS 31). It must run where the recorder would.
func TryOverlay(dir string) (err error) {
	tmp, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, RemoveAll(tmp)) }()
	below := func(elem ...string) string { return filepath.Join(append([]string{tmp}, elem...)...) }
	for _, d := range []string{"layer/dir/sub", upperName, workName, "root"} {
		if err := os.MkdirAll(below(d), 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := tryFiles(tmp); err != nil {
		return elsewhere(err, dir)
	}
	if err := linkLowers(below(linksName), []string{below("layer")}); err != nil {
		return err
	}
	root := below("root")
	if err := mountOverlay(tmp, 1, root); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return elsewhere(err, dir)
		}
		return err
	}
	err = useOverlay(root, below(upperName))
	return errors.Join(err, unix.Unmount(root, unix.MNT_DETACH))
}

// elsewhere says what helps where the file system of dir does not do.
func elsewhere(err error, dir string) error {
	return fmt.Errorf("%w: the file system of %s cannot be the upper directory of an overlayfs, as one that is an overlay itself (a container's), or one without user xattrs: choose another one with --root", err, dir)
}

// tryFiles tries what a lower directory needs: whiteouts, times to the nanosecond, and
// xattrs.
func tryFiles(tmp string) error {
	fd, err := openDirAt(unix.AT_FDCWD, filepath.Join(tmp, "layer"))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	if err := unix.Mknodat(fd, "whiteout", unix.S_IFCHR|0o600, 0); err != nil {
		return fmt.Errorf("make whiteout (Linux 5.8 lets everybody do it): %w", err)
	}
	for _, name := range []string{"gone", "stays"} {
		if err := os.WriteFile(filepath.Join(tmp, "layer", name), []byte(name), 0o600); err != nil {
			return err
		}
	}
	want := tree.Time{Sec: 1e9, Nsec: 123456789}
	if err := setTime(fd, "stays", want); err != nil {
		return err
	}
	if st, err := statAt(fd, "stays"); err != nil || st.mtime != want {
		return errors.Join(fmt.Errorf("times: got %v for %v: the file system rounds them", st.mtime, want), err)
	}
	if err := unix.Lsetxattr(filepath.Join(tmp, "layer", "stays"), "user.fbuild", []byte("x"), 0); err != nil {
		return fmt.Errorf("set xattr: %w", err)
	}
	return nil
}

// useOverlay removes, replaces and changes what lies below, and looks for the marks.
func useOverlay(root, upper string) error {
	err := errors.Join(
		os.Remove(filepath.Join(root, "gone")),
		os.RemoveAll(filepath.Join(root, "dir")),
		os.Mkdir(filepath.Join(root, "dir"), 0o700),
		unix.Chmod(filepath.Join(root, "stays"), 0o644))
	if err != nil {
		return fmt.Errorf("use overlayfs: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(root, "whiteout")); !errors.Is(err, os.ErrNotExist) {
		return errors.New("use overlayfs: a whiteout of ours can be seen")
	}
	st, err := statAt(unix.AT_FDCWD, filepath.Join(upper, "gone"))
	if err != nil || !st.whiteout() {
		return errors.Join(errors.New("use overlayfs: it left no whiteout"), err)
	}
	fd, err := openDirAt(unix.AT_FDCWD, filepath.Join(upper, "dir"))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	if !opaque(fd) {
		return errors.New("use overlayfs: it left no mark on a directory that was made again")
	}
	value, err := readGrowing(func(b []byte) (int, error) { return unix.Lgetxattr(filepath.Join(upper, "stays"), "user.fbuild", b) })
	if err != nil || !bytes.Equal(value, []byte("x")) {
		return errors.Join(fmt.Errorf("use overlayfs: an xattr became %q", value), err)
	}
	return nil
}

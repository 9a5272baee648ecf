package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// openParent opens the directory of p below root, name by name, and returns it
// with p's last name.
func openParent(root int, p string) (fd int, name string, err error) {
	dir, name := tree.Split(p)
	fd, err = openDirAt(root, ".")
	for dir != "" && err == nil {
		var next string
		next, dir, _ = strings.Cut(dir, "/")
		up := fd
		fd, err = openDirAt(up, next)
		_ = unix.Close(up) // read only: nothing can be lost
	}
	if err != nil {
		return -1, "", fmt.Errorf("open directory of %q: %w", p, err)
	}
	return fd, name, nil
}

// readNames lists a directory.
func readNames(fd int) ([]string, error) {
	h, err := openDirAt(fd, ".")
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	f := os.NewFile(uintptr(h), ".")
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	return names, nil
}

// RemoveAll removes dir and all that is below it, directories without permission
// too. Where the owners are mapped ids it must be called inside the mapping.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// An ordinary user without capabilities: his own directories may be closed.
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, werr error) error {
		if e != nil && e.IsDir() && werr == nil {
			return os.Chmod(p, 0o700) //nolint:gosec // a directory
		}
		return nil // RemoveAll has the last word
	})
	return os.RemoveAll(dir)
}

// removeAt removes an entry of an open directory with all that is below it.
func removeAt(fd int, name string) error {
	err := unix.Unlinkat(fd, name, 0)
	if err == unix.EISDIR || err == unix.EPERM {
		return RemoveAll(procPath(fd, name))
	}
	return err
}

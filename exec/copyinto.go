package exec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// copyInto copies a file or a directory to NAME of TO, which does not exist: contents, modes, owners, times and symlinks, none of which is followed.
func copyInto(source string, to *os.Root, name string) error {
	var dirs []string // their times come last
	infos := map[string]fs.FileInfo{}
	err := filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		at := filepath.Join(name, rel)
		if fi.IsDir() {
			dirs, infos[at] = append(dirs, at), fi
			return to.Mkdir(at, 0o700)
		}
		if err := copyEntry(p, fi, to, at); err != nil {
			return fmt.Errorf("copy %s: %w", p, err)
		}
		return copyAttrs(fi, to, at)
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = copyAttrs(infos[dirs[i]], to, dirs[i])
	}
	return err
}

// copyEntry copies what is no directory, without its attributes.
func copyEntry(source string, fi fs.FileInfo, to *os.Root, at string) error {
	switch fi.Mode().Type() {
	case 0:
	case fs.ModeSymlink:
		target, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return to.Symlink(target, at)
	default:
		return errors.New("is neither a file, a directory nor a symlink: such a thing cannot be shown without a mount")
	}
	from, err := os.OpenFile(source, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	f, err := to.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

func copyAttrs(fi fs.FileInfo, to *os.Root, at string) error {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		if err := to.Lchown(at, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if err := to.Chmod(at, fi.Mode()); err != nil {
		return err
	}
	return to.Chtimes(at, fi.ModTime(), fi.ModTime())
}

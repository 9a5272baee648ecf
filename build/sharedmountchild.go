package build

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const packChild = "pack-cache"

// mountRoot is what the directory is called in the tar of a cache mount: the root of a
// tar has no attributes.
const mountRoot = "root"

// packMain is the child that writes a cache mount as a tar: descriptor 3 says which,
// descriptor 4 takes it. It runs where the ids of the files exist.
func packMain() int {
	var dir string
	err := json.NewDecoder(os.NewFile(3, "directory")).Decode(&dir)
	if err == nil {
		out := os.NewFile(4, "tar")
		err = errors.Join(packDir(dir, out), out.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// packDir writes everything below dir, in the order of names and with nothing of this
// machine: the same files give the same tar. Sockets and devices are left out.
func packDir(dir string, w io.Writer) error {
	tw := tar.NewWriter(w)
	links := map[[2]uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return packEntry(tw, p, filepath.Join(mountRoot, rel), links)
	})
	if err != nil {
		return fmt.Errorf("pack cache mount: %w", err)
	}
	return tw.Close()
}

func packEntry(tw *tar.Writer, p, rel string, links map[[2]uint64]string) error {
	info, err := os.Lstat(p)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no attributes", rel)
	}
	h := &tar.Header{
		Name: rel, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Format: tar.FormatPAX,
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, rel+"/"
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(p); err != nil {
			return err
		}
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	default:
		return nil
	}
	if id := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 && h.Typeflag != tar.TypeDir { //nolint:unconvert // Dev is of another type elsewhere
		if first, ok := links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			links[id] = rel
		}
	}
	if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return errors.Join(err, f.Close())
}

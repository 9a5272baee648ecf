package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// KindUsage is what one kind of things takes on the disk.
type KindUsage struct {
	Kind  string // blobs, packs, layers, records, index, contexts, trees, mounts, tmp or other
	Bytes int64
	Files int // directories not counted
}

// Usage is what the store takes on the disk, in blocks that are really
// allocated, directories and half-made things included: as du has it.
type Usage struct {
	Kinds []KindUsage // every kind, in a fixed order
	Total int64
}

// Usage adds up the store. Files that vanish while it looks are left out.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	byKind := map[string]int{}
	for i, k := range []string{"blobs", "packs", "layers", "records", "index", "contexts", "trees", "mounts", "tmp", "other"} {
		u.Kinds = append(u.Kinds, KindUsage{Kind: k})
		byKind[k] = i
	}
	type inode struct{ dev, ino uint64 }
	linked := map[inode]bool{}
	var rootDev uint64
	err := filepath.WalkDir(s.dir, func(p string, _ fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrPermission) {
			return fs.SkipDir // counted when it was listed; what is below is not ours to see
		}
		var st unix.Stat_t
		if lerr := unix.Lstat(p, &st); lerr != nil {
			return skipGone(lerr)
		}
		if err != nil {
			return skipGone(err)
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if p == s.dir {
			rootDev = st.Dev
		} else if st.Dev != rootDev {
			return fs.SkipDir
		}
		if !isDir && st.Nlink > 1 {
			id := inode{st.Dev, st.Ino}
			if linked[id] {
				return nil
			}
			linked[id] = true
		}
		k := &u.Kinds[byKind[s.kindOf(p)]]
		k.Bytes += st.Blocks * 512
		u.Total += st.Blocks * 512
		if !isDir {
			k.Files++
		}
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("measure store: %w", err)
	}
	return u, nil
}

func skipGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// kindOf says to which kind a path below the root belongs.
func (s *Store) kindOf(p string) string {
	rel, err := filepath.Rel(s.dir, p)
	if err != nil {
		return "other"
	}
	top, rest, _ := strings.Cut(rel, "/")
	switch top {
	case "records":
		if kind, _, _ := strings.Cut(rest, "/"); kind == kindLayer {
			return "layers"
		}
		return "records"
	case "blobs", "packs", "index", "contexts", "trees", "mounts", "tmp":
		return top
	}
	return "other"
}

package recordertest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// looker compares what stands below root with a tree.
type looker struct {
	root  string
	packs *pack.Set
	want  tree.Tree
	inos  map[*tree.Node]uint64
}

// look compares everything that a program can see below root with the tree of a
// layer file, whose contents lie in packDir. Names that the tree lacks may be
// stubs: they must be empty.
func look(root, layer, packDir string) error {
	data, err := os.ReadFile(layer)
	if err != nil {
		return err
	}
	cs, err := tree.Decode(data)
	if err != nil {
		return err
	}
	t, err := tree.Empty().Apply(cs)
	if err != nil {
		return err
	}
	l := looker{root: root, packs: pack.NewSet(packDir), want: t, inos: map[*tree.Node]uint64{}}
	err = t.Walk(func(p string, n *tree.Node) error {
		if err := l.entry(p, n); err != nil {
			return fmt.Errorf("entry %q: %w", p, err)
		}
		return nil
	})
	return errors.Join(err, l.surplus(), l.packs.Close())
}

func (l *looker) entry(p string, n *tree.Node) error {
	file := filepath.Join(l.root, p)
	var st unix.Stat_t
	err := unix.Lstat(file, &st)
	if errors.Is(err, fs.ErrNotExist) && (n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice) {
		return nil // walk cannot make them in a user namespace
	}
	if err != nil {
		return err
	}
	seen := tree.Node{
		Kind: n.Kind, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Target: n.Target, Size: n.Size,
		Mtime: tree.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
	}
	if n.Kind == tree.File || n.Kind == tree.Symlink {
		seen.Size = st.Size
	}
	kinds := map[tree.Kind]uint32{
		tree.Dir: unix.S_IFDIR, tree.File: unix.S_IFREG, tree.Symlink: unix.S_IFLNK,
		tree.Fifo: unix.S_IFIFO, tree.CharDevice: unix.S_IFCHR, tree.BlockDevice: unix.S_IFBLK,
	}
	if kinds[n.Kind] != st.Mode&unix.S_IFMT {
		return fmt.Errorf("mode: got %o, want kind %s", st.Mode, n.Kind)
	}
	if n.Kind == tree.Symlink {
		if seen.Target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	if seen.Xattrs, err = xattrs(file); err != nil {
		return err
	}
	got, want := tree.Format(tree.Changes{{Path: "x", Node: &seen}}), tree.Format(tree.Changes{{Path: "x", Node: n}})
	if got != want {
		return fmt.Errorf("got %s want %s", got, want)
	}
	if n.Kind == tree.Dir {
		return nil
	}
	if int(st.Nlink) != n.Nlink() {
		return fmt.Errorf("link count: got %d, want %d", st.Nlink, n.Nlink())
	}
	if ino, ok := l.inos[n]; ok && ino != st.Ino {
		return fmt.Errorf("inode: got %d, want that of the other names, %d", st.Ino, ino)
	}
	l.inos[n] = st.Ino
	if n.Kind == tree.File {
		return l.contents(file, n)
	}
	return nil
}

func (l *looker) contents(file string, n *tree.Node) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	want := make([]byte, n.Size)
	if _, err := l.packs.ReadAt(n, want, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	got, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("contents: got %s, want %s", short(string(got)), short(string(want)))
	}
	return nil
}

// surplus looks for names that the tree does not have.
func (l *looker) surplus() error {
	return filepath.WalkDir(l.root, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(l.root, file)
		if err != nil {
			return err
		}
		if rel == "." || l.want.Lookup(rel) != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err != nil || info.Size() > 0 {
			return fmt.Errorf("entry %q: is not in the tree: %w", rel, err)
		}
		return nil
	})
}

func xattrs(file string) ([]tree.Xattr, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(file, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list xattrs: %w", err)
	}
	var out []tree.Xattr
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" && name != accessACL && name != defaultACL {
			continue
		}
		value := make([]byte, 4096)
		k, err := unix.Lgetxattr(file, name, value)
		if err != nil {
			return nil, fmt.Errorf("read xattr %s: %w", name, err)
		}
		out = append(out, tree.Xattr{Name: name, Value: string(value[:k])})
	}
	slices.SortFunc(out, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

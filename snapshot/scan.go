package snapshot

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// scanner walks a step's directory and edits the parent tree into what it finds.
type scanner struct {
	*step
	edit    *tree.Editor
	origins map[identity]string // of each inode that was made, one path
	inodes  map[uint64]*inode   // with more than one name
	order   []*inode            // the same in the order of the walk
	spool   spool
	notes   []string
}

// inode is a file with several names.
type inode struct {
	names []string
	node  *tree.Node // set if it changed
}

func (s *step) scanner() *scanner {
	sc := &scanner{step: s, edit: s.parent.Edit(), origins: map[identity]string{}, inodes: map[uint64]*inode{}}
	sc.spool.dir = s.spec.PackDir
	for p, st := range s.disk.stamps {
		if q, ok := sc.origins[st.identity]; !ok || tree.Compare(p, q) < 0 {
			sc.origins[st.identity] = p
		}
	}
	return sc
}

// whole walks everything below the root and ends the edit.
func (sc *scanner) whole(ctx context.Context) (tree.Tree, error) {
	return sc.run(sc.root, func(fd int, st *stamp) error { return sc.entries(ctx, fd, "", st, sc.parent.Root()) })
}

// run opens the directory of the tree's root, has it walked, and ends the edit.
func (sc *scanner) run(root string, walk func(fd int, st *stamp) error) (tree.Tree, error) {
	fd, err := openDirAt(unix.AT_FDCWD, root)
	if err != nil {
		return tree.Tree{}, fmt.Errorf("open root: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	st, err := statAt(fd, "")
	if err != nil {
		return tree.Tree{}, err
	}
	if err := sc.dirAttrs(fd, "", &st); err != nil {
		return tree.Tree{}, err
	}
	if err := walk(fd, &st); err != nil {
		return tree.Tree{}, err
	}
	for _, in := range sc.order {
		if in.node == nil {
			continue
		}
		for i, p := range in.names {
			if i == 0 {
				err = sc.edit.Put(p, *in.node)
			} else {
				err = sc.edit.Link(p, in.names[0])
			}
			if err != nil {
				return tree.Tree{}, err
			}
		}
	}
	return sc.edit.Tree(), nil
}

// entries compares the directory open at fd, p in the tree, with what the parent
// has there, nil for nothing.
func (sc *scanner) entries(ctx context.Context, fd int, p string, st *stamp, old *tree.Node) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("directory %q: %w", p, err)
	}
	slices.Sort(names)
	if old != nil && old.Kind == tree.Dir && (sc.over == nil || opaque(fd)) {
		// Nobody can have moved what was not there, unless the directory is another.
		same := sc.disk.stamps[p].identity == st.identity
		for _, name := range old.Names() {
			child := tree.Join(p, name)
			if _, ok := slices.BinarySearch(names, name); ok || same && sc.disk.absent[child] {
				continue
			}
			if err := sc.edit.Remove(child); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		child := tree.Join(p, name)
		if err := sc.entry(ctx, fd, name, child, childOf(old, name)); err != nil {
			return err
		}
	}
	return nil
}

func childOf(n *tree.Node, name string) *tree.Node {
	if n == nil || n.Kind != tree.Dir {
		return nil
	}
	return n.Child(name)
}

func (sc *scanner) entry(ctx context.Context, fd int, name, p string, old *tree.Node) error {
	st, err := statAt(fd, name)
	if err != nil {
		return fmt.Errorf("stat %q: %w", p, err)
	}
	if sc.over != nil && st.whiteout() {
		return sc.edit.Remove(p)
	}
	if id, ok := sc.disk.stubs[p]; ok && id == st.identity {
		if left, err := sc.onlyStubs(fd, name, p, &st); err != nil || left {
			return err
		}
	}
	if why := unfit(name, &st); why != "" {
		return sc.refuse(p, why, old)
	}
	if st.kind() != tree.Dir {
		return sc.leaf(fd, name, p, &st)
	}
	sub, err := openDirAt(fd, name)
	if err != nil {
		return fmt.Errorf("open directory %q: %w", p, err)
	}
	defer func() { _ = unix.Close(sub) }() // only a handle
	if err := sc.dirAttrs(sub, p, &st); err != nil {
		return err
	}
	return sc.entries(ctx, sub, p, &st, old)
}

// onlyStubs reports whether a stub holds nothing but stubs: it leaves no trace
// then (LAWS 25).
func (sc *scanner) onlyStubs(fd int, name, p string, st *stamp) (bool, error) {
	if st.kind() != tree.Dir {
		return true, nil
	}
	sub, err := openDirAt(fd, name)
	if err != nil {
		return false, fmt.Errorf("open directory %q: %w", p, err)
	}
	defer func() { _ = unix.Close(sub) }() // only a handle
	names, err := readNames(sub)
	if err != nil {
		return false, fmt.Errorf("directory %q: %w", p, err)
	}
	for _, name := range names {
		child := tree.Join(p, name)
		id, ok := sc.disk.stubs[child]
		if !ok {
			return false, nil
		}
		cst, err := statAt(sub, name)
		if err != nil {
			return false, fmt.Errorf("stat %q: %w", child, err)
		}
		if cst.identity != id {
			return false, nil
		}
		if left, err := sc.onlyStubs(sub, name, child, &cst); err != nil || !left {
			return false, err
		}
	}
	return true, nil
}

// unfit says why no layer can hold an entry, "" if one can.
func unfit(name string, st *stamp) string {
	switch {
	case strings.HasPrefix(name, ".wh."):
		return "whiteout"
	case st.kind() == tree.Invalid:
		return "socket"
	case st.whiteout():
		return "character device 0/0"
	}
	return ""
}

// refuse leaves an entry out with a word, or fails where the name itself would
// remove something else (LAWS 24).
func (sc *scanner) refuse(p, why string, old *tree.Node) error {
	if why == "whiteout" {
		return fmt.Errorf("the command made %q: no image can hold a name that starts with \".wh.\"", p)
	}
	sc.notes = append(sc.notes, fmt.Sprintf("%s %q is not kept: images hold none", why, p))
	if old == nil {
		return nil
	}
	return sc.edit.Remove(p)
}

// dirAttrs takes over the attributes of a directory that changed or is new.
func (sc *scanner) dirAttrs(fd int, p string, st *stamp) error {
	if sc.disk.stamps[p] == *st {
		return nil
	}
	n, err := sc.node(fd, ".", p, st)
	if err != nil {
		return fmt.Errorf("directory %q: %w", p, err)
	}
	return sc.edit.Put(p, *n)
}

// leaf takes over an entry that is no directory.
func (sc *scanner) leaf(fd int, name, p string, st *stamp) error {
	changed := sc.disk.stamps[p] != *st
	if st.nlink == 1 {
		if !changed {
			return nil
		}
		n, err := sc.node(fd, name, p, st)
		if err != nil {
			return fmt.Errorf("entry %q: %w", p, err)
		}
		return sc.edit.Put(p, *n)
	}
	in := sc.inodes[st.ino]
	if in == nil {
		in = &inode{}
		sc.inodes[st.ino] = in
		sc.order = append(sc.order, in)
	}
	in.names = append(in.names, p)
	if changed && in.node == nil {
		n, err := sc.node(fd, name, p, st)
		if err != nil {
			return fmt.Errorf("entry %q: %w", p, err)
		}
		in.node = n
	}
	return nil
}

// origin is the parent's node that this inode was made from, if it was.
func (sc *scanner) origin(st *stamp) (*tree.Node, stamp, []tree.Xattr) {
	p, ok := sc.origins[st.identity]
	if !ok {
		return nil, stamp{}, nil
	}
	n := sc.parent.Lookup(p)
	if n == nil || n.Kind != st.kind() {
		return nil, stamp{}, nil
	}
	return n, sc.disk.stamps[p], sc.disk.hidden[p]
}

// node reads an entry that is new or changed.
func (sc *scanner) node(fd int, name, p string, st *stamp) (*tree.Node, error) {
	n := &tree.Node{Kind: st.kind(), Mode: uint32(st.mode) & 0o7777, UID: st.uid, GID: st.gid, Mtime: st.mtime}
	from, was, hidden := sc.origin(st)
	prior := sc.parent.Lookup(p)
	if sc.over != nil && from == nil {
		hidden = unseen(fd, name, n.Kind, prior)
	}
	switch {
	case from == nil:
	case was.mtime == st.mtime:
		n.Mtime = from.Mtime // the file system may not hold it exactly
	case n.Kind == tree.Fifo && sc.disk.last.Before(st.mtime):
		// Bytes went through it, which other recorders do not see, nor does
		// docker. A touch looks the same.
		n.Mtime = from.Mtime
	}
	if prior == nil || prior.Mtime != n.Mtime {
		n.Mtime = n.Mtime.Truncate() // LAWS 13
	}
	xattrs, stripped, err := readXattrs(fd, name)
	if err != nil {
		return nil, err
	}
	for _, key := range stripped {
		if sc.over != nil && overlayOwn(key) {
			continue
		}
		sc.notes = append(sc.notes, fmt.Sprintf("xattr %s of %q is not kept: images hold none", key, p))
	}
	n.Xattrs = tree.SortXattrs(append(xattrs, hidden...))
	switch n.Kind {
	case tree.Symlink:
		target, err := readLink(fd, name)
		if err != nil {
			return nil, err
		}
		n.Target, n.Size = target, int64(len(target))
		if from == nil && sc.over != nil && prior != nil && prior.Target == target {
			from = prior
		}
		if from != nil {
			n.Mode = from.Mode // Linux shows 0777 whatever a tar said
		}
	case tree.CharDevice, tree.BlockDevice:
		n.Major, n.Minor = st.major, st.minor
	case tree.File:
		if err := sc.content(fd, name, n, int64(st.size), prior, from); err != nil {
			return nil, err
		}
	default: // no more than every entry has
	}
	return n, nil
}

func readLink(fd int, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", fmt.Errorf("read link: %w", err)
	}
	return string(buf[:n]), nil
}

// content finds the bytes of a file in the parent or stores them.
func (sc *scanner) content(fd int, name string, n *tree.Node, size int64, candidates ...*tree.Node) error {
	n.Size = size
	if size == 0 {
		return nil
	}
	h, err := openAt(fd, name, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(h), name)
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	segs, err := segments(f, size)
	if err != nil {
		return err
	}
	if prior := candidates[0]; sc.over != nil && prior != nil && slices.ContainsFunc(prior.Extents, func(x tree.Extent) bool { return x.Pack == "" }) {
		// Overlayfs copies what follows some bytes with them, holes or not (LAWS 16).
		if segs, err = holes(f, segs); err != nil {
			return err
		}
	}
	for i, c := range candidates {
		if c == nil || c.Kind != tree.File || c.Size != size || slices.Contains(candidates[:i], c) {
			continue
		}
		same, err := sameBytes(f, slices.Clone(segs), nodeReader{sc.packs, c}, nodeSegments(c))
		if err != nil {
			return err
		}
		if same {
			n.Extents, n.Digest = c.Extents, c.Digest
			return nil
		}
	}
	n.Extents, err = sc.spool.add(f, segs)
	return err
}

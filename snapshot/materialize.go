package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// defaultWorkers is how many directories are filled at once.
const defaultWorkers = 4

// MaterializeOptions say how Materialize writes.
type MaterializeOptions struct {
	// NoOwners leaves everything to the caller's ids, and the target directory's
	// own attributes as they are: for `-o type=local`.
	NoOwners bool
	// Overwrite lets the target hold something already: directories are kept,
	// anything else that stands in the way is replaced, a symlink too.
	Overwrite bool
	// Workers bounds the directories that are filled at once; 0 is a sane number.
	Workers int
	// Skipped is told what this host could not make (device nodes, xattrs), one
	// call at a time; nil is allowed.
	Skipped func(path, what string)
}

// Materialize writes t as files below dir, which it makes if need be. A tree
// whose owners do not exist here is an error unless o.NoOwners is set.
func Materialize(ctx context.Context, t tree.Tree, packs *pack.Set, dir string, o MaterializeOptions) error {
	_, err := materialize(ctx, t, packs, dir, nil, o)
	return err
}

// disk is a tree as it stands in a directory.
type disk struct {
	stamps map[string]stamp        // every entry that was made, by its path
	hidden map[string][]tree.Xattr // xattrs that the host refused
	absent map[string]bool         // device nodes that the host refused
	stubs  map[string]identity
	last   tree.Time // the last ctime
}

// maker writes one tree.
type maker struct {
	packs *pack.Set
	o     MaterializeOptions
	group *errgroup.Group

	mu    sync.Mutex
	links []string // names of hard link groups behind the first
	d     disk
}

func materialize(ctx context.Context, t tree.Tree, packs *pack.Set, dir string, stubs []stubEntry, o MaterializeOptions) (*disk, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the root of an image: whoever a RUN runs as passes
		return nil, fmt.Errorf("make directory: %w", err)
	}
	fd, err := openDirAt(unix.AT_FDCWD, filepath.Clean(dir)+"/.")
	if err != nil {
		return nil, fmt.Errorf("open directory %q: %w", dir, err)
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	if o.Workers <= 0 {
		o.Workers = defaultWorkers
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(o.Workers)
	m := &maker{packs: packs, o: o, group: group}
	m.d = disk{stamps: map[string]stamp{}, hidden: map[string][]tree.Xattr{}, absent: map[string]bool{}, stubs: map[string]identity{}}
	err = m.entries(gctx, fd, "", t.Root())
	if werr := group.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return nil, err
	}
	if err := m.linkAll(fd, t); err != nil {
		return nil, err
	}
	if err := m.makeStubs(fd, stubs); err != nil {
		return nil, err
	}
	if err := m.finish(ctx, fd, "", t.Root()); err != nil {
		return nil, err
	}
	return &m.d, nil
}

// entries makes everything below the directory n, which stands open at fd; the
// attributes of directories come last, in finish. ctx is the group's: it ends with
// the first error.
func (m *maker) entries(ctx context.Context, fd int, p string, n *tree.Node) error {
	for _, name := range n.Names() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		child, c := tree.Join(p, name), n.Child(name)
		if c.Kind != tree.Dir {
			if links := c.Links(); len(links) > 0 && links[0] != child {
				m.mu.Lock()
				m.links = append(m.links, child)
				m.mu.Unlock()
				continue
			}
			if err := m.leaf(fd, name, child, c); err != nil {
				return fmt.Errorf("create %q: %w", child, err)
			}
			continue
		}
		sub, err := m.mkdir(fd, name)
		if err != nil {
			return fmt.Errorf("create directory %q: %w", child, err)
		}
		inside := func() error {
			defer func() { _ = unix.Close(sub) }() // only a handle
			return m.entries(ctx, sub, child, c)
		}
		if len(c.Names()) > 0 && m.group.TryGo(inside) {
			continue
		}
		if err := inside(); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) mkdir(fd int, name string) (int, error) {
	err := unix.Mkdirat(fd, name, 0o700)
	if errors.Is(err, unix.EEXIST) && m.o.Overwrite {
		if st, serr := statAt(fd, name); serr == nil && st.kind() == tree.Dir {
			return openDirAt(fd, name)
		}
		if err = unix.Unlinkat(fd, name, 0); err == nil {
			err = unix.Mkdirat(fd, name, 0o700)
		}
	}
	if err != nil {
		return -1, err
	}
	return openDirAt(fd, name)
}

// leaf makes an entry that is no directory, with its attributes.
func (m *maker) leaf(fd int, name, p string, n *tree.Node) error {
	err := m.create(fd, name, n)
	if errors.Is(err, unix.EEXIST) && m.o.Overwrite {
		if err = removeAt(fd, name); err == nil {
			err = m.create(fd, name, n)
		}
	}
	if errors.Is(err, unix.EPERM) && (n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, l := range append([]string{p}, n.Links()...) {
			m.d.absent[l] = true
		}
		m.skipped(p, "device node")
		return nil
	}
	if err != nil {
		return err
	}
	return m.attrs(fd, name, p, n)
}

func (m *maker) attrs(fd int, name, p string, n *tree.Node) error {
	refused, err := setAttrs(fd, name, n, !m.o.NoOwners)
	if err != nil || refused == nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.d.hidden[p] = refused
	for _, x := range refused {
		m.skipped(p, "xattr "+x.Name)
	}
	return nil
}

// skipped is called with m.mu held.
func (m *maker) skipped(p, what string) {
	if m.o.Skipped != nil {
		m.o.Skipped(p, what)
	}
}

func (m *maker) create(fd int, name string, n *tree.Node) error {
	switch n.Kind {
	case tree.File:
		return m.file(fd, name, n)
	case tree.Symlink:
		return unix.Symlinkat(n.Target, fd, name)
	case tree.Fifo:
		return unix.Mknodat(fd, name, unix.S_IFIFO|0o600, 0)
	case tree.CharDevice:
		return unix.Mknodat(fd, name, unix.S_IFCHR|0o600, int(unix.Mkdev(n.Major, n.Minor)))
	case tree.BlockDevice:
		return unix.Mknodat(fd, name, unix.S_IFBLK|0o600, int(unix.Mkdev(n.Major, n.Minor)))
	default:
		return fmt.Errorf("unknown kind of entry %d", n.Kind)
	}
}

func (m *maker) file(fd int, name string, n *tree.Node) error {
	h, err := openAt(fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(h), name)
	err = fill(f, m.packs, n)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// linkAll makes the names of hard link groups that are not the first one.
func (m *maker) linkAll(root int, t tree.Tree) error {
	for _, p := range m.links {
		first := t.Lookup(p).Links()[0]
		if m.d.absent[first] {
			continue
		}
		if err := m.link(root, first, p); err != nil {
			return fmt.Errorf("link %q to %q: %w", p, first, err)
		}
	}
	return nil
}

func (m *maker) link(root int, from, to string) error {
	fromDir, fromName, err := openParent(root, from)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fromDir) }() // only a handle
	toDir, toName, err := openParent(root, to)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(toDir) }() // only a handle
	err = unix.Linkat(fromDir, fromName, toDir, toName, 0)
	if errors.Is(err, unix.EEXIST) && m.o.Overwrite {
		if err = removeAt(toDir, toName); err == nil {
			err = unix.Linkat(fromDir, fromName, toDir, toName, 0)
		}
	}
	return err
}

// finish gives directories their attributes, children first, and stamps
// everything.
func (m *maker) finish(ctx context.Context, fd int, p string, n *tree.Node) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	for _, name := range n.Names() {
		child, c := tree.Join(p, name), n.Child(name)
		if m.d.absent[child] {
			continue
		}
		if c.Kind != tree.Dir {
			if err := m.stamp(fd, name, child); err != nil {
				return err
			}
			continue
		}
		sub, err := openDirAt(fd, name)
		if err != nil {
			return fmt.Errorf("open directory %q: %w", child, err)
		}
		err = m.finish(ctx, sub, child, c)
		if cerr := unix.Close(sub); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	if p == "" && m.o.NoOwners {
		return nil
	}
	if err := m.attrs(fd, ".", p, n); err != nil {
		return fmt.Errorf("directory %q: %w", p, err)
	}
	return m.stamp(fd, "", p)
}

func (m *maker) stamp(fd int, name, p string) error {
	st, err := statAt(fd, name)
	if err != nil {
		return fmt.Errorf("stamp %q: %w", p, err)
	}
	m.d.stamps[p] = st
	if m.d.last.Before(st.ctime) {
		m.d.last = st.ctime
	}
	return nil
}

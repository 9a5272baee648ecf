package snapshot

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// stubEntry is an entry that is shown only while the command runs.
type stubEntry struct {
	path string
	dir  bool
}

// plan returns what must be made for stubs that t lacks, parents first. A stub
// under a symlink stands where it leads inside the root.
func plan(t tree.Tree, stubs []recorder.Stub) ([]stubEntry, error) {
	made := map[string]bool{} // path: is a directory
	for _, s := range stubs {
		p, n, err := t.Resolve(tree.Clean(s.Path))
		if err != nil {
			return nil, fmt.Errorf("mount point %q: %w", s.Path, err)
		}
		if n != nil {
			if (n.Kind == tree.Dir) != s.Dir {
				return nil, fmt.Errorf("mount point %q: the image has another kind of file there", s.Path)
			}
			continue
		}
		if dir, ok := made[p]; ok && dir != s.Dir {
			return nil, fmt.Errorf("mount point %q: is wanted as a file and as a directory", s.Path)
		}
		made[p] = s.Dir
		for dir, _ := tree.Split(p); dir != ""; dir, _ = tree.Split(dir) {
			if n := t.Lookup(dir); n != nil {
				if n.Kind != tree.Dir {
					return nil, fmt.Errorf("mount point %q: %q is not a directory", s.Path, dir)
				}
				break
			}
			if isDir, ok := made[dir]; ok && !isDir {
				return nil, fmt.Errorf("mount point %q: %q is not a directory", s.Path, dir)
			}
			made[dir] = true
		}
	}
	out := make([]stubEntry, 0, len(made))
	for p, dir := range made {
		out = append(out, stubEntry{p, dir})
	}
	slices.SortFunc(out, func(a, b stubEntry) int { return tree.Compare(a.path, b.path) })
	return out, nil
}

func (m *maker) makeStubs(root int, stubs []stubEntry) error {
	for _, s := range stubs {
		if err := m.makeStub(root, s); err != nil {
			return fmt.Errorf("create mount point %q: %w", s.path, err)
		}
	}
	return nil
}

func (m *maker) makeStub(root int, s stubEntry) error {
	fd, name, err := openParent(root, s.path)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	// Modes by chmod: the umask is the caller's.
	mode := uint32(0o644)
	if s.dir {
		mode = 0o755
		err = unix.Mkdirat(fd, name, mode)
	} else {
		err = unix.Mknodat(fd, name, unix.S_IFREG|mode, 0)
	}
	if err == nil {
		err = unix.Fchmodat(fd, name, mode, 0)
	}
	if err != nil {
		return err
	}
	st, err := statAt(fd, name)
	if err != nil {
		return err
	}
	m.d.stubs[s.path] = st.identity
	if m.d.last.Before(st.ctime) {
		m.d.last = st.ctime
	}
	return nil
}

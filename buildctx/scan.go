package buildctx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// workers is how many directories or files are read at once.
const workers = 4

// scan is one call of Tree.
type scan struct {
	c     *Context
	root  *directory
	whole []*directory            // taken with all that is below
	skip  func(below string) bool // of the source that is being looked for

	mu     sync.Mutex // guards all below, and placed of every directory
	editor *tree.Editor
	cond   *sync.Cond
	todo   []*directory // a stack: depth first keeps it short
	busy   int
	failed bool
}

// found is an entry of a directory that was read.
type found struct {
	path string
	node tree.Node
	dir  *directory // of a directory
	keep bool       // not ignored
}

// scanAll reads the remembered directories with all that is below them.
func (s *scan) scanAll(ctx context.Context) error {
	slices.SortFunc(s.whole, func(a, b *directory) int { return tree.Compare(a.path, b.path) })
	for _, d := range s.whole {
		if n := len(s.todo); n > 0 && s.todo[n-1].skip == nil && below(d.path, s.todo[n-1].path) {
			continue
		}
		s.todo = append(s.todo, d)
	}
	s.cond = sync.NewCond(&s.mu)
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			err := s.work(ctx)
			s.mu.Lock()
			s.failed = s.failed || err != nil
			s.cond.Broadcast()
			s.mu.Unlock()
			return err
		})
	}
	return g.Wait()
}

func below(p, dir string) bool { return p == dir || dir == "" || strings.HasPrefix(p, dir+"/") }

// work reads directories until none is left and nobody can find more.
func (s *scan) work(ctx context.Context) error {
	for {
		s.mu.Lock()
		for len(s.todo) == 0 && s.busy > 0 && !s.failed {
			s.cond.Wait()
		}
		if len(s.todo) == 0 || s.failed {
			s.mu.Unlock()
			return nil
		}
		dir := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		s.busy++
		s.mu.Unlock()

		entries, err := s.readDir(ctx, dir)
		if err == nil {
			err = s.adopt(dir, entries)
		}
		s.mu.Lock()
		s.busy--
		s.cond.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// readDir reads one directory, without lock.
func (s *scan) readDir(ctx context.Context, dir *directory) ([]found, error) {
	d, err := openBeneath(s.c.root, dir.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) && s.isLazy(dir) {
			return nil, nil // ignored: only an exception below could have mattered
		}
		return nil, pathError("read directory", dir.path, changed(err))
	}
	defer func() { _ = d.Close() }() // only read
	var out []found
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			f, err := s.readEntry(d, dir, name)
			if errors.Is(err, errSkip) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		}
		if len(names) == 0 {
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, pathError("read directory", dir.path, err)
			}
			return out, nil
		}
	}
}

func (s *scan) readEntry(d *os.File, dir *directory, name string) (found, error) {
	p := tree.Join(dir.path, name)
	if dir.skip != nil && dir.skip(strings.TrimPrefix(p[len(dir.top.path):], "/")) {
		return found{}, errSkip
	}
	v, err := s.c.ignore.check(p, dir.info)
	if err != nil {
		return found{}, err
	}
	if v.ignored && !v.descend {
		return found{}, errSkip
	}
	n, err := s.stat(d, name, p, v.ignored)
	if err != nil {
		return found{}, err
	}
	f := found{path: p, node: n, keep: !v.ignored}
	if n.Kind == tree.Dir {
		f.dir = &directory{path: p, parent: dir, node: n, info: v.info, top: dir.top, skip: dir.skip}
	}
	return f, nil
}

// adopt puts what was read into the tree and the directories on the stack.
func (s *scan) adopt(dir *directory, entries []found) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range entries {
		if f.dir != nil {
			s.todo = append(s.todo, f.dir)
		}
		if !f.keep {
			continue
		}
		err := error(nil)
		if f.dir != nil {
			err = s.placeLocked(f.dir)
		} else {
			err = s.putLocked(dir, f.path, f.node)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) isLazy(dir *directory) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !dir.placed
}

// place puts a directory and those above it into the tree, each once.
func (s *scan) place(dir *directory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.placeLocked(dir)
}

func (s *scan) placeLocked(dir *directory) error {
	if dir.placed {
		return nil
	}
	if err := s.placeLocked(dir.parent); err != nil {
		return err
	}
	dir.placed = true
	if err := s.editor.Put(dir.path, dir.node); err != nil {
		return fmt.Errorf("scan build context: %w", err)
	}
	return nil
}

// put sets an entry of DIR.
func (s *scan) put(dir *directory, p string, n tree.Node) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.putLocked(dir, p, n)
}

func (s *scan) putLocked(dir *directory, p string, n tree.Node) error {
	if err := s.placeLocked(dir); err != nil {
		return err
	}
	if err := s.editor.Put(p, n); err != nil {
		return fmt.Errorf("scan build context: %w", err)
	}
	return nil
}

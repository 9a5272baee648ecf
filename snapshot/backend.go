package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// Options say how the recorder works.
type Options struct {
	// Workers bounds the directories that are filled at once; 0 is a sane number.
	Workers int
}

// Children are the re-exec entries of this package: the recorder process.
func Children() map[string]func() int {
	return map[string]func() int{"recorder-walk": func() int {
		if err := recorder.ServeFD(context.Background(), New(Options{})); err != nil { //nolint:forbidigo // this is the main of a child
			_, _ = fmt.Fprintln(os.Stderr, "fbuild: recorder-walk:", err)
			return 1
		}
		return 0
	}}
}

// New returns the walk recorder. It must run inside the user namespace of the
// commands, or as root.
func New(o Options) recorder.Backend {
	return &backend{o: o, steps: map[string]*step{}, packs: map[string]*pack.Set{}, trees: map[string]tree.Tree{}}
}

type backend struct {
	o Options

	mu     sync.Mutex // never held while a step works
	steps  map[string]*step
	packs  map[string]*pack.Set // by directory
	closed bool

	treesMu sync.Mutex
	trees   map[string]tree.Tree // by the files of their layers
}

type step struct {
	spec   recorder.Spec
	root   string
	parent tree.Tree
	packs  *pack.Set
	disk   *disk
	cancel context.CancelFunc

	mu sync.Mutex // held by the call that works on the step
}

// Mount materialises the tree below the step's work directory.
func (b *backend) Mount(ctx context.Context, spec recorder.Spec) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &step{spec: spec, root: filepath.Join(spec.WorkDir, "root"), cancel: cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := b.enter(s); err != nil {
		return "", fmt.Errorf("mount step %q: %w", spec.ID, err)
	}
	err := b.prepare(ctx, s)
	if err != nil {
		b.leave(spec.ID)
		return "", errors.Join(fmt.Errorf("mount step %q: %w", spec.ID, err), s.clean())
	}
	return s.root, nil
}

func (b *backend) enter(s *step) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("the recorder is closed")
	}
	if b.steps[s.spec.ID] != nil {
		return errors.New("this name is in use")
	}
	if !filepath.IsAbs(s.spec.WorkDir) {
		return fmt.Errorf("work directory %q is not absolute", s.spec.WorkDir)
	}
	s.packs = b.packs[s.spec.PackDir]
	if s.packs == nil {
		s.packs = pack.NewSet(s.spec.PackDir)
		b.packs[s.spec.PackDir] = s.packs
	}
	b.steps[s.spec.ID] = s
	return nil
}

// leave forgets a step and returns it, or nil if another call was first.
func (b *backend) leave(id string) *step {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.steps[id]
	delete(b.steps, id)
	return s
}

func (b *backend) prepare(ctx context.Context, s *step) error {
	var err error
	if s.parent, err = b.tree(s.spec.Layers); err != nil {
		return err
	}
	stubs, err := plan(s.parent, s.spec.Stubs)
	if err != nil {
		return err
	}
	s.disk, err = materialize(ctx, s.parent, s.packs, s.root, stubs, MaterializeOptions{Workers: b.o.Workers})
	if err != nil {
		return err
	}
	return waitClock(ctx, s.spec.WorkDir, s.disk.last)
}

// tree returns what the layers make, and remembers it: the steps of a stage
// differ by their last layer.
func (b *backend) tree(layers []string) (tree.Tree, error) {
	b.treesMu.Lock()
	defer b.treesMu.Unlock()
	known := len(layers)
	for ; known > 0; known-- {
		if _, ok := b.trees[layersKey(layers[:known])]; ok {
			break
		}
	}
	t := tree.Empty()
	if known > 0 {
		t = b.trees[layersKey(layers[:known])]
	}
	for i := known; i < len(layers); i++ {
		var err error
		if t, _, err = recorder.AddLayer(t, layers[i]); err != nil {
			return tree.Tree{}, err
		}
		b.trees[layersKey(layers[:i+1])] = t
	}
	return t, nil
}

// layersKey is one string for a list of file names, which hold no NUL.
func layersKey(layers []string) string {
	var key []byte
	for _, l := range layers {
		key = append(append(key, l...), 0)
	}
	return string(key)
}

// waitClock returns when a change made now gets a ctime later than LAST: the
// coarse clock has passed it, and so has what the file system of dir writes down
// (LAWS 22).
func waitClock(ctx context.Context, dir string, last tree.Time) error {
	for {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
			return fmt.Errorf("read clock: %w", err)
		}
		if last.Before(tree.Time{Sec: ts.Sec, Nsec: int32(ts.Nsec)}) {
			at, err := ctimeNow(dir)
			if err != nil {
				return err
			}
			if last.Before(at) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// ctimeNow asks a new file of dir what time it is.
func ctimeNow(dir string) (tree.Time, error) {
	f, err := os.CreateTemp(dir, "clock-")
	if err != nil {
		return tree.Time{}, fmt.Errorf("ask file system for the time: %w", err)
	}
	st, err := statAt(int(f.Fd()), "")
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return tree.Time{}, fmt.Errorf("ask file system for the time: %w", err)
	}
	return st.ctime, nil
}

// Finish walks the directory and returns what changed.
func (b *backend) Finish(ctx context.Context, id string) (recorder.Result, error) {
	s := b.leave(id)
	if s == nil {
		return recorder.Result{}, fmt.Errorf("finish step %q: it is not mounted", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil {
		return recorder.Result{}, fmt.Errorf("finish step %q: it was not mounted", id)
	}
	res, err := s.finish(ctx)
	if err = errors.Join(err, s.clean()); err != nil {
		return recorder.Result{}, fmt.Errorf("finish step %q: %w", id, err)
	}
	return res, nil
}

// Abort throws the step away. A step that is not there (any more) is no error.
func (b *backend) Abort(id string) error {
	s := b.leave(id)
	if s == nil {
		return nil
	}
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clean()
}

// Close aborts every step that is left.
func (b *backend) Close() error {
	b.mu.Lock()
	b.closed = true
	var ids []string
	for id := range b.steps {
		ids = append(ids, id)
	}
	b.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, b.Abort(id))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, set := range b.packs {
		errs = append(errs, set.Close())
	}
	return errors.Join(errs...)
}

// clean removes the step's directory.
func (s *step) clean() error {
	if err := RemoveAll(s.root); err != nil {
		return fmt.Errorf("remove step's directory: %w", err)
	}
	return nil
}

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// detachTime is how long the kernel may take to let go of a mount (LAWS 12).
const detachTime = 5 * time.Second

// Options change what New returns.
type Options struct {
	// Workers is how many threads answer requests; 0 for what suits the processors.
	Workers int

	core  coreMode                      // of tests: who may serve
	give  giveMode                      // of tests: to whom names are given (walk.go)
	blind []rule                        // of tests: rules that traces are made without
	tells int                           // of tests: instead of tellRoom
	check func(*step, *collector) error // of tests: told of what changes found
}

// workers is one where there is nothing to share: a second reader of the device
// only moves requests from one processor to the other.
func (o Options) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return max(1, min(4, runtime.NumCPU()/2))
}

// New returns the FUSE recorder. The process must be root in the user namespace
// that owns its mount namespace.
func New(opts Options) recorder.Backend {
	return &backend{opts: opts, layers: newLayers(), steps: map[string]*step{}, packs: map[string]*pack.Set{}}
}

type backend struct {
	opts   Options
	layers *layers

	mu    sync.Mutex
	steps map[string]*step
	packs map[string]*pack.Set
	fill  pack.Filler // gets what a lazy pack lacks; nil for none

	leaving sync.WaitGroup // unmounts that the kernel has not ended
}

// packSet returns the leases on the packs of one directory, kept until Close.
func (b *backend) packSet(dir string) *pack.Set {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.packs[dir]
	if s == nil {
		s = pack.NewSet(dir)
		if b.fill != nil {
			s.AddFiller("", b.fill)
		}
		b.packs[dir] = s
	}
	return s
}

// FillWith is recorder.Filler.FillWith.
func (b *backend) FillWith(fill pack.Filler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill = fill
}

// Mount is recorder.Backend.Mount.
func (b *backend) Mount(ctx context.Context, spec recorder.Spec) (string, error) {
	set := b.packSet(spec.PackDir)
	parent, err := b.layers.load(ctx, spec.Layers, set)
	if err != nil {
		return "", err
	}
	w, err := pack.Create(spec.PackDir, "spool")
	if err != nil {
		return "", err
	}
	s := newStep(parent.tree, set, newSpool(w))
	s.fills = b.fill != nil && slices.ContainsFunc(parent.packs, pack.Grows)
	s.root, s.check, s.leaving, s.core = filepath.Join(spec.WorkDir, "root"), b.opts.check, &b.leaving, b.opts.core
	s.give = b.opts.give
	if b.opts.tells > 0 {
		s.tells = b.opts.tells
	}
	if spec.Trace {
		s.traces.start(b.opts.blind)
	}
	if err := s.start(spec, b.opts.workers()); err != nil {
		w.Abort()
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.steps[spec.ID] != nil {
		return "", errors.Join(fmt.Errorf("mount step %q: it is mounted already", spec.ID), s.abort())
	}
	b.steps[spec.ID] = s
	return s.root, nil
}

// remove takes a step out of the backend; nil where there is none.
func (b *backend) remove(id string) *step {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.steps[id]
	delete(b.steps, id)
	return s
}

// Finish is recorder.Backend.Finish.
func (b *backend) Finish(ctx context.Context, id string) (recorder.Result, error) {
	return b.FinishTo(ctx, id, recorder.Sink{})
}

// FinishTo is recorder.Streamer.FinishTo.
func (b *backend) FinishTo(ctx context.Context, id string, to recorder.Sink) (recorder.Result, error) {
	s := b.remove(id)
	if s == nil {
		return recorder.Result{}, fmt.Errorf("finish step %q: it is not mounted", id)
	}
	return s.finish(ctx, to)
}

// Abort is recorder.Backend.Abort.
func (b *backend) Abort(id string) error {
	if s := b.remove(id); s != nil {
		return s.abort()
	}
	return nil // already over
}

// Close is recorder.Backend.Close.
func (b *backend) Close() error {
	b.mu.Lock()
	steps, packs := b.steps, b.packs
	b.steps, b.packs = map[string]*step{}, map[string]*pack.Set{}
	b.mu.Unlock()
	var errs []error
	for _, s := range steps {
		errs = append(errs, s.abort())
	}
	b.leaving.Wait()
	for _, p := range packs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// step is one mount: the inodes over the parent tree, and what was written.
type step struct {
	fuse.RawFileSystem

	root     string // the mount point
	core     coreMode
	guest    *sameCore // nil where none may serve
	check    func(*step, *collector) error
	leaving  *sync.WaitGroup // of the backend
	parent   tree.Tree
	packs    *pack.Set
	spool    *spool
	device   int                  // the descriptor of /dev/fuse
	fills    bool                 // some contents of the parent may not be here yet
	late     atomic.Int32         // READs that wait for such
	patience func() time.Duration // detachTime, asked for each time that it begins
	direct   bool                 // handles of new files bypass the page cache
	served   chan struct{}        // closed when every worker saw ENODEV
	over     chan struct{}        // closed when nobody needs the spool any more
	workers  sync.WaitGroup
	counts   [opcodes]atomic.Uint64 // requests by opcode

	mu       sync.Mutex
	inodes   map[uint64]*inode
	baseDirs map[string]*inode // directories of the parent by their path there
	rootDir  *inode
	dirMoved bool // at least once
	tells    int  // tellRoom
	nextID   uint64
	last     tree.Time
	err      error // the first failure that nobody may overlook
	traces   traces
	walks    map[uint32]*walk // by thread
	give     giveMode
	settling settling

	packIDs   []tree.PackID // spans name packs by their place here; 0 is the spool
	packIndex map[tree.PackID]int32
}

func newStep(parent tree.Tree, packs *pack.Set, sp *spool) *step {
	s := &step{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		parent:        parent, packs: packs, spool: sp, patience: func() time.Duration { return detachTime }, served: make(chan struct{}), over: make(chan struct{}),
		inodes: map[uint64]*inode{}, baseDirs: map[string]*inode{}, nextID: 2, walks: map[uint32]*walk{}, tells: tellRoom,
		packIDs: []tree.PackID{sp.w.ID()}, packIndex: map[tree.PackID]int32{},
	}
	s.rootDir = s.newBase(parent.Root(), "")
	s.rootDir.lookups = 1
	return s
}

// fail records the first failure of the step. Callers do not hold mu.
func (s *step) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// String names the file system in mount tables.
func (s *step) String() string { return "fbuild" }

// Children are the re-exec entries of this package.
func Children() map[string]func() int {
	return map[string]func() int{"recorder-fuse": serve}
}

// serve is the body of the recorder process (LAWS 20).
func serve() int { return serveWith(Options{}) }

func serveWith(opts Options) int {
	// Answers hardly allocate: memory is dearer here than collecting it.
	debug.SetGCPercent(50)
	if err := recorder.ServeFD(context.Background(), New(opts)); err != nil { //nolint:forbidigo // this is the main of a child
		fmt.Fprintln(os.Stderr, "fbuild: error: serve recorder:", err)
		return 1
	}
	return 0
}

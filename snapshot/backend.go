package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// Options say how a recorder works.
type Options struct {
	// Workers bounds the directories that are filled at once; 0 is a sane number.
	Workers int
}

// Children are the re-exec entries of this package: the recorder processes, and the
// probe of a directory for the overlay recorder.
func Children() map[string]func() int {
	serve := func(name string, newBackend func(Options) recorder.Backend) func() int {
		return func() int {
			if err := recorder.ServeFD(context.Background(), newBackend(Options{})); err != nil { //nolint:forbidigo // this is the main of a child
				_, _ = fmt.Fprintf(os.Stderr, "fbuild: %s: %v\n", name, err)
				return 1
			}
			return 0
		}
	}
	return map[string]func() int{
		"recorder-walk":    serve("recorder-walk", New),
		"recorder-overlay": serve("recorder-overlay", NewOverlay),
		OverlayProbe:       overlayProbeMain,
	}
}

// New returns the walk recorder. It must run inside the user namespace of the
// commands, or as root.
func New(o Options) recorder.Backend { return newBackend(o, walker{o}) }

func newBackend(o Options, r rung) recorder.Backend {
	return &backend{o: o, rung: r, steps: map[string]*step{}, packs: map[string]*pack.Set{}, trees: map[string]layered{}}
}

// rung is what the recorders of this package do differently.
type rung interface {
	// prepare makes the step's root of the trees after each of its layers.
	prepare(ctx context.Context, s *step, chain []layered) error
	finish(ctx context.Context, s *step) (recorder.Result, error)
	// clean leaves nothing of the step; it may be called at any time.
	clean(s *step) error
	close() error
}

type backend struct {
	o    Options
	rung rung

	mu     sync.Mutex // never held while a step works
	steps  map[string]*step
	packs  map[string]*pack.Set // by directory
	fill   pack.Filler          // gets what a lazy pack lacks; nil for none
	closed bool

	treesMu sync.Mutex
	trees   map[string]layered // by the files of their layers
}

// layered is the tree after a layer.
type layered struct {
	tree.Tree
	name string // of the layers' contents, equal for equal ones
}

type step struct {
	spec   recorder.Spec
	root   string
	parent tree.Tree
	packs  *pack.Set
	disk   *disk
	over   *overlay // of the overlay recorder
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
		return "", errors.Join(fmt.Errorf("mount step %q: %w", spec.ID, err), b.rung.clean(s))
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
		if b.fill != nil {
			s.packs.AddFiller("", b.fill)
		}
		b.packs[s.spec.PackDir] = s.packs
	}
	b.steps[s.spec.ID] = s
	return nil
}

// FillWith is recorder.Filler.FillWith.
func (b *backend) FillWith(fill pack.Filler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill = fill
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
	chain, err := b.chain(s.spec.Layers)
	if err != nil {
		return err
	}
	s.parent = tree.Empty()
	if len(chain) > 0 {
		s.parent = chain[len(chain)-1].Tree
	}
	return b.rung.prepare(ctx, s, chain)
}

// chain returns the tree after each layer, and remembers it: the steps of a stage
// differ by their last layer.
func (b *backend) chain(layers []string) ([]layered, error) {
	b.treesMu.Lock()
	defer b.treesMu.Unlock()
	out := make([]layered, 0, len(layers))
	below := layered{Tree: tree.Empty()}
	for i, file := range layers {
		key := layersKey(layers[:i+1])
		next, ok := b.trees[key]
		if !ok {
			t, cs, err := recorder.AddLayer(below.Tree, file)
			if err != nil {
				return nil, err
			}
			next = layered{t, layerName(below.name, cs)}
			b.trees[key] = next
		}
		out = append(out, next)
		below = next
	}
	return out, nil
}

// layerName names what the layers make: those below, and the changes of the last one
// but for the digests of contents, which say nothing that its extents do not, and which
// an index gets when its layer is sealed.
func layerName(below string, cs tree.Changes) string {
	plain := make(tree.Changes, len(cs))
	copies := map[*tree.Node]*tree.Node{}
	for i, c := range cs {
		if n := c.Node; n != nil {
			if copies[n] == nil {
				k := n.Attrs()
				k.Digest = ""
				copies[n] = &k
			}
			c.Node = copies[n]
		}
		plain[i] = c
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "tree %s\n", below) // a hash takes everything
	_, _ = h.Write(tree.Encode(plain))
	return hex.EncodeToString(h.Sum(nil))
}

// layersKey is one string for a list of file names, which hold no NUL.
func layersKey(layers []string) string {
	var key []byte
	for _, l := range layers {
		key = append(append(key, l...), 0)
	}
	return string(key)
}

// Finish looks at the directory and returns what changed.
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
	res, err := b.rung.finish(ctx, s)
	if err = errors.Join(err, b.rung.clean(s)); err != nil {
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
	return b.rung.clean(s)
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
	return errors.Join(append(errs, b.rung.close())...)
}

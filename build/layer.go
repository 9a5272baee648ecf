package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// parallelPulls is how many layers of a base are fetched at once.
const parallelPulls = 3

// fsLayer is one layer of a file system: its changes, and its blob once that is
// sealed. A layer of a base image or of a stored result knows its blob from the
// start and its changes when somebody asks; one that this build made the other
// way round.
type fsLayer struct {
	planned bool // nobody made it: see Plan
	// seek is set where the layer has a table of contents that could be read alone.
	seek *layer.Seekable
	src  *oci.Layer // where the blob can be fetched; nil for ours
	// shared is set where src is a shared cache: the layer is a step's. source is that
	// cache, nil for the cache repository; thin says that it only has the layer's name.
	shared, thin bool
	source       *cacheSource

	// done is closed when diffID, desc, err and sealed stand.
	done   chan struct{}
	diffID tree.Digest
	desc   v1.Descriptor
	err    error
	// written is closed when blob stands, some time before done: what is on its way to the
	// disk can be on its way to a registry as well. nil of layers that this build does not make.
	written chan struct{}
	blob    earlyBlob
	// sealed are the changes of a layer of this build as its index in the store
	// has them: every file with the digest of its bytes.
	sealed tree.Changes
	// how is Compression.word of a layer of ours.
	how string

	mu      sync.Mutex // held while the layer is being opened
	pull    *pull      // shows the fetching; may be nil
	loaded  bool
	changes tree.Changes
	on      tree.Tree    // what a step ran on, and what it made of that: on with changes;
	after   tree.Tree    // the zero Tree where nobody knows that yet
	light   tree.Changes // as changes, but contents may be elsewhere; nil until asked for
	lent    bool         // light is, or was, what a shared cache says
	index   string       // file of tree.Encode(changes), "" until one is asked for
}

// knownLayer is a layer whose blob has a name already.
func knownLayer(diffID tree.Digest, desc v1.Descriptor, src *oci.Layer) *fsLayer {
	l := &fsLayer{src: src, done: make(chan struct{}), diffID: diffID, desc: desc}
	close(l.done)
	return l
}

// shows makes p the display of the layer's fetching, unless it has one.
func (l *fsLayer) shows(p *pull) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pull == nil {
		l.pull = p
	}
}

// pull is the step that shows the layers of a base image arriving: it runs from
// the first that has to be fetched to the last that is there.
type pull struct {
	step *progress.Step

	mu    sync.Mutex
	begun bool
	left  int // layers that nobody opened yet
}

// begin says that a layer must be fetched.
func (p *pull) begin() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun {
		p.begun = true
		p.step.Start()
	}
}

// opened says that one more layer can be read.
func (p *pull) opened() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left--; p.left == 0 {
		p.finish()
	}
}

// finish ends the step; again it does nothing.
func (p *pull) finish() {
	if p.begun {
		p.step.Done(nil)
	} else {
		p.step.Cached()
	}
}

// status shows how far a layer is.
func (p *pull) status(id string, current, total int64, done bool) {
	if p != nil {
		p.step.Status(id, current, total, done)
	}
}

// end says that the stage needs nothing more of its base.
func (p *pull) end() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
}

// wait returns when the layer is sealed and durable.
func (l *fsLayer) wait(ctx context.Context) error {
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// openLayers makes the changes of all layers known, fetching several at once.
func (b *builder) openLayers(ctx context.Context, layers []*fsLayer) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelPulls)
	for _, l := range layers {
		g.Go(func() error {
			_, err := l.open(ctx, b)
			return err
		})
	}
	return g.Wait()
}

// open returns the layer's changes, whose contents can then be read from packs.
func (l *fsLayer) open(ctx context.Context, b *builder) (tree.Changes, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded {
		return l.changes, nil
	}
	if b.planning() {
		cs, err := b.plannedIndex(l)
		l.changes, l.loaded = cs, err == nil
		return cs, err
	}
	unlock, err := b.store.Lock(ctx, "layer-"+l.diffID.Hex())
	if err != nil {
		return nil, err
	}
	if cs, ok := b.storedChanges(l.diffID); ok {
		l.changes, l.loaded = cs, true
		unlock()
		l.index, _ = b.store.LayerFile(l.diffID) // a miss is written anew
		l.pull.opened()
		return cs, nil
	}
	if l.openLazy(ctx, b) {
		l.loaded = true
		unlock()
		l.pull.opened()
		return l.changes, nil
	}
	l.pull.begin()
	if err := b.fetching(l, func() error { return l.unpack(ctx, b, unlock) }); err != nil {
		unlock()
		return nil, l.fetchError(ctx, err)
	}
	l.loaded = true
	l.pull.opened()
	return l.changes, nil
}

// known returns the layer's changes for questions, if that needs no fetching.
func (l *fsLayer) known(ctx context.Context, b *builder) (tree.Changes, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.loaded:
		return l.changes, true
	case l.light != nil:
		return l.light, true
	}
	cs, err := b.store.Layer(l.diffID)
	if err != nil && l.seek != nil {
		return nil, false // opening it costs little, and nobody lends what its table says
	}
	if err != nil {
		var ok bool
		if cs, ok = b.lightIndex(ctx, l.diffID); !ok {
			return nil, false
		}
		l.lent = true
	}
	l.light = cs
	return cs, true
}

// shape is known, and else opens the layer.
func (l *fsLayer) shape(ctx context.Context, b *builder) (tree.Changes, error) {
	if cs, ok := l.known(ctx, b); ok {
		return cs, nil
	}
	return l.open(ctx, b)
}

// storedChanges returns a layer index whose packs are all there.
func (b *builder) storedChanges(diffID tree.Digest) (tree.Changes, bool) {
	cs, err := b.store.Layer(diffID)
	if err != nil {
		return nil, false
	}
	for _, id := range packsOf(cs) {
		if err := b.store.Packs().Lease(id); err != nil {
			return nil, false
		}
	}
	return cs, true
}

func packsOf(cs tree.Changes) []tree.PackID {
	var out []tree.PackID
	for i := range cs {
		if cs[i].Node == nil {
			continue
		}
		for _, x := range cs[i].Node.Extents {
			if x.Pack != "" && (len(out) == 0 || out[len(out)-1] != x.Pack) && !slices.Contains(out, x.Pack) {
				out = append(out, x.Pack)
			}
		}
	}
	return out
}

// unpack streams the blob into a pack and an index. A blob that is not in the
// store yet is stored on the way. The lock is released when the index is durable,
// so that of several builds one fetches.
func (l *fsLayer) unpack(ctx context.Context, b *builder, unlock func()) error {
	r, err := l.openBlob(ctx, b, l.pull)
	if err != nil {
		return err
	}
	defer r.abandon()
	pack, err := b.store.CreateTarPack()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	defer pack.Abort()
	cs, info, err := layer.Read(ctx, r, pack.ID(), pack, layer.Limits{})
	switch {
	case err == nil:
		err = r.verify()
	case errors.Is(err, layer.ErrCorrupt) || errors.Is(err, layer.ErrTooLarge):
		err = oci.Verdict(ctx, r, err)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if info.DiffID != l.diffID {
		return fmt.Errorf("%w: its contents are %s, the image's config says %s", oci.ErrDigest, info.DiffID, l.diffID)
	}
	if err := pack.Commit(); err != nil {
		return err
	}
	for _, n := range info.Notes {
		b.warn("layer %s: %s", l.desc.Digest, n)
	}
	l.changes = cs
	blob, stored := r.keep(), b.family.storing(l.desc.Digest)
	b.behind(func(context.Context) error {
		defer unlock()
		err := blob.store()
		stored()
		if err != nil {
			return err
		}
		return b.store.PutTarLayer(l.diffID, cs, pack.ID())
	})
	return nil
}

// ensureBlob makes sure that the layer's blob is in the store.
func (l *fsLayer) ensureBlob(ctx context.Context, b *builder) error {
	if b.hasBlob(ctx, l.desc.Digest) {
		return nil
	}
	show := l.pull
	if l.seek != nil { // its bytes came, or not, as they were read: now all of them are wanted
		step := b.opts.Progress.Step("[internal] fetch layer " + shortID(l.desc.Digest) + " of the base whole, which the image in the store or a file must hold (--push needs it not)")
		show = &pull{step: step, left: 1}
		show.begin()
		defer show.end()
	}
	err := b.fetching(l, func() error {
		r, err := l.openBlob(ctx, b, show)
		if err != nil {
			return err
		}
		defer r.abandon()
		err = r.verify()
		if err == nil {
			err = r.keep().store()
		}
		return errors.Join(err, r.Close())
	})
	if err != nil {
		return l.fetchError(ctx, err)
	}
	return nil
}

// fetching runs fetch, again where a mirror's copy of the layer was of no use.
func (b *builder) fetching(l *fsLayer, fetch func() error) error {
	for {
		err := fetch()
		if !oci.OtherCopy(err) {
			return err
		}
		b.warn("layer %s: %v: it is fetched from elsewhere", l.desc.Digest, err)
	}
}

// indexFile returns a file that holds the layer's changes.
func (l *fsLayer) indexFile(ctx context.Context, b *builder) (string, error) {
	cs, err := l.open(ctx, b)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index == "" {
		l.index, err = b.writeIndex(cs)
	}
	return l.index, err
}

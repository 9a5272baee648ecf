package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// kindStep and kindAlias are the kinds of records that builds keep: a step's
// result under its key, and the content key of a COPY --from under the key of
// its definition.
const (
	kindStep  = "step"
	kindAlias = "alias"
	kindImage = cache.KindImage
	kindRef   = "ref"
)

// stepRecord is what is known of a finished step.
type stepRecord struct {
	Created   time.Time   `json:"created"`          // as the image's history says
	Below     Key         `json:"below"`            // chainID of the layers that the step was made on
	DiffID    tree.Digest `json:"diffID,omitempty"` // "" where the step changed nothing
	Digest    string      `json:"digest,omitempty"`
	Size      int64       `json:"size,omitempty"`
	MediaType string      `json:"mediaType,omitempty"`
	// Compression is Compression.word, Annotations are the descriptor's.
	Compression string            `json:"compression,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Of a RUN: when its command last ended with this, which is later than Created
	// where it gave what was there; how long it took; whether it used the network. A
	// record that a trace led to has those of the run that made it (LAWS 6).
	Ran     time.Time     `json:"ran,omitzero"`
	Took    time.Duration `json:"took,omitempty"`
	Network bool          `json:"network,omitempty"`
	// Traced is nil where the step was done on what is below and gave this.
	Traced *tracedBy `json:"traced,omitempty"`
}

// ran is when the step was last done.
func (r *stepRecord) ran() time.Time {
	if r.Ran.IsZero() {
		return r.Created
	}
	return r.Ran
}

// result is a step's outcome: its layer (nil where nothing changed) and time.
type result struct {
	layer   *fsLayer
	created time.Time
	record  stepRecord // of one that is stored
}

// recorded returns the stored result of a key, if all of it is still there and
// it was made on the very layers that stand below now. A layer is a difference:
// on another parent of the same key (a step below was made anew, --no-cache) it
// could lack a file. Where a layer below is still being sealed, and only then, it
// is waited for.
func (b *builder) recorded(ctx context.Context, key Key, below *fsState) (result, bool) {
	var rec stepRecord
	if !b.getJSON(kindStep, string(key), &rec) {
		return result{}, false
	}
	if !b.trusts(ctx, rec.Traced) {
		return result{}, false
	}
	if chain, err := below.chainID(ctx); err != nil || chain != rec.Below {
		return result{}, false
	}
	if rec.DiffID == "" {
		return result{created: rec.Created, record: rec}, true
	}
	h, err := v1.NewHash(rec.Digest)
	if err != nil || !b.store.HasBlob(tree.Digest(rec.Digest)) {
		return result{}, false
	}
	desc := v1.Descriptor{MediaType: types.MediaType(rec.MediaType), Size: rec.Size, Digest: h, Annotations: rec.Annotations}
	l := knownLayer(rec.DiffID, desc, nil)
	l.how = rec.Compression
	return result{layer: l, created: rec.Created, record: rec}, true
}

func (b *builder) getJSON(kind, key string, v any) bool {
	rec, err := b.store.Record(kind, key)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			b.warn("cache: %v", err)
		}
		return false
	}
	return json.Unmarshal(rec.Value, v) == nil
}

func (b *builder) putJSON(kind, key string, v any, blobs, layers []tree.Digest) error {
	if b.opts.again != nil {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	return b.store.PutRecord(kind, key, cache.Record{Value: data, Blobs: blobs, Layers: layers})
}

// behind runs fn beside the steps. The build ends only when it has ended, and
// fails when it fails; an interrupted build cancels it.
func (b *builder) behind(fn func(ctx context.Context) error) {
	if b.planning() { // what runs behind a build only stores
		return
	}
	b.background.Go(func() {
		if err := fn(b.sealCtx); err != nil {
			b.fail(err)
		}
	})
}

// commit turns the changes of a step into a layer, sealed behind the next step,
// and stores the result under key when the layer and those below are durable.
// unlock ends the step's lock in any case.
func (b *builder) commit(key Key, below *fsState, cs tree.Changes, unlock func()) result {
	return b.commitStep(commitment{key: key, below: below, changes: cs, unlock: unlock})
}

// commitment is a result to be stored. stored, if not nil, is called when it is durable.
type commitment struct {
	key     Key
	below   *fsState
	changes tree.Changes
	on      tree.Tree // what the changes were made on, where after is known
	after   tree.Tree
	unlock  func()
	stored  func(rec stepRecord)
	ran     *ran      // of a RUN
	earlier *traceHit // the result that this is the same as; nil for none
	trace   *pendingTrace
	title   string // of the instruction; "" for none
}

// commitStep is commit.
func (b *builder) commitStep(c commitment) result {
	if b.planning() {
		c.unlock()
		return b.plannedResult(c.key, c.changes)
	}
	rec := stepRecord{Created: time.Now()} // and not the epoch, which is of this build: others reuse the result
	var l *fsLayer
	switch {
	case c.earlier != nil:
		rec, l = c.earlier.Step, c.earlier.res.layer
	case len(c.changes) > 0:
		l = &fsLayer{done: make(chan struct{}), written: make(chan struct{}), changes: c.changes, loaded: true, on: c.on, after: c.after}
	}
	if c.ran != nil {
		rec.Ran, rec.Took, rec.Network = c.ran.ended, c.ran.took, c.ran.network
	}
	if c.earlier != nil {
		rec.Traced = &tracedBy{Times: b.opts.CacheTimes, Done: true}
	}
	res := result{layer: l, created: rec.Created, record: rec}
	b.behind(func(ctx context.Context) error {
		defer c.unlock()
		sealed := l != nil && c.earlier == nil
		if sealed {
			l.err = l.seal(ctx, b)
			close(l.done)
		}
		if c.ran != nil { // even if it changed nothing in the end
			b.frames.dropAhead(c.ran.ahead)
		}
		if sealed {
			if l.err != nil {
				return l.err
			}
			if b.onSealed != nil {
				b.onSealed(ctx, l)
			}
			rec.DiffID, rec.Digest = l.diffID, l.desc.Digest.String()
			rec.Size, rec.MediaType, rec.Compression = l.desc.Size, string(l.desc.MediaType), l.how
			rec.Annotations = l.desc.Annotations
		}
		return b.finished(ctx, c, rec, res)
	})
	return res
}

// finished stores what is known of a step, once its layer is durable.
func (b *builder) finished(ctx context.Context, c commitment, rec stepRecord, res result) error {
	if b.opts.again != nil {
		return nil
	}
	if err := b.remember(ctx, c.key, c.below, rec); err != nil {
		return err
	}
	if c.stored != nil {
		c.stored(rec)
	}
	b.share(c.key, c.below, res)
	made := madeRecord{Key: c.key, Title: c.title, Created: rec.Created}
	if c.trace != nil && c.trace.known(ctx) {
		made.Identity = c.trace.id
		step := rec
		step.Traced = nil // it is so on what the trace is of
		made.Trace = b.keepTrace(ctx, c.trace, c.below, tracedResult{Key: c.key, Step: step})
	}
	if rec.DiffID != "" && c.earlier == nil && c.title != "" {
		b.keepMade(rec.DiffID, made)
	}
	return nil
}

// remember writes the record of one step after every layer under it is durable.
func (b *builder) remember(ctx context.Context, key Key, below *fsState, rec stepRecord) error {
	var err error
	if rec.Below, err = below.chainID(ctx); err != nil {
		return err
	}
	// What the step was made on stays as long as its result: the next step that is
	// done anew needs it.
	var blobs, layers []tree.Digest
	for _, l := range below.layers() {
		blobs, layers = append(blobs, tree.Digest(l.desc.Digest.String())), append(layers, l.diffID)
		if l.seek != nil {
			layers = append(layers, l.name())
		}
	}
	if rec.DiffID != "" {
		blobs, layers = append(blobs, tree.Digest(rec.Digest)), append(layers, rec.DiffID)
	}
	return b.putJSON(kindStep, string(key), rec, blobs, layers)
}

// seal writes the layer's blob and index.
func (l *fsLayer) seal(ctx context.Context, b *builder) error {
	to := stepCompression(b.opts.Outputs)
	var sealed layer.Sealed
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.store.SyncPacks(l.changes) }) // meanwhile: the index has to wait for it
	g.Go(func() error {
		var err error
		sealed, err = b.sealBlob(gctx, l.changes, to.options(), l.wrote(b, to))
		if errors.Is(err, layer.ErrNotSeekable) { // no fault of a step's: its layer need not be in the image
			to = Compression{}
			sealed, err = b.sealBlob(gctx, l.changes, to.options(), l.wrote(b, to))
		}
		l.how = to.word()
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if b.opts.Check {
		if err := b.checkSealed(ctx, sealed, l.changes); err != nil {
			return err
		}
	}
	if err := b.store.PutLayer(sealed.DiffID, sealed.Changes); err != nil {
		return err
	}
	l.diffID, l.sealed = sealed.DiffID, sealed.Changes
	var err error
	l.desc, err = sealedDescriptor(sealed)
	return err
}

// checkSealed reads a sealed layer back: it must mean the changes that it was
// made of (LAWS 13).
func (b *builder) checkSealed(ctx context.Context, sealed layer.Sealed, want tree.Changes) error {
	f, err := b.store.OpenBlob(sealed.Digest)
	if err != nil {
		return err
	}
	got, info, err := layer.Read(ctx, f, "tar-00000000000000000000000000000000", io.Discard, layer.Limits{})
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("check layer %s: %w", sealed.Digest, err)
	}
	if info.DiffID != sealed.DiffID {
		return fmt.Errorf("check layer %s: read back as %s, sealed as %s", sealed.Digest, info.DiffID, sealed.DiffID)
	}
	if g, w := tree.Format(got), tree.Format(want); g != w {
		return fmt.Errorf("check layer %s: it does not mean what it was made of:\n%s\nwant\n%s", sealed.Digest, g, w)
	}
	return nil
}

func sealedDescriptor(s layer.Sealed) (v1.Descriptor, error) {
	h, err := v1.NewHash(string(s.Digest))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("seal layer: %w", err)
	}
	return v1.Descriptor{MediaType: types.MediaType(s.MediaType), Size: s.Size, Digest: h, Annotations: s.Annotations}, nil
}

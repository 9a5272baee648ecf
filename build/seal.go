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
	kindImage = "image"
	kindRef   = "ref"
)

// stepRecord is what is known of a finished step.
type stepRecord struct {
	Created   time.Time   `json:"created"`
	Below     Key         `json:"below"`            // chainID of the layers that the step was made on
	DiffID    tree.Digest `json:"diffID,omitempty"` // "" where the step changed nothing
	Digest    string      `json:"digest,omitempty"`
	Size      int64       `json:"size,omitempty"`
	MediaType string      `json:"mediaType,omitempty"`
}

// result is a step's outcome: its layer (nil where nothing changed) and time.
type result struct {
	layer   *fsLayer
	created time.Time
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
	if chain, err := below.chainID(ctx); err != nil || chain != rec.Below {
		return result{}, false
	}
	if rec.DiffID == "" {
		return result{created: rec.Created}, true
	}
	h, err := v1.NewHash(rec.Digest)
	if err != nil || !b.store.HasBlob(tree.Digest(rec.Digest)) {
		return result{}, false
	}
	desc := v1.Descriptor{MediaType: types.MediaType(rec.MediaType), Size: rec.Size, Digest: h}
	return result{layer: knownLayer(rec.DiffID, desc, nil), created: rec.Created}, true
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
// unlock ends the step's lock in any case; stored, if not nil, is called when the
// result is durable.
func (b *builder) commit(key Key, below *fsState, cs tree.Changes, unlock, stored func()) result {
	if b.planning() {
		unlock()
		return b.plannedResult(key, cs)
	}
	created := time.Now() // and not the epoch, which is of this build: others reuse the result
	l := &fsLayer{done: make(chan struct{}), changes: cs, loaded: true}
	if len(cs) == 0 {
		l = nil
	}
	res := result{layer: l, created: created}
	b.behind(func(ctx context.Context) error {
		defer unlock()
		rec := stepRecord{Created: created}
		if l != nil {
			l.err = l.seal(ctx, b)
			close(l.done)
			if l.err != nil {
				return l.err
			}
			rec.DiffID, rec.Digest = l.diffID, l.desc.Digest.String()
			rec.Size, rec.MediaType = l.desc.Size, string(l.desc.MediaType)
		}
		if err := b.remember(ctx, key, below, rec); err != nil {
			return err
		}
		if stored != nil {
			stored()
		}
		b.share(key, below, res)
		return nil
	})
	return res
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
	}
	if rec.DiffID != "" {
		blobs, layers = append(blobs, tree.Digest(rec.Digest)), append(layers, rec.DiffID)
	}
	return b.putJSON(kindStep, string(key), rec, blobs, layers)
}

// seal writes the layer's blob and index.
func (l *fsLayer) seal(ctx context.Context, b *builder) error {
	sealed, err := b.sealBlob(ctx, l.changes, layer.Options{})
	if err != nil {
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
	return v1.Descriptor{MediaType: types.MediaType(s.MediaType), Size: s.Size, Digest: h}, nil
}

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

// sharedCaches are the caches of one build that other machines have as well.
type sharedCaches struct {
	*sharedFaults
	repo   *cacheRepo // kaniko's; nil for none
	from   []*cacheSource
	to     *cacheExport // collects what --cache-to stores; nil for none
	key    *cacheKey
	mounts bool // a --cache-to takes cache mounts
}

// sharedFaults are what a build found wrong with its caches, whatever the platform.
type sharedFaults struct {
	// whole is set when a layer was needed that no cache has, because it stored the
	// image's only: results without their layers are no results then.
	whole atomic.Bool
	doubt atomic.Bool // a layer or record was gone or false
	lies  lies        // of all buckets
}

// join makes them those of another platform of the same build: what one finds wrong is
// wrong for all, and mended by the one that stores what all made.
func (s *sharedCaches) join(first *sharedCaches) {
	s.sharedFaults, s.to = first.sharedFaults, first.to
	for _, c := range s.from {
		c.place = s.knowing(c.place)
	}
}

// knowing gives a place what the build knows of its kind.
func (s *sharedCaches) knowing(p cachePlace) cachePlace {
	if b, ok := p.(*bucketPlace); ok {
		b.lies = &s.lies
	}
	return p
}

// openShared opens what the options name. Nothing is asked yet.
func openShared(o *Options) (*sharedCaches, error) {
	repo, err := openCacheRepo(o)
	if err != nil {
		return nil, err
	}
	s := &sharedCaches{sharedFaults: &sharedFaults{}, repo: repo}
	if s.key, err = readCacheKey(o.CacheKey); err != nil {
		return nil, err
	}
	for _, spec := range o.CacheFrom {
		c, err := newCacheSource(spec, o, s.key)
		if err != nil {
			return nil, err
		}
		c.place = s.knowing(c.place)
		s.from = append(s.from, c)
	}
	if len(o.CacheTo) > 0 {
		s.to = newCacheExport()
	}
	for _, spec := range o.CacheTo {
		x, err := spec.export()
		if err != nil {
			return nil, err
		}
		s.mounts = s.mounts || x.mounts
	}
	return s, nil
}

// retries is how often a build can start again: each time something is not asked any
// more.
func (s *sharedCaches) retries() int { return len(s.from) + 2 }

// distrust takes what an error tells of out of the next try, and returns words for it.
func (s *sharedCaches) distrust(err *sharedLayerError) string {
	if s.to != nil { // what was collected may be of what lied
		s.to.forget()
	}
	switch {
	case err.thin:
		s.whole.Store(true)
		return fmt.Sprintf("%v: the steps whose layers were not stored (mode=min) are done anew", err)
	case err.source != nil:
		for _, c := range s.from { // also another platform's of the same place
			if c == err.source || c.place.String() == err.source.place.String() {
				c.off.Store(true)
			}
		}
		s.doubt.Store(true)
		return fmt.Sprintf("cache %s: %v: building without it", err.source.place, err)
	}
	s.repo.deaf.Store(true)
	return fmt.Sprintf("cache repository %s: %v: building without it", s.repo.shelf, err)
}

// repoName is a repository that has, or may have, our layers.
func (s *sharedCaches) repoName() string {
	if s == nil {
		return ""
	}
	return s.repo.name()
}

// sharedRecord returns a record that other machines stored. use decides whether it is
// good; the first one that is counts.
func (b *builder) sharedRecord(ctx context.Context, kind, key string, use func(c *cacheSource, e *sharedEntry, value []byte) bool) bool {
	if b.shared == nil || b.opts.NoCache {
		return false
	}
	for _, c := range b.shared.from {
		e, ok := c.entry(ctx, b.opts.Progress, entryName{kind, key})
		if !ok {
			continue
		}
		value, err := c.value(ctx, b, e)
		if err != nil {
			if ctx.Err() == nil {
				b.shared.doubt.Store(true) // what its manifest lists need not be there
				b.warn("cache %s: %v: it is not used", c.place, err)
			}
			continue
		}
		if use(c, e, value) {
			b.keepFound(c, e)
			return true
		}
	}
	return false
}

// sharedStep returns the result that a --cache-from has under key, if it was made on
// the very layers that stand below now. One with its layer is better than one without.
func (b *builder) sharedStep(ctx context.Context, key Key, below *fsState) (res result, ok bool) {
	var thin func() bool
	ok = b.sharedRecord(ctx, kindStep, string(key), func(c *cacheSource, e *sharedEntry, value []byte) bool {
		var rec stepRecord
		if json.Unmarshal(value, &rec) != nil || !b.trusts(ctx, rec.Traced) {
			return false
		}
		if chain, err := below.chainID(ctx); err != nil || chain != rec.Below {
			return false
		}
		found, ok := b.sharedLayer(c, e, &rec)
		if ok {
			b.keepTraces(c, e)
		}
		if ok && found.layer != nil && found.layer.thin && thin == nil {
			thin = func() bool {
				res = found
				b.keepFound(c, e)
				return true
			}
			return false
		}
		res = found
		return ok
	})
	ok = ok || thin != nil && thin()
	if ok {
		b.keepLayers(below, res)
	}
	return res, ok
}

// sharedLayer is the result that a record of a cache tells of.
func (b *builder) sharedLayer(c *cacheSource, e *sharedEntry, rec *stepRecord) (result, bool) {
	if rec.DiffID == "" {
		return result{created: rec.Created, record: *rec}, true
	}
	h, err := v1.NewHash(rec.Digest)
	if _, derr := v1.NewHash(string(rec.DiffID)); err != nil || derr != nil || rec.Size <= 0 || !types.MediaType(rec.MediaType).IsLayer() {
		return result{}, false
	}
	desc := v1.Descriptor{MediaType: types.MediaType(rec.MediaType), Size: rec.Size, Digest: h}
	if e.Layer == nil || e.Layer.Digest != h || e.Layer.Size != rec.Size {
		return result{}, false
	}
	thin := !c.present[h]
	if thin && b.shared.whole.Load() && !b.store.HasBlob(tree.Digest(rec.Digest)) {
		return result{}, false
	}
	src := &oci.Layer{Desc: desc, DiffID: rec.DiffID, Repo: c.place.Repo(), Open: func(ctx context.Context) (io.ReadCloser, error) {
		return c.place.Open(ctx, desc)
	}}
	if thin {
		src.Repo, src.Open = "", func(context.Context) (io.ReadCloser, error) { return nil, errThin }
	}
	l := knownLayer(rec.DiffID, desc, src)
	l.shared, l.source, l.thin = true, c, thin
	return result{layer: l, created: rec.Created, record: *rec}, true
}

// errThin says that a cache has the name of a layer, and not the layer.
var errThin = errors.New("the cache has no layers but the image's")

// alias returns the key that the definition of a COPY --from leads to, from this
// store or a shared cache.
func (b *builder) alias(ctx context.Context, definition Key) (Key, bool) {
	var key Key
	if b.getJSON(kindAlias, string(definition), &key) {
		b.keepRecord(kindAlias, string(definition))
		return key, true
	}
	ok := b.sharedRecord(ctx, kindAlias, string(definition), func(_ *cacheSource, _ *sharedEntry, value []byte) bool {
		return json.Unmarshal(value, &key) == nil && validKey(key)
	})
	if ok {
		return key, true
	}
	return b.repoAlias(ctx, definition)
}

// adopt returns the result that another machine stored under key, if it was made
// on the very layers that stand below now. It is not stored here: this store holds
// what was made or read to its end here (LAWS 11).
func (b *builder) adopt(ctx context.Context, key Key, below *fsState) (result, bool) {
	if res, ok := b.sharedStep(ctx, key, below); ok {
		return res, true
	}
	return b.repoStep(ctx, key, below)
}

// keepStep collects a step of this build for --cache-to.
func (b *builder) keepStep(key Key, below *fsState, res result) {
	b.keepRecord(kindStep, string(key))
	b.keepLayers(below, res)
}

// keepRecord collects a record of the store.
func (b *builder) keepRecord(kind, key string) {
	if b.shared != nil && b.shared.to != nil {
		b.shared.to.keep(entryName{kind, key}, nil, nil)
	}
}

// keepFound collects an entry of another cache. Indexes go with the layers that are
// collected.
func (b *builder) keepFound(c *cacheSource, e *sharedEntry) {
	if b.shared.to != nil && e.Kind != kindIndex {
		b.shared.to.keep(e.name(), c, e)
	}
}

// keepLayers collects the layers that a step stands on, and its own.
func (b *builder) keepLayers(below *fsState, res result) {
	if b.shared != nil && b.shared.to != nil {
		b.shared.to.keepLayers(append(below.layers(), res.layer))
	}
}

// sharedLayerError is a layer of a shared cache that could not be had, or is not what
// its entry says. The build starts again without the cache.
type sharedLayerError struct {
	err    error
	source *cacheSource // nil for the cache repository
	thin   bool         // it was never stored
}

func (e *sharedLayerError) Error() string { return e.err.Error() }
func (e *sharedLayerError) Unwrap() error { return e.err }

// fetchError labels an error of fetching the layer.
func (l *fsLayer) fetchError(ctx context.Context, err error) error {
	err = fmt.Errorf("fetch layer %s: %w", l.desc.Digest, err)
	if l.shared && ctx.Err() == nil {
		return &sharedLayerError{err, l.source, errors.Is(err, errThin)}
	}
	return err
}

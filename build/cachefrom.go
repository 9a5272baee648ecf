package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// cacheSource is one --cache-from. Its list is read when the first step needs it;
// whatever is wrong with it is a warning and a miss (LAWS 10, 34).
type cacheSource struct {
	place    cachePlace
	platform v1.Platform
	key      *cacheKey
	// off is set when something of it proved to be false: nothing more is taken.
	off atomic.Bool

	mu      sync.Mutex // held while the list is read
	loaded  bool
	entries map[entryName]*sharedEntry
	traced  tracedEntries
	present map[v1.Hash]bool // what the manifest lists, and so keeps
	begged  bool             // an unsigned entry was spoken of
}

func newCacheSource(s CacheSpec, o *Options, key *cacheKey) (*cacheSource, error) {
	p, err := s.open(o.Remote, false)
	if err != nil {
		return nil, fmt.Errorf("--cache-from type=%s: %w", s.Type, err)
	}
	return &cacheSource{place: p, platform: o.Platform, key: key}, nil
}

// entry returns what the source has under a name. It is signed as it must be.
func (c *cacheSource) entry(ctx context.Context, show *progress.Display, n entryName) (*sharedEntry, bool) {
	if c.off.Load() {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		if ctx.Err() != nil {
			return nil, false
		}
		c.load(ctx, show)
		c.loaded = ctx.Err() == nil
	}
	e := c.entries[n]
	if e == nil {
		return nil, false
	}
	if !c.key.holds(e) {
		if !c.begged {
			c.begged = true
			c.warn(show, errors.New("entries without a signature of the key of --cache-key are not used"))
		}
		return nil, false
	}
	return e, true
}

func (c *cacheSource) warn(show *progress.Display, err error) {
	step := show.Step("[internal] note")
	step.Start()
	step.Warn(fmt.Sprintf("cache %s: %v", c.place, err))
	step.Done(nil)
}

// load reads the list, as a step of its own.
func (c *cacheSource) load(ctx context.Context, show *progress.Display) {
	step := show.Step("importing cache manifest from " + c.place.String())
	step.Start()
	bad, err := c.read(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		step.Canceled()
		return
	case errors.Is(err, oci.ErrNotFound):
		step.Warn("there is no cache at " + c.place.String() + " yet: nothing is taken from it")
	case err != nil:
		step.Warn(fmt.Sprintf("cache %s: %v: nothing is taken from it", c.place, err))
	case bad > 0:
		step.Warn(fmt.Sprintf("cache %s: %d entries make no sense and are left out", c.place, bad))
	}
	step.Done(nil)
}

// read reads the manifest and the list that it names, or the one inside an image.
func (c *cacheSource) read(ctx context.Context) (bad int, err error) {
	list, err := readShared(ctx, c.place, c.platform)
	if err != nil {
		return 0, err
	}
	c.entries, c.present, c.traced = list.entries, list.present, sortTraced(list.entries)
	return list.bad, nil
}

// sharedList is a cache as its manifest has it.
type sharedList struct {
	raw     []byte
	entries map[entryName]*sharedEntry
	present map[v1.Hash]bool
	blobs   []v1.Descriptor
	bad     int
}

// readShared reads a cache's list. Nothing of it is believed further than that it
// can be read.
func readShared(ctx context.Context, p cachePlace, platform v1.Platform) (*sharedList, error) {
	raw, _, err := p.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	doc, blobs := m.doc()
	if doc == nil && len(m.Manifests) > 0 { // an image for several platforms
		if m, err = imageOf(ctx, p, m, platform); err != nil {
			return nil, err
		}
	}
	l := &sharedList{raw: raw, blobs: blobs}
	var data []byte
	switch {
	case doc != nil:
		data, err = readBlob(ctx, p, *doc, maxSharedDoc)
	case m.Annotations[inlineAnnotation] != "":
		data, err = decodeInline(m.Annotations[inlineAnnotation])
		l.blobs = m.Layers
	default:
		return nil, errors.New("it is no cache of fbuild's, nor an image with one inside")
	}
	if err != nil {
		return nil, err
	}
	if l.entries, l.bad, err = decodeDoc(data); err != nil {
		return nil, err
	}
	l.present = map[v1.Hash]bool{}
	for _, d := range l.blobs {
		l.present[d.Digest] = true
	}
	return l, nil
}

func parseManifest(raw []byte) (*manifestDoc, error) {
	m := &manifestDoc{}
	if err := oci.CheckJSON(raw); err != nil {
		return nil, fmt.Errorf("its manifest: %w", err)
	}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, errors.New("its manifest cannot be read")
	}
	return m, nil
}

// imageOf follows an index of images to the one for a platform.
func imageOf(ctx context.Context, p cachePlace, m *manifestDoc, want v1.Platform) (*manifestDoc, error) {
	i := slices.IndexFunc(m.Manifests, func(d v1.Descriptor) bool {
		return d.MediaType.IsImage() && d.Platform != nil && oci.Normalize(*d.Platform).Equals(oci.Normalize(want))
	})
	if i < 0 {
		return m, nil
	}
	raw, _, err := p.ManifestOf(ctx, m.Manifests[i].Digest)
	if err != nil {
		return nil, err
	}
	return parseManifest(raw)
}

// readBlob reads a whole blob of at most limit bytes.
func readBlob(ctx context.Context, p cachePlace, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, at most %d are read", d.Digest, d.Size, limit)
	}
	r, err := p.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// value returns the record of an entry: what is in the list, or a blob, which the
// store keeps for the next time.
func (c *cacheSource) value(ctx context.Context, b *builder, e *sharedEntry) ([]byte, error) {
	if e.Blob == nil {
		return e.Value, nil
	}
	return c.unpack(ctx, b, e)
}

// unpack returns what the blob of an entry holds.
func (c *cacheSource) unpack(ctx context.Context, b *builder, e *sharedEntry) ([]byte, error) {
	if e.Blob.Size > maxSharedBlob {
		return nil, fmt.Errorf("%s %s has %d bytes, at most %d are read", e.Kind, e.Key, e.Blob.Size, maxSharedBlob)
	}
	r, err := c.openBlob(ctx, b, *e.Blob)
	if err != nil {
		return nil, err
	}
	limit := int64(maxSharedDoc)
	if e.Kind == kindIndex || e.Kind == kindTraces {
		limit = maxSharedValue
	}
	data, err := unpackAtMost(r, limit)
	return data, errors.Join(err, r.Close())
}

// lostError says that a source does not have a blob that its list names.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// lend makes a small blob of the source one that can be stored elsewhere. Opening it
// gives a lostError where the source does not have it.
func (c *cacheSource) lend(b *builder, d v1.Descriptor) *oci.Blob {
	return &oci.Blob{Desc: d, Repo: c.place.Repo(), Open: func(ctx context.Context) (io.ReadCloser, error) {
		r, err := c.openBlob(ctx, b, d)
		if err != nil {
			return nil, &lostError{err}
		}
		return r, nil
	}}
}

// openBlob opens a small blob of the store, where it is brought first.
func (c *cacheSource) openBlob(ctx context.Context, b *builder, d v1.Descriptor) (io.ReadCloser, error) {
	digest := tree.Digest(d.Digest.String())
	if f, err := b.store.OpenBlob(digest); err == nil {
		return f, nil
	}
	r, err := c.place.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	_, err = b.store.PutBlob(r, digest)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return b.store.OpenBlob(digest)
}

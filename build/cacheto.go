package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// cacheExport collects, during a build, the names of what --cache-to stores at its
// end: the records themselves are in the store by then.
type cacheExport struct {
	mu     sync.Mutex
	names  map[entryName]found
	layers map[*fsLayer]bool
	image  map[tree.Digest]bool // the layers of what leaves the build
	mounts map[string]usedMount // by sharedMountKey
}

// found is where an entry came from; zero where that is this store.
type found struct {
	source *cacheSource
	entry  *sharedEntry
	traced *tracedResult // of kindTraces, in this store
}

func newCacheExport() *cacheExport {
	x := &cacheExport{}
	x.forget()
	return x
}

// forget empties the collection, for a build that starts again.
func (x *cacheExport) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.names, x.layers, x.image = map[entryName]found{}, map[*fsLayer]bool{}, map[tree.Digest]bool{}
	x.mounts = map[string]usedMount{}
}

func (x *cacheExport) keep(n entryName, c *cacheSource, e *sharedEntry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.names[n]; !ok || old.entry == nil {
		x.names[n] = found{source: c, entry: e, traced: old.traced}
	}
}

func (x *cacheExport) keepTraced(n entryName, r tracedResult) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.names[n] = found{traced: &r}
}

func (x *cacheExport) keepLayers(list []*fsLayer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range list {
		if l != nil {
			x.layers[l] = true
		}
	}
}

// keepImage collects the layers of an image that leaves the build.
func (b *builder) keepImage(layers []oci.Layer) {
	if b.shared == nil || b.shared.to == nil {
		return
	}
	x := b.shared.to
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range layers {
		x.image[l.DiffID] = true
	}
}

// sharedItem is an entry ready to be stored, with the blobs that it brings.
type sharedItem struct {
	sharedEntry
	blob  *oci.Blob // for Blob
	layer *fsLayer  // for Layer; nil where nobody has it
	image bool      // the layer is one of the image
}

// exportCaches stores what the build used and made in every --cache-to. Like BuildKit
// it fails the build where that fails, unless the cache may be missing.
func (b *builder) exportCaches(ctx context.Context, finals ...*state) error {
	if b.shared == nil || b.shared.to == nil {
		return nil
	}
	items, err := b.sharedItems(ctx, finals...)
	if err != nil {
		return err
	}
	items = append(items, b.mountItems(ctx)...)
	for _, spec := range b.opts.CacheTo {
		if spec.Type == CacheInline { // the image has it
			continue
		}
		o, err := spec.export()
		if err != nil {
			return err
		}
		step := b.opts.Progress.Step("exporting cache to " + spec.Type)
		step.Start()
		err = b.exportCache(ctx, spec, o, items, step)
		if err != nil && o.ignoreError && ctx.Err() == nil {
			step.Warn(fmt.Sprintf("cache %s: nothing is stored: %v", spec.name(), err))
			err = nil
		}
		step.Done(err)
		if err != nil {
			return fmt.Errorf("export cache to %s: %w", spec.name(), err)
		}
	}
	return nil
}

// sharedItems makes entries of everything that was collected.
func (b *builder) sharedItems(ctx context.Context, finals ...*state) ([]sharedItem, error) {
	b.background.Wait() // until every record is in the store
	if err := b.firstError(nil); err != nil {
		return nil, err
	}
	x := b.shared.to
	x.mu.Lock()
	defer x.mu.Unlock()
	byID := map[tree.Digest]*fsLayer{}
	for l := range x.layers {
		if err := l.wait(ctx); err != nil {
			return nil, err
		}
		if old := byID[l.diffID]; old == nil || old.src != nil { // one of ours is here already
			byID[l.diffID] = l
		}
	}
	for _, final := range finals {
		for _, l := range final.fs.layers() {
			x.image[l.diffID] = true
		}
	}
	var items []sharedItem
	for n, from := range x.names {
		it, ok := b.sharedItem(n, from)
		if !ok {
			continue
		}
		if !it.takeLayer(byID, x.image) {
			continue
		}
		items = append(items, it)
	}
	items = append(items, b.madeItems(items, byID, x)...)
	items = append(items, b.indexItems(byID)...)
	slices.SortFunc(items, func(a, c sharedItem) int {
		return strings.Compare(a.Kind+" "+a.Key, c.Kind+" "+c.Key)
	})
	for i := range items {
		b.shared.key.sign(&items[i].sharedEntry)
	}
	return items, nil
}

// takeLayer finds the layer of a result.
func (it *sharedItem) takeLayer(byID map[tree.Digest]*fsLayer, image map[tree.Digest]bool) bool {
	var rec stepRecord
	switch it.Kind {
	case kindStep:
		if json.Unmarshal(it.Value, &rec) != nil {
			return false
		}
	case kindTraces:
		var r tracedResult
		if json.Unmarshal(it.Value, &r) != nil {
			return false
		}
		rec = r.Step
	default:
		return true
	}
	it.layer, it.image, it.Layer = byID[rec.DiffID], image[rec.DiffID], rec.descriptor()
	return true
}

// descriptor is that of a step's layer, nil for none.
func (r *stepRecord) descriptor() *v1.Descriptor {
	h, err := v1.NewHash(r.Digest)
	if r.DiffID == "" || err != nil {
		return nil
	}
	return &v1.Descriptor{MediaType: types.MediaType(r.MediaType), Size: r.Size, Digest: h}
}

// sharedItem makes an entry of a record of the store, or takes one as it was found in
// another cache.
func (b *builder) sharedItem(n entryName, from found) (sharedItem, bool) {
	it := sharedItem{sharedEntry: sharedEntry{Kind: n.kind, Key: n.key}}
	if from.traced != nil {
		return b.tracedItem(n, from.traced)
	}
	rec, err := b.store.Record(n.kind, n.key)
	if err != nil {
		if from.entry == nil {
			return it, false
		}
		it.sharedEntry = *from.entry
		if it.Blob != nil {
			it.blob = from.source.lend(b, *it.Blob)
		}
		return it, true
	}
	value, err := json.Marshal(json.RawMessage(rec.Value)) // as it will be read
	if err == nil && len(value) <= inlineValue {
		it.Value = value
		return it, true
	}
	ok := it.pack(rec.Value, typeSharedRecord)
	return it, ok
}

// pack makes a blob of what the entry holds.
func (it *sharedItem) pack(data []byte, mt types.MediaType) bool {
	packed, err := packValue(data)
	if err != nil || len(packed) > maxSharedBlob || len(data) > maxSharedValue {
		return false // nobody would read it
	}
	blob := oci.MemoryBlob(packed, mt)
	it.Blob, it.blob = &blob.Desc, &blob
	return true
}

// exportCache stores the items in one cache, with what others stored there.
func (b *builder) exportCache(ctx context.Context, spec CacheSpec, o exportOptions, items []sharedItem, step *progress.Step) error {
	p, err := spec.open(b.opts.Remote, true)
	if err != nil {
		return err
	}
	if l, ok := p.(locker); ok {
		unlock, err := l.Lock(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = unlock() }() // it only ends the lock
	}
	if !o.mounts {
		items = slices.DeleteFunc(slices.Clone(items), func(it sharedItem) bool { return it.Kind == kindCache })
	}
	e := &exporting{b: b, place: b.shared.knowing(p), o: o, items: items, step: step, now: time.Now().UTC().Truncate(time.Second), lost: map[v1.Hash]bool{}}
	err = e.run(ctx, false)
	if err != nil && ctx.Err() == nil && oci.Refused(err) {
		// The place lost what its manifest names: without that, and asking for each blob.
		err = e.run(ctx, true)
	}
	return err
}

// exporting is the writing of one cache.
type exporting struct {
	b     *builder
	place cachePlace
	o     exportOptions
	items []sharedItem
	step  *progress.Step
	now   time.Time
	lost  map[v1.Hash]bool // blobs that the caches that were read list and do not have
}

// run writes what is missing, and the manifest at last. A fresh one is not merged.
func (e *exporting) run(ctx context.Context, fresh bool) error {
	old := e.read(ctx, fresh)
	sent, err := e.send(ctx, old)
	if err != nil {
		return err
	}
	if !fresh && len(sent) > 0 { // it took time: others may have written meanwhile
		old = e.read(ctx, false)
	}
	entries, changed := e.merge(old)
	if !changed {
		e.step.Status("cache is as it was", 0, 0, true)
		return nil
	}
	return e.publish(ctx, entries, old)
}

// read returns what is there; a cache that is missing or makes no sense is empty.
func (e *exporting) read(ctx context.Context, fresh bool) *sharedList {
	none := &sharedList{entries: map[entryName]*sharedEntry{}, present: map[v1.Hash]bool{}}
	if fresh {
		return none
	}
	l, err := readShared(ctx, e.place, e.b.opts.Platform)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, oci.ErrNotFound) {
			e.step.Warn(fmt.Sprintf("cache %s: %v: what was there is replaced", e.place, err))
		}
		return none
	}
	return l
}

// layered reports whether the layer of an item is stored.
func (e *exporting) layered(it *sharedItem) bool {
	return it.Layer != nil && it.layer != nil && (e.o.max || it.image) && !it.layer.thin
}

// send brings the blobs that the place lacks and returns them.
func (e *exporting) send(ctx context.Context, old *sharedList) ([]v1.Descriptor, error) {
	todo := map[v1.Hash]oci.Blob{}
	doubt := e.b.shared.doubt.Load() // it may be this cache that lacks what it lists
	for i := range e.items {
		it := &e.items[i]
		if it.blob != nil && (doubt || !old.present[it.Blob.Digest]) {
			todo[it.Blob.Digest] = *it.blob
		}
		if e.layered(it) && (doubt || !old.present[it.Layer.Digest]) {
			todo[it.Layer.Digest] = e.layerBlob(it)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(e.o.parallel)
	var sent []v1.Descriptor
	var mu sync.Mutex // guards e.lost
	for _, bl := range todo {
		sent = append(sent, bl.Desc)
		g.Go(func() error {
			id := "writing layer " + shortID(bl.Desc.Digest)
			err := e.place.Add(ctx, bl, func(s oci.Status) {
				e.step.Status(id, s.Current, s.Total, s.State != oci.Pushing)
			})
			var lost *lostError
			if errors.As(err, &lost) && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				e.lost[bl.Desc.Digest] = true
				e.step.Warn(fmt.Sprintf("an entry of a cache that was read is left out: %v", lost.err))
				return nil
			}
			return err
		})
	}
	err := g.Wait()
	e.items = slices.DeleteFunc(slices.Clone(e.items), func(it sharedItem) bool { return it.Blob != nil && e.lost[it.Blob.Digest] })
	return sent, err
}

func (e *exporting) layerBlob(it *sharedItem) oci.Blob {
	l := it.layer
	bl := oci.Blob{Desc: *it.Layer, Open: e.b.layerOpener(l, *it.Layer), Repo: e.b.shared.repoName()}
	if l.src != nil {
		bl.Repo = l.src.Repo
	} else if r := e.b.pushedRepo(); r != "" {
		bl.Repo = r
	}
	return bl
}

// pushedRepo is a repository that has the image's layers by now, "" for none.
func (b *builder) pushedRepo() string {
	for _, o := range b.opts.Outputs {
		if o.Type != OutputRegistry {
			continue
		}
		for _, name := range b.names(o) {
			if ref, err := oci.ParseRef(name); err == nil {
				return strings.TrimSuffix(oci.FullName(ref), ":"+ref.Identifier())
			}
		}
	}
	return ""
}

// publish writes the list and then the manifest.
func (e *exporting) publish(ctx context.Context, entries []sharedEntry, old *sharedList) error {
	data, err := encodeDoc(entries)
	if err != nil {
		return err
	}
	doc := oci.MemoryBlob(data, typeSharedDoc)
	if err := e.place.Add(ctx, doc, nil); err != nil {
		return err
	}
	raw, mt, err := encodeManifest(doc.Desc, e.needs(entries, old), e.o.form)
	if err != nil {
		return err
	}
	e.step.Status("writing cache manifest "+shortID(describeBytes(raw, mt).Digest), 0, 0, true)
	return e.place.Publish(ctx, raw, mt)
}

package build

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// A result with its trace is an entry of kind kindTraces: its key is the identity and
// the trace's id, its value the result, its blob the trace and its layer the result's.
// Results of several builds then stand side by side, each with its own signature.

func tracedKey(id Key, trace string) string { return string(id) + "/" + trace }

// tracedEntries are the entries of one source by identity, the newest first, by the
// id of their traces and by layer.
type tracedEntries struct {
	of     map[Key][]*sharedEntry
	by     map[string]*sharedEntry
	layers map[v1.Hash][]*sharedEntry
}

func sortTraced(entries map[entryName]*sharedEntry) tracedEntries {
	t := tracedEntries{map[Key][]*sharedEntry{}, map[string]*sharedEntry{}, map[v1.Hash][]*sharedEntry{}}
	for n, e := range entries {
		id, trace, ok := strings.Cut(n.key, "/")
		if n.kind == kindTraces && ok && e.Blob != nil {
			t.of[Key(id)] = append(t.of[Key(id)], e)
			t.by[trace] = e
			if e.Layer != nil {
				t.layers[e.Layer.Digest] = append(t.layers[e.Layer.Digest], e)
			}
		}
	}
	for id, list := range t.of {
		slices.SortFunc(list, func(a, b *sharedEntry) int { return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Key, b.Key)) })
		t.of[id] = list[:min(len(list), maxTraces)]
	}
	return t
}

// sharedTraces returns the results of an identity that shared caches have, with their
// layers.
func (b *builder) sharedTraces(ctx context.Context, id Key) []tracedResult {
	if b.shared == nil || b.opts.NoCache {
		return nil
	}
	var out []tracedResult
	for _, c := range b.shared.from {
		for _, e := range c.traces(ctx, b.opts.Progress, id) {
			var r tracedResult
			if json.Unmarshal(e.Value, &r) != nil || tracedKey(id, r.Trace) != e.Key || !validKey(Key(r.Trace)) || !validKey(r.Key) {
				continue
			}
			res, ok := b.sharedLayer(c, e, &r.Step)
			if !ok {
				continue
			}
			r.layer, r.source, r.keep = res.layer, c.place.String(), func() { b.keepFound(c, e) }
			out = append(out, r)
		}
	}
	return out
}

// sharedTrace returns the form of a trace that a shared cache has under its id.
func (b *builder) sharedTrace(ctx context.Context, id string) ([]byte, bool) {
	if b.shared == nil || b.opts.NoCache {
		return nil, false
	}
	for _, c := range b.shared.from {
		e := c.trace(id)
		if e == nil {
			continue
		}
		data, err := c.unpack(ctx, b, e)
		if err == nil && traceID(data) == id {
			return data, true
		}
		if ctx.Err() == nil {
			b.shared.doubt.Store(true)
			b.warn("cache %s: trace %.12s cannot be had or is another: it is not used", c.place, id)
		}
	}
	return nil, false
}

// shareTraces collects a result with its trace, which are in this store or in a shared
// cache, for --cache-to.
func (b *builder) shareTraces(id Key, below *fsState, r tracedResult) {
	if b.shared == nil || b.shared.to == nil {
		return
	}
	b.keepLayers(below, result{layer: r.layer})
	if r.keep != nil {
		r.keep()
		return
	}
	b.shared.to.keepTraced(entryName{kindTraces, tracedKey(id, r.Trace)}, r)
}

// madeItems makes entries of the traces of results that were found by their exact keys,
// where this store knows what made them.
func (b *builder) madeItems(items []sharedItem, byID map[tree.Digest]*fsLayer, x *cacheExport) []sharedItem {
	var out []sharedItem
	seen := map[string]bool{}
	for i := range items {
		var rec stepRecord
		var made madeRecord
		if items[i].Kind != kindStep || json.Unmarshal(items[i].Value, &rec) != nil || rec.DiffID == "" || !b.getJSON(kindMade, string(rec.DiffID), &made) {
			continue
		}
		var list []tracedResult
		n := entryName{kindTraces, tracedKey(made.Identity, made.Trace)}
		if _, known := x.names[n]; known || seen[n.key] || made.Trace == "" || !b.getJSON(kindTraces, string(made.Identity), &list) {
			continue
		}
		at := slices.IndexFunc(list, func(r tracedResult) bool { return r.Trace == made.Trace && r.Step.DiffID == rec.DiffID })
		if at < 0 {
			continue
		}
		if it, ok := b.tracedItem(n, &list[at]); ok && it.takeLayer(byID, x.image) {
			seen[n.key] = true
			out = append(out, it)
		}
	}
	return out
}

// tracedItem makes an entry of a result and its trace.
func (b *builder) tracedItem(n entryName, r *tracedResult) (sharedItem, bool) {
	it := sharedItem{sharedEntry: sharedEntry{Kind: n.kind, Key: n.key}}
	rec, err := b.store.Record(kindTrace, r.Trace)
	if err != nil {
		return it, false
	}
	if it.Value, err = json.Marshal(r); err != nil {
		return it, false
	}
	ok := it.pack(rec.Value, typeSharedRecord)
	return it, ok
}

// traces returns the entries of an identity that are signed as they must be.
func (c *cacheSource) traces(ctx context.Context, show *progress.Display, id Key) []*sharedEntry {
	if _, ok := c.entry(ctx, show, entryName{}); ok || c.off.Load() { // it reads the list
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*sharedEntry
	for _, e := range c.traced.of[id] {
		if c.key.holds(e) {
			out = append(out, e)
		}
	}
	return out
}

// keepTraces collects what leads to the layer of a result that a source has under its
// exact key.
func (b *builder) keepTraces(c *cacheSource, e *sharedEntry) {
	if b.shared.to == nil || e.Layer == nil {
		return
	}
	c.mu.Lock()
	list := c.traced.layers[e.Layer.Digest]
	c.mu.Unlock()
	for _, t := range list[:min(len(list), maxTraces)] {
		if c.key.holds(t) {
			b.keepFound(c, t)
		}
	}
}

// trace returns the entry of a trace.
func (c *cacheSource) trace(id string) *sharedEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.traced.by[id]; e != nil && !c.off.Load() && c.key.holds(e) {
		return e
	}
	return nil
}

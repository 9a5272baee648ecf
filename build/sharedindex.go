package build

import (
	"bytes"
	"context"

	"github.com/fbuild/fbuild/tree"
)

// travelling are the kinds of records that a shared cache takes beside results and
// aliases.
var travelling = []string{kindTraces, kindCopied}

// indexItems makes entries of the layers' indexes, without the places of contents: a
// step can be matched on a machine that has no layer. A layer whose index is not here
// has none.
func (b *builder) indexItems(layers map[tree.Digest]*fsLayer) []sharedItem {
	var items []sharedItem
	for diffID := range layers {
		it := sharedItem{sharedEntry: sharedEntry{Kind: kindIndex, Key: string(diffID)}}
		if b.knownIndex(&it) {
			items = append(items, it)
			continue
		}
		cs, err := b.store.Layer(diffID)
		if err != nil {
			continue
		}
		if it.pack(tree.Encode(withoutPlaces(cs)), typeSharedIndex) {
			items = append(items, it)
		}
	}
	return items
}

// knownIndex takes the index of a layer from the caches that were read: making it anew
// costs time and gives the same.
func (b *builder) knownIndex(it *sharedItem) bool {
	if b.shared.doubt.Load() { // they may be gone there
		return false
	}
	for _, c := range b.shared.from {
		c.mu.Lock()
		e := c.entries[it.name()]
		c.mu.Unlock()
		if e == nil || e.Blob == nil || c.off.Load() || !c.key.holds(e) {
			continue
		}
		it.sharedEntry = *e
		it.blob = c.lend(b, *e.Blob)
		return true
	}
	return false
}

// withoutPlaces returns changes without extents.
func withoutPlaces(cs tree.Changes) tree.Changes {
	out := make(tree.Changes, len(cs))
	copies := map[*tree.Node]*tree.Node{}
	for i, c := range cs {
		out[i] = c
		if c.Node == nil || len(c.Node.Extents) == 0 {
			continue
		}
		n := copies[c.Node]
		if n == nil {
			plain := c.Node.Attrs()
			plain.Extents = nil
			n = &plain
			copies[c.Node] = n
		}
		out[i].Node = n
	}
	return out
}

// lightIndex returns what a layer holds, without the places of contents, from a shared
// cache: enough for questions, and nothing to serve files from.
func (b *builder) lightIndex(ctx context.Context, diffID tree.Digest) (tree.Changes, bool) {
	var cs tree.Changes
	ok := b.sharedRecord(ctx, kindIndex, string(diffID), func(_ *cacheSource, _ *sharedEntry, value []byte) bool {
		if len(value) == 0 || bytes.Equal(value, []byte("null")) {
			return false
		}
		got, err := tree.Decode(value)
		if err != nil {
			return false
		}
		cs = withoutPlaces(got)
		return true
	})
	return cs, ok
}

package build

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Bounds of what a cache keeps of other builds: the newest entries that fit. What a
// build stores itself always stays.
const (
	keepEntries    = 4000
	keepLayerBytes = 10 << 30
	// refresh is how old the time of an entry may be before a build that uses it
	// writes the cache for that alone.
	refresh = 24 * time.Hour
)

// merge joins the items with what is there. It reports whether that says anything new.
func (e *exporting) merge(old *sharedList) (entries []sharedEntry, changed bool) {
	mine := map[entryName]bool{}
	for i := range e.items {
		it := &e.items[i]
		mine[it.name()] = true
		was := old.entries[it.name()]
		entry := it.sharedEntry
		entry.At = e.now
		if was != nil && was.same(&entry) {
			if entry.Sig == nil { // whoever signed it meant the same
				entry.Sig = was.Sig
			}
			if e.now.Sub(was.At) < refresh && was.At.Before(e.now.Add(time.Hour)) {
				entry.At = was.At
			}
		}
		changed = changed || was == nil || !was.same(&entry) || !was.At.Equal(entry.At) || string(was.Sig) != string(entry.Sig) ||
			e.layered(it) && !old.present[it.Layer.Digest]
		entries = append(entries, entry)
	}
	others := fitting(entries, e.others(old, mine))
	if len(entries)+len(others) != len(old.entries) {
		changed = true
	}
	return append(entries, others...), changed || len(old.raw) == 0
}

// fitting are the others, the newest first, that a list with mine has room for.
func fitting(mine, others []sharedEntry) []sharedEntry {
	room := maxSharedDoc - 1<<10 // of what is around them
	size := func(e *sharedEntry) int {
		data, _ := json.Marshal(e) // what cannot be written fails when it is
		return len(data) + 1
	}
	for i := range mine {
		room -= size(&mine[i])
	}
	for i := range others {
		if room -= size(&others[i]); room < 0 || len(mine)+i == maxSharedEntries {
			return others[:i]
		}
	}
	return others
}

// others are the entries of other builds that stay.
func (e *exporting) others(old *sharedList, mine map[entryName]bool) []sharedEntry {
	var list []*sharedEntry
	for n, en := range old.entries {
		if en.Blob != nil && e.lost[en.Blob.Digest] {
			continue
		}
		if !mine[n] && e.now.Sub(en.At) < e.o.keep && en.At.Before(e.now.Add(time.Hour)) {
			list = append(list, en)
		}
	}
	slices.SortFunc(list, func(a, b *sharedEntry) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		if a.Kind+a.Key < b.Kind+b.Key {
			return -1
		}
		return 1
	})
	var out []sharedEntry
	var bytes int64
	seen := map[v1.Hash]bool{}
	traced := e.traced()
	for _, en := range list[:min(len(list), keepEntries)] {
		if id, _, ok := strings.Cut(en.Key, "/"); ok && en.Kind == kindTraces {
			if traced[id]++; traced[id] > maxTraces {
				continue
			}
		}
		size := int64(0)
		for _, d := range []*v1.Descriptor{en.Blob, en.Layer} {
			if d != nil && old.present[d.Digest] && !seen[d.Digest] {
				seen[d.Digest] = true
				size += d.Size
			}
		}
		if bytes += size; bytes > keepLayerBytes || bytes < 0 {
			break
		}
		out = append(out, *en)
	}
	return out
}

// traced counts the results of each identity.
func (e *exporting) traced() map[string]int {
	n := map[string]int{}
	for i := range e.items {
		if id, _, ok := strings.Cut(e.items[i].Key, "/"); ok && e.items[i].Kind == kindTraces {
			n[id]++
		}
	}
	return n
}

// needs are the blobs that entries lead to and that are there, by digest.
func (e *exporting) needs(entries []sharedEntry, old *sharedList) []v1.Descriptor {
	here := map[v1.Hash]bool{}
	for i := range e.items {
		if it := &e.items[i]; e.layered(it) {
			here[it.Layer.Digest] = true
		}
	}
	list := map[v1.Hash]v1.Descriptor{}
	for i := range entries {
		if d := entries[i].Blob; d != nil {
			list[d.Digest] = *d
		}
		if d := entries[i].Layer; d != nil && (here[d.Digest] || old.present[d.Digest]) {
			list[d.Digest] = *d
		}
	}
	out := make([]v1.Descriptor, 0, len(list))
	for _, d := range list {
		out = append(out, v1.Descriptor{MediaType: e.mediaType(d.MediaType), Size: d.Size, Digest: d.Digest})
	}
	slices.SortFunc(out, func(a, b v1.Descriptor) int {
		if a.Digest.Hex < b.Digest.Hex {
			return -1
		}
		return 1
	})
	return out
}

// mediaType is a layer's in the manifest of a cache.
func (e *exporting) mediaType(mt types.MediaType) types.MediaType {
	if e.o.form.docker && mt == types.OCILayer {
		return types.DockerLayer
	}
	return mt
}

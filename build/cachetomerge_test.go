package build

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func testLayer(n, size int64) *v1.Descriptor {
	return &v1.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Size: size, Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", n)}}
}

// What others stored stays while it is young and fits; what the build stored itself
// always stays.
func TestMergeIsBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0).UTC()
	mine := sharedItem{sharedEntry: sharedEntry{Kind: kindStep, Key: "mine", Value: []byte("1")}}
	old := func(list ...sharedEntry) *sharedList {
		l := &sharedList{raw: []byte("x"), entries: map[entryName]*sharedEntry{}, present: map[v1.Hash]bool{}}
		for i := range list {
			l.entries[list[i].name()] = &list[i]
			if d := list[i].Layer; d != nil {
				l.present[d.Digest] = true
			}
		}
		return l
	}
	entry := func(key string, age time.Duration, size int64) sharedEntry {
		e := sharedEntry{Kind: kindStep, Key: key, At: now.Add(-age), Value: []byte("1")}
		if size > 0 {
			e.Layer = testLayer(int64(len(key)), size)
		}
		return e
	}
	traced := func(id string, n int) (list []sharedEntry) {
		for i := range n {
			list = append(list, sharedEntry{Kind: kindTraces, Key: fmt.Sprintf("%s/%d", id, i), At: now.Add(-time.Duration(i) * time.Minute)})
		}
		return list
	}
	tests := []struct {
		name    string
		old     *sharedList
		keep    time.Duration
		want    int // entries, mine among them
		changed bool
	}{
		{"nothing there", &sharedList{}, time.Hour, 1, true},
		{"the same", old(entry("mine", time.Minute, 0)), time.Hour, 1, false},
		{"mine is old", old(entry("mine", 48*time.Hour, 0)), time.Hour, 1, true},
		{"another that is young", old(entry("mine", 0, 0), entry("other", time.Minute, 0)), time.Hour, 2, false},
		{"another that is old", old(entry("mine", 0, 0), entry("other", 2*time.Hour, 0)), time.Hour, 1, true},
		{"of the future", old(entry("mine", 0, 0), entry("other", -48*time.Hour, 0)), time.Hour, 1, true},
		{"nothing is kept", old(entry("mine", 0, 0), entry("other", 0, 0)), 0, 1, true},
		{"too large", old(entry("mine", 0, 0), entry("aa", time.Minute, keepLayerBytes-10), entry("b", 2*time.Minute, 11), entry("ccc", 3*time.Minute, 1)), time.Hour, 2, true},
		{"sizes that overflow", old(entry("mine", 0, 0), entry("aa", time.Minute, 1<<62), entry("b", 2*time.Minute, 1<<62)), time.Hour, 1, true},
		{"many traces of an identity", old(append(traced("id", 20), traced("other", 3)...)...), time.Hour, 1 + maxTraces + 3, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &exporting{o: exportOptions{keep: tt.keep}, items: []sharedItem{mine}, now: now}
			got, changed := e.merge(tt.old)
			if len(got) != tt.want || changed != tt.changed {
				t.Errorf("got %d entries, changed %v; want %d, %v", len(got), changed, tt.want, tt.changed)
			}
		})
	}
	many := old()
	for i := range keepEntries + 50 {
		e := entry(fmt.Sprint("key", i), time.Minute, 0)
		many.entries[e.name()] = &e
	}
	e := &exporting{o: exportOptions{keep: time.Hour}, items: []sharedItem{mine}, now: now}
	if got, _ := e.merge(many); len(got) != keepEntries+1 {
		t.Errorf("very many: got %d entries, want %d", len(got), keepEntries+1)
	}
}

// A doc survives writing and reading, and what it is signed with as well.
func TestSignedEntrySurvives(t *testing.T) {
	k := newTestKey(t)
	e := sharedEntry{Kind: kindStep, Key: strings.Repeat("a", 64), Value: []byte(`{"title":"a < b & c"}`), Layer: testLayer(1, 10), At: time.Unix(5, 0).UTC()}
	canonical, err := encodeDoc([]sharedEntry{e})
	if err != nil {
		t.Fatal(err)
	}
	doc, _, err := decodeDoc(canonical)
	if err != nil {
		t.Fatal(err)
	}
	read := doc[e.name()]
	k.sign(read)
	again, err := encodeDoc([]sharedEntry{*read})
	if err != nil {
		t.Fatal(err)
	}
	if doc, _, err = decodeDoc(again); err != nil || !k.holds(doc[e.name()]) {
		t.Errorf("a signature does not hold after it was written and read: %v", err)
	}
	for name, change := range map[string]func(*sharedEntry){
		"kind": func(e *sharedEntry) { e.Kind = kindAlias }, "key": func(e *sharedEntry) { e.Key += "b" },
		"value": func(e *sharedEntry) { e.Value = []byte("2") }, "no layer": func(e *sharedEntry) { e.Layer = nil },
		"size":  func(e *sharedEntry) { e.Layer = testLayer(1, 11) },
		"layer": func(e *sharedEntry) { e.Layer = testLayer(2, 10) }, "as a blob": func(e *sharedEntry) { e.Blob, e.Layer = e.Layer, nil },
		"type": func(e *sharedEntry) { e.Layer = testLayer(1, 10); e.Layer.MediaType = "x" },
	} {
		other := *doc[e.name()]
		change(&other)
		if k.holds(&other) {
			t.Errorf("a signature holds for another %s", name)
		}
	}
}

// A list never gets longer than one that is read: what others stored longest ago goes,
// and what does not fit alone is an error.
func TestListFitsItsReader(t *testing.T) {
	entry := func(i, size int) sharedEntry {
		return sharedEntry{Kind: kindStep, Key: fmt.Sprint("k", i), Value: []byte(`"` + strings.Repeat("x", size) + `"`)}
	}
	var mine, others, many []sharedEntry
	for i := range 1000 {
		mine = append(mine, entry(i, 4000))
		others = append(others, entry(100_000+i, 4000), entry(200_000+i, 4000), entry(300_000+i, 4000), entry(400_000+i, 4000))
	}
	for i := range maxSharedEntries + 10 {
		many = append(many, entry(1_000_000+i, 1))
	}
	for name, theirs := range map[string][]sharedEntry{"bytes": others, "entries": many} {
		kept := fitting(mine, theirs)
		data, err := encodeDoc(append(slices.Clone(mine), kept...))
		if err != nil || len(kept) == 0 || len(kept) == len(theirs) {
			t.Errorf("%s: %d of %d others kept, error %v, want some", name, len(kept), len(theirs), err)
			continue
		}
		if doc, bad, err := decodeDoc(data); err != nil || bad != 0 || len(doc) != len(mine)+len(kept) {
			t.Errorf("%s: read %d entries, %d bad, error %v, want %d", name, len(doc), bad, err, len(mine)+len(kept))
		}
	}
	for name, list := range map[string][]sharedEntry{"bytes": append(mine, others...), "entries": many} {
		if _, err := encodeDoc(list); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s: got %v, want that it is too long", name, err)
		}
	}
}

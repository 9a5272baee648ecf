package tree

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// everyChange has one of each kind.
func everyChange() Changes {
	twin := &Node{
		Kind: File, Mode: 0o4755, UID: 1, GID: math.MaxUint32, Mtime: Time{-5, 999999999}, Size: 30,
		Extents: []Extent{{"tar-1", 1 << 40, 10}, {"", 0, 15}, {"spool-2", 0, 5}}, Digest: "sha256:00",
		Xattrs: []Xattr{{"security.capability", "\x00\x01"}, {"user.x", ""}},
	}
	return Changes{
		{Path: "", Node: &Node{Kind: Dir, Mode: 0o755}},
		{Path: "a", Node: &Node{Kind: Dir, Mode: 0o1777}, Opaque: true},
		{Path: "a/gone"},
		{Path: "a/link", LinkTo: "b/c"},
		{Path: "a/one", Node: twin},
		{Path: "a/two", Node: twin},
		{Path: "dev", Node: &Node{Kind: CharDevice, Major: 1, Minor: math.MaxUint32}},
		{Path: "empty", Node: &Node{Kind: File, Digest: "sha256:e3"}},
		{Path: "mark", Opaque: true},
		{Path: "\xff\n", Node: &Node{Kind: Symlink, Target: "\xfe/..", Size: 4, Mode: 0o777}},
	}
}

// LAWS 24: names and targets are bytes.
func TestCodec(t *testing.T) {
	want := everyChange()
	data := Encode(want)
	got, err := Decode(data)
	must(t, err)
	opt := cmp.Comparer(func(a, b *Node) bool { return a == nil && b == nil || a != nil && b != nil && equalNodes(a, b) })
	if diff := cmp.Diff(want, got, opt); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if got[4].Node != got[5].Node {
		t.Error("names of one group: got two nodes, want one")
	}
	if !bytes.Equal(data, Encode(got)) {
		t.Error("encoded again: got other bytes")
	}
	if cs, err := Decode(Encode(nil)); err != nil || len(cs) != 0 {
		t.Errorf("no changes: got %v, %v", cs, err)
	}
}

func equalNodes(a, b *Node) bool {
	return SameAttrs(a, b) && a.Mtime == b.Mtime && a.Digest == b.Digest && cmp.Equal(a.Extents, b.Extents)
}

func TestDecodeRefuses(t *testing.T) {
	data := Encode(everyChange())
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x20
		if _, err := Decode(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: got %v, want ErrCorrupt", i, err)
		}
		if _, err := Decode(data[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: got %v, want ErrCorrupt", i, err)
		}
	}
	for name, cs := range map[string]Changes{
		"order":            {{Path: "b"}, {Path: "a"}},
		"twice":            {{Path: "a"}, {Path: "a"}},
		"extents short":    {{Path: "a", Node: &Node{Kind: File, Size: 5, Extents: []Extent{{"tar-1", 0, 4}}}}},
		"extents long":     {{Path: "a", Node: &Node{Kind: File, Size: 5, Extents: []Extent{{"tar-1", 0, 6}}}}},
		"empty extent":     {{Path: "a", Node: &Node{Kind: File, Size: 5, Extents: []Extent{{"tar-1", 0, 0}, {"", 0, 5}}}}},
		"negative size":    {{Path: "a", Node: &Node{Kind: File, Size: -1}}},
		"negative offset":  {{Path: "a", Node: &Node{Kind: File, Size: 1, Extents: []Extent{{"tar-1", -1, 1}}}}},
		"no kind":          {{Path: "a", Node: &Node{}}},
		"unknown kind":     {{Path: "a", Node: &Node{Kind: BlockDevice + 1}}},
		"mode":             {{Path: "a", Node: &Node{Kind: Dir, Mode: 0o10000}}},
		"nanoseconds":      {{Path: "a", Node: &Node{Kind: Dir, Mtime: Time{0, 1e9}}}},
		"less nanoseconds": {{Path: "a", Node: &Node{Kind: Dir, Mtime: Time{0, -1}}}},
	} {
		if got, err := Decode(Encode(cs)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, %v, want ErrCorrupt", name, Format(got), err)
		}
	}
}

// Whatever the bytes say, decoding ends, and what it gives encodes again.
func FuzzDecode(f *testing.F) {
	data := Encode(everyChange())
	f.Add(data[len(magic) : len(data)-sha256.Size])
	f.Add([]byte{1, 1, 'p', 3, 0, 1, 'a', 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 'b', 8, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(magic), body...)
		sum := sha256.Sum256(b)
		cs, err := Decode(append(b, sum[:]...))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("decode: got %v, want ErrCorrupt", err)
			}
			return
		}
		again, err := Decode(Encode(cs))
		if err != nil || Format(again) != Format(cs) {
			t.Errorf("decode what was encoded: %v, got %s, want %s", err, Format(again), Format(cs))
		}
		if tr, err := Empty().Apply(cs); err == nil {
			checkLinks(t, tr)
		}
		checkLazy(t, Empty(), append(slices.Clip(b), sum[:]...))
	})
}

// The list of packs stands in front of all, however long it is.
func TestCodecOfManyPacks(t *testing.T) {
	for _, count := range []int{1, 11, 12, 13, 14, 300} {
		var want Changes
		for k := range count {
			x := Extent{Pack: PackID(fmt.Sprintf("tar-%032d", k)), Len: 1}
			want = append(want, Change{Path: fmt.Sprintf("%03d", k), Node: &Node{Kind: File, Size: 1, Extents: []Extent{x}}})
		}
		got, err := Decode(Encode(want))
		must(t, err)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Node{})); diff != "" {
			t.Errorf("%d packs: %s", count, diff)
		}
	}
}

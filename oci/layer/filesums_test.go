package layer

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// checkDigests compares the digest of every file with its bytes.
func checkDigests(t *testing.T, what string, p packs, cs tree.Changes) {
	t.Helper()
	for _, c := range cs {
		if c.Node == nil || c.Node.Kind != tree.File || c.Node.Size == 0 {
			continue
		}
		if want := sum([]byte(content(t, p, c.Node))); c.Node.Digest != want {
			t.Errorf("%s: digest of %q: got %s, want %s", what, c.Path, c.Node.Digest, want)
		}
	}
}

// Every file of a layer has a digest in its index, whether the layer was written
// or read, with holes or without.
func TestFilesHaveDigests(t *testing.T) {
	for seed := range uint64(30) {
		r := &random{Rand: rand.New(rand.NewPCG(seed, 7))}
		r.fill("", 3)
		r.cs.Sort()
		p := packs{spoolPack: r.pack}
		before := tree.Encode(r.cs)
		blob, sealed := seal(t, r.cs, p, Options{Compression: "uncompressed"})
		if !bytes.Equal(tree.Encode(r.cs), before) {
			t.Fatalf("seed %d: Seal changed what it was given", seed)
		}
		if got, want := tree.Format(sealed.Changes), tree.Format(r.cs); got != want {
			t.Fatalf("seed %d: sealed changes: got\n%s\nwant\n%s", seed, got, want)
		}
		checkDigests(t, "sealed", p, sealed.Changes)
		cs, _, pack := mustRead(t, blob)
		p[testPack] = pack
		checkDigests(t, "read", p, cs)
		// The sealed changes say all that there is to say.
		if _, again := seal(t, sealed.Changes, p, Options{}); len(again.Changes) > 0 && &again.Changes[0] != &sealed.Changes[0] {
			t.Errorf("seed %d: digests were made again", seed)
		}
	}
}

// Holes beyond the limit are not hashed, neither of one file nor of many.
func TestHugeHolesHaveNoDigest(t *testing.T) {
	huge := &tree.Node{Kind: tree.File, Size: 100 << 30, Extents: []tree.Extent{{Len: 100 << 30}}}
	half := func() *tree.Node {
		return &tree.Node{Kind: tree.File, Size: maxHashedZeros/2 + 1, Extents: []tree.Extent{{Len: maxHashedZeros/2 + 1}}}
	}
	p := packs{}
	small := fileNode(p, "small")
	cs := tree.Changes{{Path: "a", Node: half()}, {Path: "b", Node: huge}, {Path: "c", Node: half()}, {Path: "d", Node: small}}
	blob, sealed := seal(t, cs, p, Options{})
	read, _, _ := mustRead(t, blob)
	for what, cs := range map[string]tree.Changes{"sealed": sealed.Changes, "read": read} {
		for path, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true} {
			if n := find(t, cs, path).Node; (n.Digest != "") != want {
				t.Errorf("%s: digest of %q: got %q, want one: %v", what, path, n.Digest, want)
			}
		}
	}
}

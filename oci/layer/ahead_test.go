package layer

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// ahead compresses every file of cs that is large enough, as of the bytes that p has.
func ahead(t *testing.T, o Options, cs tree.Changes, p packs) *shelf {
	t.Helper()
	a, err := NewAhead(o)
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf()
	for _, c := range cs {
		n := c.Node
		if n == nil || n.Kind != tree.File || n.Size < a.Least() {
			continue
		}
		r, err := p.Open(n)
		if err != nil {
			t.Fatal(err)
		}
		var blob bytes.Buffer
		frames, err := a.File(&blob, r, n.Size)
		if err != nil {
			t.Fatal(err)
		}
		for i := range frames {
			frames[i].Ahead = true
		}
		s.add(blob.Bytes(), Sealed{Frames: frames})
	}
	return s
}

// LAWS 27: a layer does not depend on what was compressed before it was known, nor on
// whether the files were what they are now.
func TestCompressedAheadDoesNotShow(t *testing.T) {
	for _, codec := range []string{"gzip", "zstd:chunked"} {
		t.Run(codec, func(t *testing.T) {
			cs, p := realistic(3)
			cs = slices.DeleteFunc(cs, func(c tree.Change) bool { // the rest is enough
				return !slices.Contains([]string{"a/small7", "b/large0", "b/large2", "b/large4", "d/sparse"}, c.Path)
			})
			o := Options{Compression: codec}
			want, first := seal(t, cs, p, o)
			if first.Stats.Ahead != 0 {
				t.Errorf("without: got %d frames ahead, want none", first.Stats.Ahead)
			}
			stale := packs{spoolPack: bytes.Clone(p[spoolPack])}
			clear(stale[spoolPack][len(stale[spoolPack])/2:])
			for name, of := range map[string]packs{"the same bytes": p, "half of them others by now": stale} {
				o.Frames = ahead(t, o, cs, of)
				got, s := seal(t, cs, p, o)
				if !bytes.Equal(got, want) || s.Stats.Ahead == 0 || s.Stats.Reused != 0 {
					t.Errorf("%s: got %s, %+v, want %s, frames ahead and none reused", name, s.Digest, s.Stats, first.Digest)
				}
				if name == "the same bytes" && s.Stats.AheadBytes < s.Stats.Bytes/2 {
					t.Errorf("%s: got %d of %d bytes ahead", name, s.Stats.AheadBytes, s.Stats.Bytes)
				}
			}
		})
	}
}

func TestNothingAhead(t *testing.T) {
	for name, o := range map[string]Options{"uncompressed": {Compression: "uncompressed"}, "zstd, in large blocks": {Compression: "zstd"}} {
		if a, err := NewAhead(o); a != nil || err != nil {
			t.Errorf("%s: got %v, %v, want nil", name, a, err)
		}
	}
	if _, err := NewAhead(Options{Compression: "best"}); err == nil {
		t.Error("unknown compression: got no error")
	}
	a, err := NewAhead(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"a small file": a.Least() - 1, "more than there is": 1 << 20} {
		if _, err := a.File(io.Discard, bytes.NewReader(make([]byte, 100<<10)), size); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

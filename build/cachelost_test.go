package build

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/dockerfile"
)

// LAWS 10: a cache that has lost the records that its list names fails no build that
// stores elsewhere what it found there.
func TestCacheLostRecords(t *testing.T) {
	w := newWorld(t)
	w.write("a", "one")
	w.write("b", "two")
	dir, to := t.TempDir(), t.TempDir()
	w.must(sharedFile, localCache(dir, "mode=max"))
	lost := 0
	for _, e := range entriesOf(t, dir).entries {
		if e.Blob != nil && os.Remove(filepath.Join(dir, "blobs", "sha256", e.Blob.Digest.Hex)) == nil {
			lost++
		}
	}
	w.otherStore()
	w.must(sharedFile, fromCache(dir), localCache(to, "mode=max"))
	if lost == 0 || w.cached() != 5 || !strings.Contains(w.out.String(), "is left out") {
		t.Errorf("%d records lost, %d steps cached, want 5 and a word\n%s", lost, w.cached(), w.out.String())
	}
	for _, e := range entriesOf(t, to).entries {
		if e.Blob == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(to, "blobs", "sha256", e.Blob.Digest.Hex)); err != nil {
			t.Errorf("the new list names %s %s: %v", e.Kind, e.Key, err)
		}
	}
}

// LAWS 10: a list of nothing but empty entries is refused before it takes memory.
func TestDocOfEmptyEntries(t *testing.T) {
	const n = 4 << 20
	data := []byte(`{"version":1,"entries":[` + strings.Repeat("{},", n) + `{}]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := decodeDoc(data); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v, want a refusal", err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 100<<20 {
		t.Errorf("%d MiB for a list of %d", got>>20, len(data)>>20)
	}
}

// LAWS 11: what a trace found on contents that only a shared cache tells of is not
// stored here: not when they are bound, and not when they are read meanwhile.
func TestHitOnBorrowedContents(t *testing.T) {
	tests := []struct {
		name  string
		lend  func(below, bound *fsLayer)
		known bool
	}{
		{"nothing", func(_, _ *fsLayer) {}, true},
		{"below", func(below, _ *fsLayer) { below.lent, below.loaded = true, false }, false},
		{"below, read since", func(below, _ *fsLayer) { below.lent, below.loaded = true, true }, false},
		{"bound", func(_, bound *fsLayer) { bound.lent, bound.loaded = true, false }, false},
		{"bound, of a cache", func(_, bound *fsLayer) { bound.shared, bound.loaded = true, false }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.run(r.on("a=text", "x=1"), r.copies())
			below, bound := r.on("a=text", "x=2"), r.on("b=other")
			set := &mountSet{b: r.b, list: []*runMount{{Mount: dockerfile.Mount{Type: dockerfile.MountBind}, src: &copySource{fs: bound}}}}
			key := newKey("later").sum()
			tr := &tracer{
				b: r.b, rep: &StepReport{}, step: r.b.opts.Progress.Step("RUN"), id: newKey("rig").str(r.copies().id).sum(),
				key: key, below: below, mounts: set,
			}
			hit, err := tr.find(t.Context())
			if err != nil || hit == nil {
				t.Fatalf("got %v, error %v, want a hit", hit, err)
			}
			tt.lend(below.layer, bound.layer)
			tr.adopt(hit, func() {})
			r.b.background.Wait()
			if _, ok := r.b.recorded(t.Context(), key, below); ok != tt.known {
				t.Errorf("stored: got %v, want %v", ok, tt.known)
			}
		})
	}
}

// LAWS 10: an inline cache is a bomb no larger than a list.
func TestInlineBomb(t *testing.T) {
	packed, err := packValue(make([]byte, 200<<20))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := decodeInline(base64.StdEncoding.EncodeToString(packed)); err == nil || len(packed) > maxInline/2 {
		t.Errorf("%d bytes unpacked to 200 MiB", len(packed))
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 200<<20 {
		t.Errorf("%d MiB for an inline cache of %d bytes", got>>20, len(packed))
	}
}

package build

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
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

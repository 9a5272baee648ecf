package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/oci"
)

// localCache exports to, and imports from, a layout.
func localCache(dir string, attrs ...string) func(*Options) {
	return func(o *Options) {
		to := CacheSpec{CacheLocal, map[string]string{"dest": dir}}
		for _, a := range attrs {
			k, v, _ := strings.Cut(a, "=")
			to.Attrs[k] = v
		}
		o.CacheTo = append(o.CacheTo, to)
	}
}

func fromCache(dir string) func(*Options) {
	return func(o *Options) {
		o.CacheFrom = append(o.CacheFrom, CacheSpec{CacheLocal, map[string]string{"src": dir}})
	}
}

// entriesOf reads a local cache.
func entriesOf(t *testing.T, dir string) *sharedList {
	t.Helper()
	l, err := readShared(t.Context(), oci.OpenLayoutArtifact(dir, "latest"), hostPlatform)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCacheToAndFrom(t *testing.T) {
	for _, mode := range []string{"min", "max"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			dir := filepath.Join(t.TempDir(), "cache")
			w.write("a", "one")
			w.write("b", "two")
			first := w.must(sharedFile, localCache(dir, "mode="+mode))
			// Nothing changed: nothing is written.
			index, err := os.ReadFile(filepath.Join(dir, "index.json"))
			if err != nil {
				t.Fatal(err)
			}
			w.must(sharedFile, localCache(dir, "mode="+mode))
			if again, err := os.ReadFile(filepath.Join(dir, "index.json")); err != nil || string(again) != string(index) {
				t.Errorf("an unchanged build wrote the cache again: %v\n%s", err, w.out.String())
			}

			w.otherStore()
			second := w.must(sharedFile, fromCache(dir))
			if first.ImageID != second.ImageID || w.cached() != 5 {
				t.Errorf("another machine: image %s, %d cached; want %s and 5\n%s", second.ImageID, w.cached(), first.ImageID, w.out.String())
			}

			// A step that must see files of a stage finds its layers with mode=max only;
			// without them the stage is done again, and the rest is not.
			w.otherStore()
			res := w.must(strings.Replace(sharedFile, "COPY a /made/a", "COPY b /made/a", 1), fromCache(dir))
			want := map[string]int{"min": 1, "max": 2}[mode]
			if got := w.cached(); got < want || res.ImageID == first.ImageID {
				t.Errorf("after a change in a stage: %d cached, want at least %d\n%s", got, want, w.out.String())
			}
			if got, want := strings.Contains(w.out.String(), "mode=min"), mode == "min"; got != want {
				t.Errorf("told of missing layers: got %v, want %v\n%s", got, want, w.out.String())
			}
			w.must(strings.Replace(sharedFile, "COPY a /made/a", "COPY b /made/a", 1), fromCache(dir))
			if got := strings.Count(w.out.String(), " CACHED"); got != 5 { // some by their traces
				t.Errorf("what another machine's results led to: %d cached, want 5\n%s", got, w.out.String())
			}
		})
	}
}

// What a cache holds: with mode=min the image's layers, with max those of all stages;
// names of all of them in both.
func TestCacheModes(t *testing.T) {
	w := newWorld(t)
	w.write("a", "one")
	w.write("b", "two")
	layers := map[string]int{}
	for _, mode := range []string{"min", "max"} {
		dir := t.TempDir()
		w.must(sharedFile, localCache(dir, "mode="+mode))
		l, kinds := entriesOf(t, dir), map[string]int{}
		for _, e := range l.entries {
			kinds[e.Kind]++
			if e.Kind == kindStep && e.Layer != nil && l.present[e.Layer.Digest] {
				layers[mode]++
			}
			if e.Kind == kindIndex && e.Blob == nil {
				t.Error("an index without a blob")
			}
		}
		if kinds[kindStep] != 5 || kinds[kindAlias] != 1 || kinds[kindIndex] != 5 || kinds[kindTraces] != 5 {
			t.Errorf("mode=%s: got %v, want 5 steps, an alias, 5 indexes and 5 traces", mode, kinds)
		}
	}
	if layers["min"] != 2 || layers["max"] != 5 {
		t.Errorf("layers: got %v, want 2 with min and 5 with max", layers)
	}
}

func TestCacheForms(t *testing.T) {
	for _, form := range []string{"image-manifest=true", "image-manifest=false", "oci-mediatypes=false"} {
		t.Run(form, func(t *testing.T) {
			w := newWorld(t)
			w.write("a", "one")
			w.write("b", "two")
			dir := t.TempDir()
			w.must(sharedFile, localCache(dir, form))
			raw, desc, err := oci.OpenLayoutArtifact(dir, "latest").Manifest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var m manifestDoc
			if err := json.Unmarshal(raw, &m); err != nil || m.MediaType != desc.MediaType {
				t.Errorf("media type: got %q in the manifest and %q beside it, error %v", m.MediaType, desc.MediaType, err)
			}
			if image := form == "image-manifest=true"; m.MediaType.IsImage() != image || m.MediaType.IsIndex() == image {
				t.Errorf("got %s", m.MediaType)
			}
			w.otherStore()
			w.must(sharedFile, fromCache(dir))
			if w.cached() != 5 {
				t.Errorf("%d cached, want 5\n%s", w.cached(), w.out.String())
			}
		})
	}
}

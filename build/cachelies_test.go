package build

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/oci"
)

// lie changes the list of a local cache, and makes a manifest that fits it.
func lie(t *testing.T, dir string, change func(list map[string]any)) {
	t.Helper()
	a := oci.OpenLayoutArtifact(dir, "latest")
	raw, _, err := a.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseManifest(raw)
	if err != nil {
		t.Fatal(err)
	}
	doc, blobs := m.doc()
	data, err := readBlob(t.Context(), a, *doc, maxSharedDoc)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]any{}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	change(list)
	if data, err = json.Marshal(list); err != nil {
		t.Fatal(err)
	}
	bl := oci.MemoryBlob(data, typeSharedDoc)
	if err := a.Add(t.Context(), bl, nil); err != nil {
		t.Fatal(err)
	}
	raw, mt, err := encodeManifest(bl.Desc, blobs, manifestForm{image: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Publish(t.Context(), raw, mt); err != nil {
		t.Fatal(err)
	}
}

func eachEntry(fn func(e map[string]any)) func(map[string]any) {
	return func(list map[string]any) {
		entries, _ := list["entries"].([]any)
		for _, e := range entries {
			if e, ok := e.(map[string]any); ok {
				fn(e)
			}
		}
	}
}

// eachResult changes the records of steps.
func eachResult(fn func(v map[string]any)) func(map[string]any) {
	return eachEntry(func(e map[string]any) {
		if v, ok := e["value"].(map[string]any); ok {
			fn(v)
		}
	})
}

// LAWS 10, 34: whatever a cache says, the build ends well, and what is not true is not
// in the image.
func TestCacheLies(t *testing.T) {
	other := strings.Repeat("a", 64)
	tests := []struct {
		name string
		lie  func(list map[string]any)
		want string
	}{
		{name: "another version", lie: func(l map[string]any) { l["version"] = 99 }, want: "version 99"},
		{name: "no entries", lie: func(l map[string]any) { delete(l, "entries") }},
		{name: "no list", lie: func(l map[string]any) { l["entries"] = "x" }, want: "nothing is taken"},
		{name: "very many entries", lie: func(l map[string]any) { l["entries"] = make([]struct{}, maxSharedEntries+1) }, want: "at most"},
		{name: "too many bytes", lie: func(l map[string]any) { l["more"] = strings.Repeat("x", maxSharedDoc) }, want: "at most"},
		{name: "a strange kind", lie: eachEntry(func(e map[string]any) { e["kind"] = "other" }), want: "make no sense"},
		{name: "no kind", lie: eachEntry(func(e map[string]any) { delete(e, "kind") }), want: "make no sense"},
		{name: "long keys", lie: eachEntry(func(e map[string]any) { e["key"] = strings.Repeat("k", 10000) }), want: "make no sense"},
		{name: "one key for all", lie: eachEntry(func(e map[string]any) { e["key"] = other }), want: "make no sense"},
		{name: "values of another form", lie: eachEntry(func(e map[string]any) { e["value"] = []int{1} })},
		{name: "values that are missing", lie: eachEntry(func(e map[string]any) { delete(e, "value") })},
		{name: "values that are null", lie: eachEntry(func(e map[string]any) { e["value"] = nil })},
		{name: "on other layers", lie: eachResult(func(v map[string]any) { v["below"] = other })},
		{name: "no digest", lie: eachResult(func(v map[string]any) { v["digest"] = "sha256:x" })},
		{name: "a digest that is a path", lie: eachResult(func(v map[string]any) { v["digest"] = "sha256:../../x" })},
		{name: "a layer without a name", lie: eachResult(func(v map[string]any) { v["diffID"] = "x" })},
		{name: "a layer of no size", lie: eachResult(func(v map[string]any) { v["size"] = -1 })},
		{name: "a layer of a strange type", lie: eachResult(func(v map[string]any) { v["mediaType"] = "text/html" })},
		{name: "another layer than listed", lie: eachResult(func(v map[string]any) { v["digest"] = "sha256:" + other })},
		{name: "blobs that are not there", lie: eachEntry(func(e map[string]any) {
			delete(e, "value")
			e["blob"] = map[string]any{"mediaType": "x", "size": 10, "digest": "sha256:" + other}
		}), want: "it is not used"},
		{name: "huge blobs", lie: eachEntry(func(e map[string]any) {
			delete(e, "value")
			e["blob"] = map[string]any{"mediaType": "x", "size": int64(1) << 40, "digest": "sha256:" + other}
		}), want: "make no sense"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("a", "one")
			dir := t.TempDir()
			const text = "FROM scratch\nCOPY a /a\nWORKDIR /w\n"
			w.must(text, localCache(dir))
			lie(t, dir, tt.lie)
			w.otherStore()
			w.must(text, fromCache(dir))
			if w.cached() != 0 || !strings.Contains(w.out.String(), tt.want) {
				t.Errorf("%d cached, want none, and a word of %q\n%s", w.cached(), tt.want, w.out.String())
			}
		})
	}
}

// A layer that is gone or another is found out when somebody needs it: the build
// starts again without the cache.
func TestCacheLayerLies(t *testing.T) {
	tests := []struct {
		name string
		lie  func(path string) error
	}{
		{"gone", os.Remove},
		{"another", func(p string) error { return os.WriteFile(p, []byte("lies"), 0o600) }},
		{"cut short", func(p string) error { return os.Truncate(p, 20) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("a", "one")
			dir := t.TempDir()
			const text = "FROM scratch\nCOPY a /a\n"
			first := w.must(text, localCache(dir))
			for _, e := range entriesOf(t, dir).entries {
				if e.Kind == kindStep && e.Layer != nil {
					if err := tt.lie(filepath.Join(dir, "blobs", "sha256", e.Layer.Digest.Hex)); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.otherStore()
			second := w.must(text+"WORKDIR /w\n", fromCache(dir), localCache(dir))
			if _, rest, ok := strings.Cut(w.out.String(), "building without it"); !ok || strings.Contains(rest, "CACHED\n") || second.ImageID == first.ImageID {
				t.Errorf("want a word and every step done anew\n%s", w.out.String())
			}
			// What was found to be false is stored anew.
			w.otherStore()
			w.must(text+"WORKDIR /w\n", fromCache(dir))
			if w.cached() != 2 || strings.Contains(w.out.String(), "WARN") {
				t.Errorf("after it was stored again: %d cached, want 2\n%s", w.cached(), w.out.String())
			}
		})
	}
}

// A zstd bomb, and an index that is none.
func TestSharedValueIsBounded(t *testing.T) {
	packed, err := packValue(make([]byte, 1<<20+1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpackAtMost(bytes.NewReader(packed), 1<<20); err == nil {
		t.Errorf("%d bytes unpacked to more than the limit", len(packed))
	}
	if data, err := unpackAtMost(bytes.NewReader(packed), 1<<20+1); err != nil || len(data) != 1<<20+1 {
		t.Errorf("at the limit: got %d bytes, error %v", len(data), err)
	}
	if _, err := unpackAtMost(strings.NewReader("no zstd"), 1<<20); err == nil {
		t.Error("unpacked what is no zstd")
	}
	if _, err := decodeInline(strings.Repeat("A", maxInline+1)); err == nil {
		t.Error("an inline cache of any size is read")
	}
}

package build

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
)

var hostPlatform = v1.Platform{OS: "linux", Architecture: "amd64"}

// otherStore gives the world another store, as another machine has one.
func (w *world) otherStore() {
	w.t.Helper()
	s, err := cache.Open(w.t.Context(), filepath.Join(w.t.TempDir(), "store"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.store = s
}

func sharing(dir string) func(*Options) {
	return func(o *Options) { o.CacheRepo = "oci:" + dir }
}

const sharedFile = `FROM scratch AS src
COPY a /a
WORKDIR /made/later
COPY a /made/a
FROM scratch
COPY --from=src /a /made /from/
COPY b /b
`

func TestSharedResults(t *testing.T) {
	w := newWorld(t)
	shelf := filepath.Join(t.TempDir(), "shelf")
	w.write("a", "one")
	w.write("b", "two")
	first := w.must(sharedFile, sharing(shelf))

	// Another machine does nothing and makes the same image.
	w.otherStore()
	second := w.must(sharedFile, sharing(shelf), func(o *Options) { o.CacheReadOnly = true })
	if first.ImageID != second.ImageID {
		t.Errorf("image: got %s, want the first machine's %s\n%s", second.ImageID, first.ImageID, w.out.String())
	}
	if got := strings.Count(w.out.String(), "CACHED\n"); got != 5 {
		t.Errorf("steps from the cache: got %d, want 5\n%s", got, w.out.String())
	}

	// What changed is done on what did not.
	w.otherStore()
	w.write("b", "three")
	w.must(sharedFile, sharing(shelf))
	if got := strings.Count(w.out.String(), "CACHED\n"); got != 4 {
		t.Errorf("steps from the cache after a change: got %d, want 4\n%s", got, w.out.String())
	}

	// A store that has results offers them to a repository that has not.
	empty := filepath.Join(t.TempDir(), "empty")
	w.must(sharedFile, sharing(empty))
	w.otherStore()
	w.must(sharedFile, sharing(empty))
	if got := strings.Count(w.out.String(), "CACHED\n"); got != 5 {
		t.Errorf("steps from an offered cache: got %d, want 5\n%s", got, w.out.String())
	}

	w.otherStore()
	w.must(sharedFile, sharing(shelf), func(o *Options) { o.NoCache = true })
	if strings.Contains(w.out.String(), "CACHED\n") {
		t.Errorf("without a cache: got steps from it\n%s", w.out.String())
	}
}

// LAWS 10, 11, 34: an entry that is not what was asked for, or was made on other
// layers, is a miss.
func TestSharedEntryInDoubtIsAMiss(t *testing.T) {
	key, below := newKey("step").sum(), &fsState{}
	chain, err := below.chainID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := sharedRecord{Kind: kindStep, Key: key, Below: chain, Created: time.Now().Add(-time.Minute).Truncate(time.Second)}
	tests := []struct {
		name   string
		change func(r *sharedRecord)
		ttl    time.Duration
		layers int
		want   bool
	}{
		{"no layer", func(*sharedRecord) {}, 0, 0, true},
		{"one layer", func(*sharedRecord) {}, time.Hour, 1, true},
		{"two layers", func(*sharedRecord) {}, 0, 2, false},
		{"too old", func(*sharedRecord) {}, time.Nanosecond, 0, false},
		{"made long ago and stored now", func(r *sharedRecord) { r.Created = r.Created.Add(-2 * time.Hour) }, time.Hour, 0, false},
		{"done again since", func(r *sharedRecord) { r.Ran = time.Now() }, 30 * time.Second, 0, true},
		{"done long ago", func(r *sharedRecord) { r.Ran = r.Created.Add(-2 * time.Hour) }, time.Hour, 0, false},
		{"of another key", func(r *sharedRecord) { r.Key = newKey("x").sum() }, 0, 0, false},
		{"of another kind", func(r *sharedRecord) { r.Kind = kindAlias }, 0, 0, false},
		{"on other layers", func(r *sharedRecord) { r.Below = newKey("x").sum() }, 0, 1, false},
		{"on no layers", func(r *sharedRecord) { r.Below = "" }, 0, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("a", "one")
			b := w.builder()
			b.opts.Platform = hostPlatform
			b.opts.CacheRepo, b.opts.CacheTTL = "oci:"+t.TempDir(), tt.ttl
			if b.shared, err = openShared(&b.opts); err != nil {
				t.Fatal(err)
			}
			rec := good
			tt.change(&rec)
			img, err := b.sharedImage(rec, nil)
			if layers := someLayers(t, w, tt.layers); err == nil && len(layers) > 0 {
				cfg := *img.Config
				cfg.History = make([]v1.History, len(layers))
				img, err = oci.Assemble(cfg, layers, oci.AssembleOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := b.repo().shelf.put(t.Context(), string(key), img); err != nil {
				t.Fatal(err)
			}
			res, ok := b.adopt(t.Context(), key, below)
			if ok != tt.want || ok && (res.layer != nil) != (tt.layers > 0) {
				t.Errorf("hit: got %v with a layer %v, want %v", ok, res.layer != nil, tt.want)
			}
			if ok && !res.created.Equal(good.Created) {
				t.Errorf("created: got %v, want the step's own time %v", res.created, good.Created)
			}
			if _, ok := b.recorded(t.Context(), key, below); ok {
				t.Error("an entry that nobody has read to its end is in this store")
			}
		})
	}
}

// someLayers makes layers of a build of its own.
func someLayers(t *testing.T, w *world, n int) []oci.Layer {
	t.Helper()
	text := "FROM scratch\n"
	for range n {
		text += "COPY a /a" + strings.Repeat("x", len(text)) + "\n"
	}
	if n == 0 {
		return nil
	}
	dir := t.TempDir()
	w.must(text, func(o *Options) { o.Outputs = []Output{{Type: OutputOCI, Dest: dir}} })
	img, err := oci.OpenLayout(t.Context(), dir, "", hostPlatform)
	if err != nil {
		t.Fatal(err)
	}
	return img.Layers
}

func TestCheckCacheRepo(t *testing.T) {
	tests := []struct {
		text string
		ok   bool
	}{
		{"host.example/a/cache", true},
		{"cache", true},
		{"localhost:5000/cache", true},
		{"oci:/some/where", true},
		{"oci:", false},
		{"host.example/a:tag", false},
		{"host.example/a@sha256:" + strings.Repeat("0", 64), false},
		{"Host/A", false},
		{"", false},
	}
	for _, tt := range tests {
		if err := CheckCacheRepo(tt.text); (err == nil) != tt.ok {
			t.Errorf("%q: got %v, want accepted %v", tt.text, err, tt.ok)
		}
	}
}

// The name of the repository is the one that was given, not with a tag of ours.
func TestCacheRepoName(t *testing.T) {
	for text, want := range map[string]string{"cache": "docker.io/library/cache", "localhost:5000/a/cache": "localhost:5000/a/cache", "oci:x": "oci:x"} {
		c, err := openCacheRepo(&Options{CacheRepo: text})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.shelf.String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// A layer that came from the cache repository is one of ours: it is squashed, and
// its times are rewritten, as on the machine that made it.
func TestSharedLayersAreOurs(t *testing.T) {
	epoch := time.Unix(0, 0)
	tests := []struct {
		name   string
		change func(*Options)
	}{
		{"squashed", func(o *Options) { o.SingleSnapshot = true }},
		{"rewritten", func(o *Options) { o.Epoch, o.Outputs[0].RewriteTimestamp = &epoch, true }},
		{"both", func(o *Options) { o.SingleSnapshot, o.Epoch, o.Outputs[0].RewriteTimestamp = true, &epoch, true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("a", "one")
			w.write("b", "two")
			shelf := t.TempDir()
			var digests []v1.Hash
			for i := range 3 {
				if i > 0 {
					w.otherStore()
				}
				dir := t.TempDir()
				w.must(sharedFile, sharing(shelf), func(o *Options) {
					o.Outputs = []Output{{Type: OutputOCI, Dest: dir}}
					if i == 1 { // the steps alone are known
						return
					}
					tt.change(o)
				})
				img, err := oci.OpenLayout(t.Context(), dir, "", hostPlatform)
				if err != nil {
					t.Fatal(err)
				}
				digests = append(digests, img.Desc.Digest)
			}
			if digests[0] != digests[2] || digests[0] == digests[1] {
				t.Errorf("got %s, plain %s, and on another machine %s; want the first and the last to be the same", digests[0], digests[1], digests[2])
			}
		})
	}
}

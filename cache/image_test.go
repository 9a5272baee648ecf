package cache

import (
	"encoding/json"
	"errors"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/tree"
)

// putImage stores an image of one layer under a name and returns its manifest.
func putImage(t testing.TB, s *Store, name, seed string) v1.Descriptor {
	t.Helper()
	diffID, _ := putLayer(t, s, []byte(seed))
	desc := func(mt types.MediaType, data []byte) v1.Descriptor {
		h, err := v1.NewHash(string(putBlob(t, s, data)))
		if err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{MediaType: mt, Size: int64(len(data)), Digest: h}
	}
	marshal := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	id, err := v1.NewHash(string(diffID))
	if err != nil {
		t.Fatal(err)
	}
	cfg := v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{id}}}
	m := desc(types.OCIManifestSchema1, marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        desc(types.OCIConfigJSON, marshal(cfg)),
		Layers:        []v1.Descriptor{desc(types.OCILayer, []byte("blob of "+seed))},
	}))
	if name != "" {
		if err := s.Tag(name, m); err != nil {
			t.Fatalf("tag: %v", err)
		}
	}
	return m
}

func names(t *testing.T, s *Store) map[string]string {
	t.Helper()
	images, err := s.Images()
	if err != nil {
		t.Fatalf("images: %v", err)
	}
	out := map[string]string{}
	for _, i := range images {
		for _, a := range []string{refNameAnnotation, containerdAnnotation} {
			if i.Desc.Annotations[a] != i.Name {
				t.Errorf("annotation %s: got %q, want %q", a, i.Desc.Annotations[a], i.Name)
			}
		}
		out[i.Name] = i.Desc.Digest.String()
	}
	return out
}

func TestTag(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := putImage(t, s, "", "a"), putImage(t, s, "", "b")
	for _, step := range []struct {
		name string
		do   func() error
		err  error
		want map[string]string
	}{
		{"first", func() error { return s.Tag("x:1", a) }, nil, map[string]string{"x:1": a.Digest.String()}},
		{"again", func() error { return s.Tag("x:1", a) }, nil, map[string]string{"x:1": a.Digest.String()}},
		{"second name", func() error { return s.Tag("y:1", a) }, nil, map[string]string{"x:1": a.Digest.String(), "y:1": a.Digest.String()}},
		{"name moves", func() error { return s.Tag("x:1", b) }, nil, map[string]string{"x:1": b.Digest.String(), "y:1": a.Digest.String()}},
		{"manifest not there", func() error {
			return s.Tag("z:1", v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}})
		}, ErrNotFound, map[string]string{"x:1": b.Digest.String(), "y:1": a.Digest.String()}},
		{"untag", func() error { return s.Untag("x:1") }, nil, map[string]string{"y:1": a.Digest.String()}},
		{"untag again", func() error { return s.Untag("x:1") }, ErrNotFound, map[string]string{"y:1": a.Digest.String()}},
	} {
		if err := step.do(); !errors.Is(err, step.err) {
			t.Errorf("%s: got %v, want %v", step.name, err, step.err)
		}
		if d := cmp.Diff(step.want, names(t, s)); d != "" {
			t.Errorf("%s: names (-want +got):\n%s", step.name, d)
		}
	}
}

func TestTagTogether(t *testing.T) {
	s := open(t, t.TempDir())
	m := putImage(t, s, "", "a")
	other := open(t, s.Dir())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := []*Store{s, other}[i%2].Tag("x:"+string(rune('a'+i)), m); err != nil {
				t.Errorf("tag: %v", err)
			}
		})
	}
	wg.Wait()
	if got := len(names(t, s)); got != 20 {
		t.Errorf("names: got %d, want 20", got)
	}
}

// Other tools read the store as the layout that it is.
func TestLayoutForOtherTools(t *testing.T) {
	s := open(t, t.TempDir())
	m := putImage(t, s, "docker.io/library/app:1.0", "a")
	putImage(t, s, "docker.io/library/app:2.0", "b")
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"skopeo", m.Digest.String(), []string{"skopeo", "inspect", "--format", "{{.Digest}}", "oci:" + s.Dir() + ":docker.io/library/app:1.0"}},
		{"umoci", "docker.io/library/app:2.0", []string{"umoci", "ls", "--layout", s.Dir()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := osexec.LookPath(tt.name); err != nil {
				t.Logf("%s is not installed", tt.name)
				return
			}
			out, err := osexec.CommandContext(t.Context(), tt.args[0], tt.args[1:]...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%q: got %s, %v, want %q", tt.args, out, err, tt.want)
			}
		})
	}
}

func TestImagesOfDamagedIndex(t *testing.T) {
	s := open(t, t.TempDir())
	putImage(t, s, "x:1", "a")
	if err := os.WriteFile(s.path("index.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Images(); err == nil || !strings.Contains(err.Error(), "index.json") {
		t.Errorf("images: got %v, want an error that names index.json", err)
	}
	if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err == nil {
		t.Error("prune: got no error although nobody knows what is named")
	}
	if !s.HasBlob(tree.Digest(putImage(t, s, "", "a").Digest.String())) {
		t.Error("a prune that failed removed a blob")
	}
}

package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	casdir "github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/casext"
)

func writeLayout(t testing.TB, dir string, b *Built, names ...string) {
	t.Helper()
	if err := WriteLayout(t.Context(), dir, names, b); err != nil {
		t.Fatalf("WriteLayout: %v", err)
	}
}

// checkLayers reads every layer to its verified end.
func checkLayers(t testing.TB, img *Image, want int) {
	t.Helper()
	if len(img.Layers) != want {
		t.Errorf("layers: got %d, want %d", len(img.Layers), want)
	}
	for i, l := range img.Layers {
		if _, err := readLayer(t, l); err != nil {
			t.Errorf("layer %d: %v", i, err)
		}
	}
}

func readLayer(t testing.TB, l Layer) ([]byte, error) {
	t.Helper()
	r, err := l.Open(t.Context())
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func TestWriteLayoutIsReadByOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "layout")
	b := build(t, layersOf(t, randomImage(t, 1000, 3)), AssembleOptions{Annotations: map[string]string{"k": "v"}})
	writeLayout(t, dir, b, "app:v1", "reg.example/x/app")

	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatalf("layout.FromPath: %v", err)
	}
	img, err := p.Image(b.Desc.Digest)
	if err != nil {
		t.Fatalf("Image: %v", err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("validate.Image: %v", err)
	}
	engine, err := casdir.Open(dir)
	if err != nil {
		t.Fatalf("umoci: %v", err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Errorf("umoci: %v", err)
		}
	}()
	for _, tag := range []string{"v1", "latest"} {
		paths, err := casext.NewEngine(engine).ResolveReference(t.Context(), tag)
		if err != nil || len(paths) != 1 {
			t.Fatalf("umoci resolves %q: got %v, %v, want one path", tag, paths, err)
		}
		if got, want := paths[0].Descriptor().Digest.String(), b.Desc.Digest.String(); got != want {
			t.Errorf("umoci resolves %q: got %s, want %s", tag, got, want)
		}
	}
	for _, name := range []string{"v1", "docker.io/library/app:v1", "app:v1", "reg.example/x/app:latest", string(b.Digest())} {
		img, err := OpenLayout(t.Context(), dir, name, platform(t, "linux/arm64"))
		if err != nil {
			t.Errorf("OpenLayout %q: %v", name, err)
			continue
		}
		if diff := cmp.Diff(b.RawConfig, img.RawConfig); diff != "" || img.Mismatch != nil {
			t.Errorf("OpenLayout %q: config (-want +got):\n%s mismatch %v", name, diff, img.Mismatch)
		}
		checkLayers(t, img, 3)
	}
}

func TestWrittenImagesAreReadBySkopeo(t *testing.T) {
	if _, err := osexec.LookPath("skopeo"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("skip refused, CI=true: needs skopeo")
		}
		t.Skip("needs skopeo")
	}
	dir := filepath.Join(t.TempDir(), "layout")
	b := build(t, layersOf(t, randomImage(t, 1000, 2)), AssembleOptions{})
	writeLayout(t, dir, b, "app:v1")
	file := archiveOf(t, b, "app:v1")
	for _, src := range []string{"oci:" + dir + ":v1", "oci-archive:" + file, "docker-archive:" + file} {
		out, err := osexec.CommandContext(t.Context(), "skopeo", "--override-arch=arm64", "--override-variant=v8", "inspect", "--config", src).Output()
		if err != nil {
			t.Errorf("skopeo inspect %s: %v", src, err)
			continue
		}
		var got v1.ConfigFile
		if err := json.Unmarshal(out, &got); err != nil || got.Config.WorkingDir != "/w" || len(got.RootFS.DiffIDs) != 2 {
			t.Errorf("skopeo inspect %s: got %s, %v", src, out, err)
		}
	}
}

func archiveOf(t testing.TB, b *Built, names ...string) string {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteArchive(t.Context(), &buf, names, b); err != nil {
		t.Fatalf("WriteArchive: %v", err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// LAWS 27: no time and no order of a map reaches the archive.
func TestWriteArchiveIsDeterministic(t *testing.T) {
	b := build(t, layersOf(t, randomImage(t, 1000, 3)), AssembleOptions{})
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := WriteArchive(t.Context(), w, []string{"b:1", "a:2"}, b); err != nil {
			t.Fatalf("WriteArchive: %v", err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("got two different archives of one image")
	}
	var names []string
	tr := tar.NewReader(&first)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read archive: %v", err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 {
			t.Errorf("%s: got time %v, want 0", h.Name, h.ModTime)
		}
		names = append(names, h.Name)
	}
	got := strings.Join(names[len(names)-3:], " ")
	if want := "index.json manifest.json oci-layout"; got != want || len(names) != 2+3+2+3 {
		t.Errorf("entries: got %v, want 10 that end with %s", names, want)
	}
}

func TestArchiveReadByDockerTools(t *testing.T) {
	b := build(t, layersOf(t, randomImage(t, 1000, 2)), AssembleOptions{})
	file := archiveOf(t, b, "app:v1")
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatalf("tarball.ImageFromPath: %v", err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("validate.Image: %v", err)
	}
}

func TestWriteLayoutKeepsOthers(t *testing.T) {
	dir := t.TempDir()
	one := build(t, layersOf(t, randomImage(t, 100, 1)), AssembleOptions{})
	two := build(t, layersOf(t, randomImage(t, 100, 1)), AssembleOptions{})
	writeLayout(t, dir, one, "app:v1", "app:v2")
	writeLayout(t, dir, two, "app:v2", "other/app:v1")
	writeLayout(t, dir, two, "app:v2")
	for name, want := range map[string]*Built{"docker.io/library/app:v1": one, "app:v2": two, "other/app:v1": two} {
		img, err := OpenLayout(t.Context(), dir, name, amd64)
		if err != nil || img.Desc.Digest != want.Desc.Digest {
			t.Errorf("%s: got %v, %v, want %s", name, img, err, want.Desc.Digest)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	idx, err := parseIndex(raw)
	if err != nil || len(idx.Manifests) != 3 {
		t.Errorf("index.json: got %s, %v, want 3 entries", raw, err)
	}
}

func TestWriteLayoutRepairsDamagedBlobs(t *testing.T) {
	dir := t.TempDir()
	b := build(t, layersOf(t, randomImage(t, 100, 1)), AssembleOptions{})
	writeLayout(t, dir, b, "app")
	d := b.Layers[0].Desc
	must(t, os.WriteFile(filepath.Join(dir, blobPath(d.Digest)), make([]byte, d.Size), 0o600))
	writeLayout(t, dir, b, "app")
	img, err := OpenLayout(t.Context(), dir, "", amd64)
	must(t, err)
	checkLayers(t, img, 1)
}

// A failed write leaves nothing, and an existing layout as it was.
func TestWriteLayoutFailureLeavesNothing(t *testing.T) {
	good := build(t, layersOf(t, randomImage(t, 100, 1)), AssembleOptions{})
	bad := build(t, layersOf(t, randomImage(t, 100, 3)), AssembleOptions{})
	bad.Layers[2].Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("wrong bytes")), nil
	}
	for _, tc := range []struct {
		name  string
		setup func(dir string)
	}{
		{"new", func(string) {}},
		{"empty directory", func(dir string) {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}},
		{"existing", func(dir string) { writeLayout(t, dir, good, "app:v1") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := t.TempDir()
			tc.setup(filepath.Join(base, "out"))
			before := files(t, base)
			err := WriteLayout(t.Context(), filepath.Join(base, "out"), []string{"app:v1"}, bad)
			if !errors.Is(err, ErrDigest) {
				t.Errorf("got %v, want ErrDigest", err)
			}
			if diff := cmp.Diff(before, files(t, base)); diff != "" {
				t.Errorf("files (-before +after):\n%s", diff)
			}
		})
	}
}

func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			out[p] = ""
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWriteRefusesBadNames(t *testing.T) {
	b := build(t, nil, AssembleOptions{})
	for _, name := range []string{"App", "app@sha256:" + someHex} {
		if err := WriteArchive(t.Context(), io.Discard, []string{name}, b); !errors.Is(err, ErrRef) {
			t.Errorf("WriteArchive as %q: got %v, want ErrRef", name, err)
		}
		dir := filepath.Join(t.TempDir(), "x")
		if err := WriteLayout(t.Context(), dir, []string{name}, b); !errors.Is(err, ErrRef) {
			t.Errorf("WriteLayout as %q: got %v, want ErrRef", name, err)
		}
	}
}

func TestWriteArchiveEndsWithContext(t *testing.T) {
	b := build(t, layersOf(t, randomImage(t, 1000, 1)), AssembleOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := WriteArchive(ctx, io.Discard, nil, b); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

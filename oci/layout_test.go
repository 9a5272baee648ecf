package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// imageFor is a random image for one platform.
func imageFor(t testing.TB, p Platform) v1.Image {
	t.Helper()
	img := randomImage(t, 100, 1)
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Variant = p.OS, p.Architecture, p.Variant
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

// multiPlatform is an index with an attestation beside its images.
func multiPlatform(t testing.TB, platforms ...Platform) v1.ImageIndex {
	t.Helper()
	idx, err := random.Index(10, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	add := func(p Platform, annotations map[string]string) {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: imageFor(t, p), Descriptor: v1.Descriptor{Platform: &p, Annotations: annotations},
		})
	}
	add(Platform{OS: "unknown", Architecture: "unknown"}, map[string]string{attestationKey: "attestation-manifest"})
	for _, p := range platforms {
		add(p, nil)
	}
	return idx
}

func newLayout(t testing.TB) (layout.Path, string) {
	t.Helper()
	dir := t.TempDir()
	idx, err := random.Index(10, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := layout.Write(dir, idx)
	if err != nil {
		t.Fatal(err)
	}
	return p, dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenLayoutChooses(t *testing.T) {
	arm := platform(t, "linux/arm64/v8")
	a, b := imageFor(t, amd64), imageFor(t, arm)
	tag := func(name string) layout.Option { return layout.WithAnnotations(map[string]string{refNameKey: name}) }
	for _, tc := range []struct {
		name  string
		fill  func(p layout.Path) error
		tag   string
		want  v1.Image
		error error
		text  string
	}{
		{"the only one", func(p layout.Path) error { return p.AppendImage(a) }, "", a, nil, ""},
		{"the only one, tagged", func(p layout.Path) error { return p.AppendImage(a, tag("v9")) }, "", a, nil, ""},
		{"latest of two", func(p layout.Path) error {
			return errors.Join(p.AppendImage(b, tag("v1")), p.AppendImage(a, tag("latest")))
		}, "", a, nil, ""},
		{"tag", func(p layout.Path) error {
			return errors.Join(p.AppendImage(b, tag("v1")), p.AppendImage(a, tag("v2")))
		}, "v2", a, nil, ""},
		{"no such tag", func(p layout.Path) error {
			return errors.Join(p.AppendImage(b, tag("v1")), p.AppendImage(a, tag("v2")))
		}, "v3", nil, ErrNotFound, "v1, v2"},
		{"several without latest", func(p layout.Path) error {
			return errors.Join(p.AppendImage(b, tag("v1")), p.AppendImage(a, tag("v2")))
		}, "", nil, ErrNotFound, "v1, v2"},
		{"platforms side by side", func(p layout.Path) error {
			return errors.Join(p.AppendImage(b, layout.WithPlatform(arm)), p.AppendImage(a, layout.WithPlatform(amd64)))
		}, "", a, nil, ""},
		{"images without names", func(p layout.Path) error { return errors.Join(p.AppendImage(b), p.AppendImage(a)) }, "", nil, ErrInvalid, "choose one"},
		{"empty", func(layout.Path) error { return nil }, "", nil, ErrNotFound, "no image"},
		{"missing digest", func(p layout.Path) error { return p.AppendImage(a) }, "sha256:" + someHex, nil, ErrNotFound, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, dir := newLayout(t)
			must(t, tc.fill(p))
			img, err := OpenLayout(t.Context(), dir, tc.tag, amd64)
			if tc.error != nil {
				if !errors.Is(err, tc.error) || !strings.Contains(err.Error(), tc.text) {
					t.Fatalf("got %v, want %v with %q", err, tc.error, tc.text)
				}
				return
			}
			if err != nil {
				t.Fatalf("OpenLayout: %v", err)
			}
			want, err := tc.want.Digest()
			must(t, err)
			if img.Desc.Digest != want {
				t.Errorf("got %s, want %s", img.Desc.Digest, want)
			}
			checkLayers(t, img, 1)
		})
	}
}

func TestOpenLayoutIndexAndPlatforms(t *testing.T) {
	p, dir := newLayout(t)
	must(t, p.AppendIndex(multiPlatform(t, platform(t, "linux/arm/v7"), amd64)))
	img, err := OpenLayout(t.Context(), dir, "", amd64)
	must(t, err)
	if img.Config.Architecture != "amd64" || img.Mismatch != nil {
		t.Errorf("got %s, %v, want amd64", img.Config.Architecture, img.Mismatch)
	}
	_, err = OpenLayout(t.Context(), dir, "", platform(t, "linux/s390x"))
	var pe *PlatformError
	if !errors.As(err, &pe) || !errors.Is(err, ErrPlatform) || !strings.HasSuffix(err.Error(), "(available: linux/arm/v7, linux/amd64)") {
		t.Errorf("got %v, want a PlatformError that lists both images and no attestation", err)
	}
}

func TestSingleManifestOfAnotherPlatform(t *testing.T) {
	p, dir := newLayout(t)
	must(t, p.AppendImage(imageFor(t, platform(t, "linux/arm64"))))
	img, err := OpenLayout(t.Context(), dir, "", amd64)
	must(t, err)
	if img.Mismatch == nil || !errors.Is(img.Mismatch, ErrPlatform) {
		t.Errorf("got %v, want a mismatch", img.Mismatch)
	}
}

// hostile writes a layout by hand.
func hostile(t testing.TB, index string, blobs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, indexFile), []byte(index), 0o600))
	for name, data := range blobs {
		must(t, os.WriteFile(filepath.Join(dir, "blobs", "sha256", name), []byte(data), 0o600))
	}
	return dir
}

func entry(mt, digest string, size int) string {
	return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, mt, digest, size)
}

// LAWS 15's neighbour for layouts: what comes from outside is contained.
func TestHostileLayouts(t *testing.T) {
	const mt = string(types.OCIManifestSchema1)
	layerOf := func(mt string) func(t *testing.T) string {
		return func(*testing.T) string {
			cfg := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:` + someHex + `"]}}`
			c := describe([]byte(cfg), types.OCIConfigJSON)
			m := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":"sha256:%s","size":3}]}`,
				c.MediaType, c.Digest, c.Size, mt, someHex)
			d := describe([]byte(m), "")
			return hostile(t, entry("", d.Digest.String(), len(m)), map[string]string{c.Digest.Hex: cfg, d.Digest.Hex: m})
		}
	}
	raw := func(m string) func(t *testing.T) string {
		return func(t *testing.T) string {
			d := describe([]byte(m), "")
			return hostile(t, entry(mt, d.Digest.String(), len(m)), map[string]string{d.Digest.Hex: m})
		}
	}
	for _, tc := range []struct {
		name string
		dir  func(t *testing.T) string
		want error
		text string
	}{
		{"digest with a path", func(t *testing.T) string { return hostile(t, entry(mt, "sha256:../../../etc/passwd", 10), nil) }, ErrInvalid, ""},
		{"no digest", func(t *testing.T) string { return hostile(t, `{"manifests":[{"mediaType":"x","size":1}]}`, nil) }, ErrInvalid, ""},
		{"negative size", func(t *testing.T) string { return hostile(t, entry(mt, "sha256:"+someHex, -1), nil) }, ErrInvalid, ""},
		{"huge manifest", func(t *testing.T) string { return hostile(t, entry(mt, "sha256:"+someHex, 5<<20), nil) }, ErrTooLarge, ""},
		{"huge index", func(t *testing.T) string {
			return hostile(t, `{"manifests":[`+strings.Repeat(" ", 5<<20)+`]}`, nil)
		}, ErrTooLarge, ""},
		{"no JSON", func(t *testing.T) string { return hostile(t, "<html>", nil) }, ErrInvalid, ""},
		{"no layout", func(t *testing.T) string { return t.TempDir() }, ErrNotFound, "no OCI layout"},
		{"missing blob", func(t *testing.T) string { return hostile(t, entry(mt, "sha256:"+someHex, 10), nil) }, ErrNotFound, ""},
		{"wrong blob", func(t *testing.T) string {
			return hostile(t, entry(mt, "sha256:"+someHex, 2), map[string]string{someHex: "{}"})
		}, ErrDigest, ""},
		{"longer blob", func(t *testing.T) string {
			return hostile(t, entry(mt, "sha256:"+someHex, 2), map[string]string{someHex: "{}  "})
		}, ErrDigest, "longer"},
		{"shorter blob", func(t *testing.T) string {
			return hostile(t, entry(mt, "sha256:"+someHex, 9), map[string]string{someHex: "{}"})
		}, ErrDigest, "7 bytes are missing"},
		{"fifo as a blob", func(t *testing.T) string {
			dir := hostile(t, entry(mt, "sha256:"+someHex, 2), nil)
			must(t, unix.Mkfifo(filepath.Join(dir, "blobs", "sha256", someHex), 0o600))
			return dir
		}, ErrInvalid, "not a regular file"},
		{"device as a blob", func(t *testing.T) string {
			dir := hostile(t, entry(mt, "sha256:"+someHex, 2), nil)
			must(t, os.Symlink("/dev/zero", filepath.Join(dir, "blobs", "sha256", someHex)))
			return dir
		}, ErrInvalid, "not a regular file"},
		{"schema 1", raw(`{"schemaVersion":1,"fsLayers":[]}`), ErrUnsupported, "schema 1"},
		{"index and image at once", raw(`{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}`), ErrInvalid, "at once"},
		{"neither", raw(`{"schemaVersion":2}`), ErrInvalid, "neither"},
		{"index called an image", raw(`{"schemaVersion":2,"mediaType":"` + mt + `","manifests":[]}`), ErrInvalid, ""},
		{"artifact", raw(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:` + someHex + `","size":2},"layers":[]}`), ErrUnsupported, "helm"},
		{"foreign layer", layerOf(string(types.DockerForeignLayer)), ErrUnsupported, "non-distributable"},
		{"restricted layer", layerOf(string(types.OCIUncompressedRestrictedLayer)), ErrUnsupported, "non-distributable"},
		{"encrypted layer", layerOf("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), ErrUnsupported, "encrypted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := OpenLayout(t.Context(), tc.dir(t), "", amd64)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %v with %q", err, tc.want, tc.text)
			}
		})
	}
}

func TestDiffIDsMustMatchLayers(t *testing.T) {
	img := randomImage(t, 10, 2)
	cfg, err := img.ConfigFile()
	must(t, err)
	m, err := img.Manifest()
	must(t, err)
	m = m.DeepCopy()
	m.Layers = m.Layers[:1]
	raw, err := json.Marshal(m)
	must(t, err)
	rawConfig, err := json.Marshal(cfg)
	must(t, err)
	d := describe(raw, m.MediaType)
	dir := hostile(t, entry(string(m.MediaType), d.Digest.String(), len(raw)), map[string]string{d.Digest.Hex: string(raw), m.Config.Digest.Hex: string(rawConfig)})
	if _, err := OpenLayout(t.Context(), dir, "", amd64); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "config lists 2 layers, manifest 1") {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestNestedIndexesEnd(t *testing.T) {
	// An index cannot hold itself, but a chain may be long.
	blobs := map[string]string{}
	raw := `{"schemaVersion":2,"manifests":[]}`
	for range 10 {
		d := describe([]byte(raw), types.OCIImageIndex)
		blobs[d.Digest.Hex] = raw
		raw = entry(string(d.MediaType), d.Digest.String(), len(raw))
	}
	if _, err := OpenLayout(t.Context(), hostile(t, raw, blobs), "", amd64); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "nested") {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func gzipFile(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	_, err = zw.Write(data)
	must(t, errors.Join(err, zw.Close()))
	must(t, os.WriteFile(file+".gz", buf.Bytes(), 0o600))
	return file + ".gz"
}

func TestOpenArchiveOCI(t *testing.T) {
	b := build(t, layersOf(t, randomImage(t, 1000, 2)), AssembleOptions{})
	file := archiveOf(t, b, "app:v1")
	for _, f := range []string{file, gzipFile(t, file)} {
		for _, name := range []string{"", "v1", "app:v1", string(b.Digest())} {
			img, err := OpenArchive(t.Context(), f, name, platform(t, "linux/arm64"))
			if err != nil {
				t.Errorf("OpenArchive %s %q: %v", filepath.Base(f), name, err)
				continue
			}
			if img.Desc.Digest != b.Desc.Digest {
				t.Errorf("OpenArchive %s %q: got %s, want %s", filepath.Base(f), name, img.Desc.Digest, b.Desc.Digest)
			}
			checkLayers(t, img, 2)
		}
		if _, err := OpenArchive(t.Context(), f, "v2", amd64); !errors.Is(err, ErrNotFound) {
			t.Errorf("OpenArchive %s v2: got %v, want ErrNotFound", filepath.Base(f), err)
		}
	}
}

func TestOpenArchiveDockerSave(t *testing.T) {
	one, two := imageFor(t, amd64), randomImage(t, 1000, 3)
	file := filepath.Join(t.TempDir(), "save.tar")
	must(t, tarball.MultiWriteToFile(file, map[name.Tag]v1.Image{name.MustParseReference("app:v1").(name.Tag): one, name.MustParseReference("reg.example/b:v2").(name.Tag): two}))
	for _, f := range []string{file, gzipFile(t, file)} {
		for tag, want := range map[string]v1.Image{"v1": one, "app:v1": one, "reg.example/b:v2": two} {
			img, err := OpenArchive(t.Context(), f, tag, amd64)
			if err != nil {
				t.Errorf("OpenArchive %q: %v", tag, err)
				continue
			}
			cfg, err := want.RawConfigFile()
			must(t, err)
			layers, err := want.Layers()
			must(t, err)
			if !bytes.Equal(img.RawConfig, cfg) {
				t.Errorf("OpenArchive %q: got config %s, want %s", tag, img.RawConfig, cfg)
			}
			checkLayers(t, img, len(layers))
		}
		if _, err := OpenArchive(t.Context(), f, "", amd64); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "v1") {
			t.Errorf("OpenArchive of two: got %v, want ErrNotFound with the names", err)
		}
	}
}

// docker before 25 wrote plain layer.tar files, repeated ones as symlinks.
func TestOpenArchiveOldDockerSave(t *testing.T) {
	layer := []byte("not really a tar, but plain")
	d := describe(layer, "")
	cfg := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q,%q]}}`, d.Digest, d.Digest)
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range []struct{ name, data, link string }{
		{"aa/layer.tar", string(layer), ""},
		{"bb/layer.tar", "", "../aa/layer.tar"},
		{"cfg.json", cfg, ""},
		{"manifest.json", `[{"Config":"cfg.json","RepoTags":null,"Layers":["aa/layer.tar","bb/layer.tar"]}]`, ""},
	} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o644}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		must(t, tw.WriteHeader(h))
		_, err := tw.Write([]byte(f.data))
		must(t, err)
	}
	must(t, tw.Close())
	file := filepath.Join(t.TempDir(), "old.tar")
	must(t, os.WriteFile(file, buf.Bytes(), 0o600))
	img, err := OpenArchive(t.Context(), file, "", amd64)
	must(t, err)
	for _, l := range img.Layers {
		if got, err := readLayer(t, l); err != nil || !bytes.Equal(got, layer) {
			t.Errorf("layer: got %q, %v, want %q", got, err, layer)
		}
	}
	if got := img.Manifest.Layers[0].MediaType; got != types.DockerUncompressedLayer {
		t.Errorf("media type: got %s, want %s", got, types.DockerUncompressedLayer)
	}
}

func TestOpenArchiveRefuses(t *testing.T) {
	tarOf := func(names ...string) []byte {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for _, n := range names {
			must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: n, Linkname: n}))
		}
		must(t, tw.Close())
		return buf.Bytes()
	}
	for _, tc := range []struct {
		name string
		data []byte
		want error
	}{
		{"text", []byte(strings.Repeat("no tar ", 200)), ErrInvalid},
		{"gzip cut off", []byte{0x1f, 0x8b, 8, 0}, ErrInvalid},
		{"no image", tarOf("etc/passwd"), ErrInvalid},
		{"empty", nil, ErrInvalid},
		{"link to itself", tarOf(indexFile), ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.tar")
			must(t, os.WriteFile(file, tc.data, 0o600))
			if _, err := OpenArchive(t.Context(), file, "", amd64); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := OpenArchive(t.Context(), filepath.Join(t.TempDir(), "none"), "", amd64); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing file: got %v, want ErrNotFound", err)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(entry(string(types.OCIImageIndex), "sha256:"+someHex, 3)), "v1")
	f.Add([]byte(`{"manifests":[{"digest":"sha256:../x","size":1}]}`), "")
	f.Add([]byte(`{"manifests":[{"digest":"sha256:`+someHex+`","size":1,"annotations":{"org.opencontainers.image.ref.name":"a:b"}}]}`), "b")
	f.Fuzz(func(t *testing.T, raw []byte, want string) {
		if _, err := kind(raw, ""); err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("kind: got %v", err)
		}
		idx, err := parseIndex(raw)
		if err != nil {
			return
		}
		l := &layoutReader{size: func(v1.Hash) (int64, error) { return 0, ErrNotFound }}
		list, err := l.find(idx, want)
		if err == nil && len(list) == 0 {
			t.Fatal("find: got no entry and no error")
		}
		for _, d := range list {
			if p := filepath.Clean(blobPath(d.Digest)); !strings.HasPrefix(p, "blobs/sha") || strings.Count(p, "/") != 2 {
				t.Fatalf("blob path %q leaves the layout", p)
			}
		}
	})
}

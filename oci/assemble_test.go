package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/tree"
)

var amd64 = Platform{OS: "linux", Architecture: "amd64"}

// layersOf turns the layers of a go-containerregistry image into ours.
func layersOf(t testing.TB, img v1.Image) []Layer {
	t.Helper()
	list, err := img.Layers()
	if err != nil {
		t.Fatalf("layers: %v", err)
	}
	var out []Layer
	for _, l := range list {
		d, err1 := l.Digest()
		diff, err2 := l.DiffID()
		size, err3 := l.Size()
		mt, err4 := l.MediaType()
		for _, err := range []error{err1, err2, err3, err4} {
			if err != nil {
				t.Fatalf("describe layer: %v", err)
			}
		}
		out = append(out, Layer{
			Desc: v1.Descriptor{MediaType: mt, Size: size, Digest: d}, DiffID: tree.Digest(diff.String()),
			Open: func(context.Context) (io.ReadCloser, error) { return l.Compressed() },
		})
	}
	return out
}

func randomImage(t testing.TB, size int64, layers int) v1.Image {
	t.Helper()
	img, err := random.Image(size, int64(layers))
	if err != nil {
		t.Fatalf("random image: %v", err)
	}
	return img
}

func sampleConfig(layers int) v1.ConfigFile {
	created := v1.Time{Time: time.Date(2024, 5, 6, 7, 8, 9, 0, time.FixedZone("X", 3600))}
	c := v1.ConfigFile{
		Architecture: "arm64", OS: "linux", Variant: "v8", Author: "me", Created: created,
		Config: v1.Config{
			User: "app", Env: []string{"B=2", "A=1"}, Cmd: []string{"sh", "-c", "a && b"}, ArgsEscaped: true,
			Labels: map[string]string{"z": "1", "a": "2"}, WorkingDir: "/w", StopSignal: "SIGINT",
			Volumes: map[string]struct{}{"/v": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
			Entrypoint: []string{"/e"}, Shell: []string{"/bin/sh", "-c"}, OnBuild: []string{"RUN x"},
			Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "x"}, Interval: time.Second, Retries: 3},
			Hostname:    "never written", Image: "never written",
		},
	}
	for range layers {
		c.History = append(c.History, v1.History{Created: created, CreatedBy: "RUN x", Comment: "buildkit.dockerfile.v0"})
	}
	c.History = append(c.History, v1.History{Created: created, CreatedBy: "CMD x", EmptyLayer: true})
	return c
}

func build(t testing.TB, layers []Layer, o AssembleOptions) *Built {
	t.Helper()
	b, err := Assemble(sampleConfig(len(layers)), layers, o)
	if err != nil {
		t.Fatalf("Assemble: %v", err)
	}
	return b
}

func TestAssembleWritesConfigAsBuildKit(t *testing.T) {
	layers := layersOf(t, randomImage(t, 100, 1))
	b := build(t, layers, AssembleOptions{StartInterval: 2 * time.Second})
	want := `{"architecture":"arm64","author":"me","config":{"User":"app","ExposedPorts":{"80/tcp":{}},"Env":["B=2","A=1"],` +
		`"Entrypoint":["/e"],"Cmd":["sh","-c","a \u0026\u0026 b"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"2","z":"1"},` +
		`"StopSignal":"SIGINT","ArgsEscaped":true,"Healthcheck":{"Test":["CMD","x"],"Interval":1000000000,"StartInterval":2000000000,"Retries":3},` +
		`"OnBuild":["RUN x"],"Shell":["/bin/sh","-c"]},"created":"2024-05-06T06:08:09Z",` +
		`"history":[{"created":"2024-05-06T06:08:09Z","created_by":"RUN x","comment":"buildkit.dockerfile.v0"},` +
		`{"created":"2024-05-06T06:08:09Z","created_by":"CMD x","empty_layer":true}],"os":"linux",` +
		`"rootfs":{"type":"layers","diff_ids":["` + string(layers[0].DiffID) + `"]},"variant":"v8"}`
	if diff := cmp.Diff(want, string(b.RawConfig)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got := startInterval(b.RawConfig); got != 2*time.Second {
		t.Errorf("start interval: got %v, want 2s", got)
	}
}

// LAWS 27: the same input gives the same bytes.
func TestAssembleIsDeterministic(t *testing.T) {
	layers := layersOf(t, randomImage(t, 100, 3))
	o := AssembleOptions{Annotations: map[string]string{"b": "1", "a": "2", "c": "3"}}
	first := build(t, layers, o)
	for range 20 {
		b := build(t, layers, o)
		if !bytes.Equal(b.RawManifest, first.RawManifest) || !bytes.Equal(b.RawConfig, first.RawConfig) {
			t.Fatalf("got different bytes:\n%s\n%s", b.RawManifest, first.RawManifest)
		}
	}
}

func TestAssembleConvertsMediaTypes(t *testing.T) {
	layers := layersOf(t, randomImage(t, 100, 3))
	layers[0].Desc.MediaType = types.DockerLayer
	layers[0].Desc.Annotations = map[string]string{"kept": "yes"}
	layers[1].Desc.MediaType = types.DockerUncompressedLayer
	layers[2].Desc.MediaType = types.OCILayerZStd
	for _, tc := range []struct {
		name             string
		docker           bool
		manifest, config types.MediaType
		layers           []types.MediaType
	}{
		{"oci", false, types.OCIManifestSchema1, types.OCIConfigJSON, []types.MediaType{types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd}},
		{"docker", true, types.DockerManifestSchema2, types.DockerConfigJSON, []types.MediaType{types.DockerLayer, types.DockerUncompressedLayer, dockerZstd}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := build(t, layers, AssembleOptions{DockerMediaTypes: tc.docker})
			var m v1.Manifest
			if err := json.Unmarshal(b.RawManifest, &m); err != nil {
				t.Fatalf("parse manifest: %v", err)
			}
			if m.MediaType != tc.manifest || b.Desc.MediaType != tc.manifest || m.Config.MediaType != tc.config {
				t.Errorf("got %s, %s, %s, want %s and %s", m.MediaType, b.Desc.MediaType, m.Config.MediaType, tc.manifest, tc.config)
			}
			for i, want := range tc.layers {
				if got := m.Layers[i]; got.MediaType != want || got.Digest != layers[i].Desc.Digest || got.Size != layers[i].Desc.Size {
					t.Errorf("layer %d: got %v, want type %s and the same blob", i, got, want)
				}
			}
			if got := m.Layers[0].Annotations["kept"]; got != "yes" {
				t.Errorf("annotation of base layer: got %q, want yes", got)
			}
		})
	}
}

func TestAssembleRefuses(t *testing.T) {
	layers := layersOf(t, randomImage(t, 100, 2))
	foreign := layersOf(t, randomImage(t, 100, 1))
	foreign[0].Desc.MediaType = types.DockerForeignLayer
	noDiffID := layersOf(t, randomImage(t, 100, 1))
	noDiffID[0].DiffID = "sha256:1"
	for _, tc := range []struct {
		name   string
		cfg    v1.ConfigFile
		layers []Layer
		want   string
	}{
		{"history too short", sampleConfig(1), layers, "history has 1 layers, the image 2"},
		{"history too long", sampleConfig(3), layers, "history has 3 layers, the image 2"},
		{"foreign layer", sampleConfig(1), foreign, "non-distributable"},
		{"bad diff id", sampleConfig(1), noDiffID, "bad diff id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Assemble(tc.cfg, tc.layers, AssembleOptions{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestAlignHistory(t *testing.T) {
	full, empty := v1.History{CreatedBy: "x"}, v1.History{CreatedBy: "y", EmptyLayer: true}
	for _, tc := range []struct {
		name    string
		history []v1.History
		layers  int
		want    []bool // EmptyLayer of each
	}{
		{"right", []v1.History{full, empty, full}, 2, []bool{false, true, false}},
		{"none", nil, 2, []bool{false, false}},
		{"too few", []v1.History{full, empty}, 2, []bool{false, true, false}},
		{"too many", []v1.History{full, empty, full}, 1, []bool{true, true, false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &v1.ConfigFile{History: tc.history, RootFS: v1.RootFS{DiffIDs: make([]v1.Hash, tc.layers)}}
			alignHistory(c)
			var got []bool
			for _, h := range c.History {
				got = append(got, h.EmptyLayer)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("empty entries (-want +got):\n%s", diff)
			}
		})
	}
}

package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

var linux = oci.Platform{OS: "linux", Architecture: "amd64"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, dir string) *cache.Store {
	t.Helper()
	s, err := cache.Open(t.Context(), dir)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t testing.TB) *cache.Store {
	t.Helper()
	return openStore(t, filepath.Join(t.TempDir(), "store"))
}

// gzipLayer is a layer of one file.
func gzipLayer(t testing.TB, name string, size int) oci.Layer {
	t.Helper()
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	must(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(size), Mode: 0o644}))
	data := make([]byte, size)
	_, err := rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(data)
	must(t, err)
	_, err = tw.Write(data)
	must(t, err)
	must(t, tw.Close())
	zw := gzip.NewWriter(&packed)
	_, err = zw.Write(plain.Bytes())
	must(t, err)
	must(t, zw.Close())
	diffID, _, err := v1.SHA256(&plain)
	must(t, err)
	digest, n, err := v1.SHA256(bytes.NewReader(packed.Bytes()))
	must(t, err)
	return oci.Layer{
		Desc: v1.Descriptor{MediaType: types.OCILayer, Size: n, Digest: digest}, DiffID: tree.Digest(diffID.String()),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
		},
	}
}

func assemble(t testing.TB, layers ...oci.Layer) *oci.Built {
	t.Helper()
	img, err := oci.Assemble(v1.ConfigFile{OS: "linux", Architecture: "amd64", History: make([]v1.History, len(layers))}, layers, oci.AssembleOptions{})
	must(t, err)
	return img
}

// server is a registry whose answers a test can replace, by returning true.
type server struct {
	host string

	mu        sync.Mutex // guards what follows
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		intercept := s.intercept
		s.mu.Unlock()
		if intercept == nil || !intercept(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(web.Close)
	s.host = strings.TrimPrefix(web.URL, "http://")
	return s
}

func (s *server) push(t testing.TB, name string, img *oci.Built) {
	t.Helper()
	_, err := remote(t, oci.RemoteOptions{}).Push(t.Context(), []string{s.host + "/" + name}, img, nil)
	must(t, err)
}

func remote(t testing.TB, o oci.RemoteOptions) *oci.Remote {
	t.Helper()
	o.ConfigDir, o.CertDirs = t.TempDir(), []string{}
	r := oci.NewRemote(o)
	t.Cleanup(r.Close)
	return r
}

// said keeps what a pull warns of.
type said struct {
	mu    sync.Mutex
	warns []string
}

func (s *said) Status(string, int64, int64, bool) {}

func (s *said) Warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warns = append(s.warns, text)
}

// An image of an archive that names none is there by its ID, until it is removed.
func TestLoadWithoutName(t *testing.T) {
	img := assemble(t, gzipLayer(t, "a", 100))
	file := filepath.Join(t.TempDir(), "a.tar")
	f, err := os.Create(file)
	must(t, err)
	must(t, oci.WriteDockerArchive(t.Context(), f, oci.Saved{Image: img}))
	must(t, f.Close())
	dir := filepath.Join(t.TempDir(), "store")
	s, err := cache.Open(t.Context(), dir)
	must(t, err)
	loaded, err := image.Load(t.Context(), s, file, linux)
	must(t, err)
	must(t, s.Close())
	if len(loaded) != 1 || len(loaded[0].Names) != 0 {
		t.Fatalf("loaded: got %+v, want one image without a name", loaded)
	}
	s = openStore(t, dir)
	id := loaded[0].ID()
	for _, text := range []string{id, strings.TrimPrefix(id, "sha256:")[:12]} {
		got, err := image.Find(t.Context(), s, text)
		if err != nil || got.ID() != id || len(got.Names) != 0 {
			t.Errorf("find %s: got %+v, error %v", text, got, err)
		}
	}
	all, err := image.All(t.Context(), s)
	if err != nil || len(all) != 1 {
		t.Errorf("all: got %d images, error %v, want 1", len(all), err)
	}
	named, err := image.List(t.Context(), s)
	if err != nil || len(named) != 0 {
		t.Errorf("with names: got %d images, error %v, want none", len(named), err)
	}
	must(t, image.Tag(s, loaded[0], "a:1"))
	if gone, err := image.Forget(t.Context(), s, loaded[0]); gone || err != nil {
		t.Errorf("forget one with a name: got %v, %v, want no", gone, err)
	}
	must(t, s.Untag("docker.io/library/a:1"))
	if gone, err := image.Forget(t.Context(), s, loaded[0]); !gone || err != nil {
		t.Errorf("forget: got %v, %v, want yes", gone, err)
	}
	if _, err := image.Find(t.Context(), s, id); !errors.Is(err, image.ErrNoImage) {
		t.Errorf("find what was forgotten: got %v, want %v", err, image.ErrNoImage)
	}
}

// What a layer unpacks to must be what the config says, at the first pull and when the
// blob is here already.
func TestPullChecksDiffIDs(t *testing.T) {
	good, other := gzipLayer(t, "a", 100), gzipLayer(t, "b", 100)
	lies := good
	lies.DiffID = other.DiffID
	web := newServer(t)
	web.push(t, "good:1", assemble(t, good))
	web.push(t, "lies:1", assemble(t, lies))
	r := remote(t, oci.RemoteOptions{})
	for _, order := range [][]string{{"lies:1"}, {"good:1", "lies:1"}} {
		s := newStore(t)
		var err error
		for _, name := range order {
			_, err = image.Pull(t.Context(), s, r, web.host+"/"+name, linux, &said{})
		}
		if !errors.Is(err, oci.ErrDigest) || !strings.Contains(err.Error(), string(other.DiffID)) {
			t.Errorf("%v: got %v, want %v with %s", order, err, oci.ErrDigest, other.DiffID)
		}
		if list, err := image.List(t.Context(), s); err != nil || len(list) != len(order)-1 {
			t.Errorf("%v: got %d images, error %v, want %d", order, len(list), err, len(order)-1)
		}
	}
}

// What a damaged blob of the store gives is not remembered as what the layer is.
func TestPullForgetsDamagedBlob(t *testing.T) {
	srv := newServer(t)
	img, other := assemble(t, gzipLayer(t, "a", 3000)), gzipLayer(t, "b", 3000)
	srv.push(t, "app:1", img)
	s := newStore(t)
	pull := func() error {
		_, err := image.Pull(t.Context(), s, remote(t, oci.RemoteOptions{}), srv.host+"/app:1", linux, &said{})
		return err
	}
	bytesOf := func(l oci.Layer) []byte {
		r, err := l.Open(t.Context())
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, errors.Join(err, r.Close()))
		return data
	}
	_, err := s.PutBlob(bytes.NewReader(bytesOf(img.Layers[0])), "")
	must(t, err)
	blob := filepath.Join(s.Dir(), "blobs", "sha256", img.Layers[0].Desc.Digest.Hex)
	must(t, os.Chmod(blob, 0o600))
	must(t, os.WriteFile(blob, bytesOf(other), 0o600))
	if err := pull(); !errors.Is(err, oci.ErrDigest) {
		t.Errorf("damaged: got %v, want %v", err, oci.ErrDigest)
	}
	must(t, os.WriteFile(blob, bytesOf(img.Layers[0]), 0o600))
	if err := pull(); err != nil {
		t.Errorf("the blob as it should be: got %v", err)
	}
}

// A mirror whose copy is damaged, or ends early, is left for the origin, aloud.
func TestPullPastDamagedMirror(t *testing.T) {
	l := gzipLayer(t, "a", 1000)
	img := assemble(t, l)
	for name, spoil := range map[string]func(w http.ResponseWriter, data []byte){
		"other bytes": func(w http.ResponseWriter, data []byte) { _, _ = w.Write(bytes.Repeat([]byte{7}, len(data))) },
		"one bit":     func(w http.ResponseWriter, data []byte) { data[len(data)-20] ^= 1; _, _ = w.Write(data) },
		"shorter":     func(w http.ResponseWriter, data []byte) { _, _ = w.Write(data[:len(data)-1]) },
	} {
		for what, d := range map[string]v1.Descriptor{"layer": l.Desc, "config": img.Manifest.Config} {
			t.Run(name+" of the "+what, func(t *testing.T) {
				origin, mirror := newServer(t), newServer(t)
				origin.push(t, "app:1", img)
				mirror.push(t, "app:1", img)
				data := img.RawConfig
				if what == "layer" {
					rc, err := l.Open(t.Context())
					must(t, err)
					data, err = io.ReadAll(rc)
					must(t, err)
				}
				mirror.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, d.Digest.String()) {
						return false
					}
					spoil(w, bytes.Clone(data))
					return true
				}
				s, heard := newStore(t), &said{}
				r := remote(t, oci.RemoteOptions{Mirrors: []oci.Mirror{{Host: origin.host, At: mirror.host}}})
				got, err := image.Pull(t.Context(), s, r, origin.host+"/app:1", linux, heard)
				must(t, err)
				if got.Desc.Digest != img.Desc.Digest {
					t.Errorf("got %s, want %s", got.Desc.Digest, img.Desc.Digest)
				}
				if what == "layer" && (len(heard.warns) != 1 || !strings.Contains(heard.warns[0], mirror.host)) {
					t.Errorf("warnings: got %q, want one with %s", heard.warns, mirror.host)
				}
				r = remote(t, oci.RemoteOptions{MirrorsOnly: true, Mirrors: []oci.Mirror{{Host: origin.host, At: mirror.host}}})
				if _, err := image.Pull(t.Context(), newStore(t), r, origin.host+"/app:1", linux, &said{}); !errors.Is(err, oci.ErrDigest) {
					t.Errorf("with no other place: got %v, want %v", err, oci.ErrDigest)
				}
			})
		}
	}
}

// Twenty layers over connections that break in the middle, by two pulls at once: all is
// there, and no layer was begun twice.
func TestPullManyLayersWithCuts(t *testing.T) {
	var layers []oci.Layer
	for i := range 20 {
		layers = append(layers, gzipLayer(t, fmt.Sprintf("file%d", i), 100_000))
	}
	img := assemble(t, layers...)
	web := newServer(t)
	web.push(t, "app:1", img)
	sizes := map[string]int64{}
	for _, l := range layers {
		sizes[l.Desc.Digest.String()] = l.Desc.Size
	}
	var mu sync.Mutex
	begun, resumed := map[string]int{}, map[string]int{}
	web.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		size, ok := sizes[id]
		if !ok || r.Method != http.MethodGet {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Range") != "" {
			resumed[id]++
			return false
		}
		begun[id]++
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for _, l := range layers {
			if l.Desc.Digest.String() == id {
				rc, _ := l.Open(r.Context())
				_, _ = io.CopyN(w, rc, size/2)
			}
		}
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	dir := filepath.Join(t.TempDir(), "store")
	var wg sync.WaitGroup
	for range 2 {
		s := openStore(t, dir)
		wg.Go(func() {
			r := remote(t, oci.RemoteOptions{})
			if _, err := image.Pull(t.Context(), s, r, web.host+"/app:1", linux, &said{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for id := range sizes {
		if begun[id] != 1 || resumed[id] != 1 {
			t.Errorf("layer %s: begun %d times and taken up %d times, want once each", id, begun[id], resumed[id])
		}
	}
	s := openStore(t, dir)
	got, err := image.Find(t.Context(), s, web.host+"/app:1")
	must(t, err)
	if _, err := image.Tree(t.Context(), s, &got.Built); err != nil {
		t.Error(err)
	}
}

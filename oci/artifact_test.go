package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const artifactType types.MediaType = "application/vnd.example.v1+json"

func publish(t *testing.T, a *LayoutArtifact, texts ...string) (blobs []v1.Descriptor) {
	t.Helper()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, text := range texts {
		b := MemoryBlob([]byte(text), artifactType)
		if err := a.Add(t.Context(), b, nil); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			m.Config = b.Desc
		} else {
			m.Layers = append(m.Layers, b.Desc)
		}
		blobs = append(blobs, b.Desc)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Publish(t.Context(), raw, m.MediaType); err != nil {
		t.Fatal(err)
	}
	return blobs
}

// A manifest under a tag, and the blobs of the one before it that nothing needs.
func TestLayoutArtifact(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a, other := OpenLayoutArtifact(dir, "latest"), OpenLayoutArtifact(dir, "other")
	if _, _, err := a.Manifest(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing there: got %v, want ErrNotFound", err)
	}
	unlock, err := a.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	first := publish(t, a, "{}", "shared", "mine")
	publish(t, other, "{\"o\":1}", "shared", "theirs")
	_, desc, err := a.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := publish(t, a, "{}", "new")
	has := func(d v1.Descriptor) bool {
		r, err := a.Open(t.Context(), d)
		if err != nil {
			return false
		}
		_, err = io.Copy(io.Discard, r)
		return errors.Join(err, r.Close()) == nil
	}
	if !has(first[0]) || !has(first[1]) || !has(second[1]) {
		t.Error("a blob that is needed is gone")
	}
	if has(first[2]) || has(desc) {
		t.Error("what nothing needs any more is still there")
	}
	if raw, _, err := other.Manifest(t.Context()); err != nil || !bytes.Contains(raw, []byte("layers")) {
		t.Errorf("another tag: got %q, error %v", raw, err)
	}
	// One that was damaged is written again.
	p := filepath.Join(dir, blobPath(second[1].Digest))
	if err := os.WriteFile(p, []byte("bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	if has(second[1]) {
		t.Error("a damaged blob was read")
	}
	if err := a.Add(t.Context(), MemoryBlob([]byte("new"), artifactType), nil); err != nil || !has(second[1]) {
		t.Errorf("a damaged blob was left alone, error %v", err)
	}
}

// Where the layout has something that cannot be understood nothing is removed.
func TestLayoutArtifactKeepsWhatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	a := OpenLayoutArtifact(dir, "latest")
	unlock, err := a.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unlock() }()
	first := publish(t, a, "{}", "one")
	odd := OpenLayoutArtifact(dir, "odd")
	if err := odd.Publish(t.Context(), []byte("no json"), "text/plain"); err != nil {
		t.Fatal(err)
	}
	publish(t, a, "{}", "two")
	if _, err := os.Stat(filepath.Join(dir, blobPath(first[1].Digest))); err != nil {
		t.Errorf("removed: %v", err)
	}
}

func TestRemoteArtifact(t *testing.T) {
	s := newRegistry(t)
	r := testRemote(t, RemoteOptions{})
	a, err := r.Artifact(s.host + "/cache:main")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Manifest(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing there: got %v, want ErrNotFound", err)
	}
	b := MemoryBlob([]byte("one"), artifactType)
	var states []PushState
	for range 2 {
		if err := a.Add(t.Context(), b, func(s Status) { states = append(states, s.State) }); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(states); n == 0 || states[n-1] != Exists || states[n-2] != Pushed {
		t.Errorf("states: got %v, want the blob to be pushed, then to exist", states)
	}
	// Another repository of the registry mounts it.
	other, err := r.Artifact(s.host + "/second:main")
	if err != nil {
		t.Fatal(err)
	}
	b.Repo, states = a.Repo(), nil
	s.handle(func(w http.ResponseWriter, r *http.Request) bool { // its blobs are those of all repositories
		switch {
		case !strings.HasPrefix(r.URL.Path, "/v2/second/"):
			return false
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
			return true
		case r.Method == http.MethodPost && r.URL.Query().Get("from") == "cache":
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	if err := other.Add(t.Context(), b, func(s Status) { states = append(states, s.State) }); err != nil {
		t.Fatal(err)
	}
	if len(states) != 1 || states[0] != Mounted {
		t.Errorf("states: got %v, want the blob to be mounted", states)
	}
	raw, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: b.Desc})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Publish(t.Context(), raw, types.OCIManifestSchema1); err != nil {
		t.Fatal(err)
	}
	got, _, err := a.Manifest(t.Context())
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("manifest: got %q, error %v, want what was sent", got, err)
	}
	rc, err := a.Open(t.Context(), b.Desc)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil || string(data) != "one" {
		t.Errorf("blob: got %q, error %v", data, err)
	}
	pinned, err := r.Artifact(s.host + "/cache@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	if err := pinned.Publish(t.Context(), raw, types.OCIManifestSchema1); !errors.Is(err, ErrRef) {
		t.Errorf("publish under a digest: got %v, want ErrRef", err)
	}
}

// What a writer that was killed left in a layout goes with a later one, unless somebody
// may be writing it.
func TestLayoutLosesWhatKilledWritersLeft(t *testing.T) {
	dir := t.TempDir()
	a := OpenLayoutArtifact(dir, "latest")
	publish(t, a, "{}", "one")
	stale, young, other := filepath.Join(dir, "blobs", "sha256", ".fbuild-1"), filepath.Join(dir, ".fbuild-2"), filepath.Join(dir, ".hidden")
	for _, name := range []string{stale, young, other} {
		must(t, os.WriteFile(name, []byte("x"), 0o600))
	}
	old := time.Now().Add(-2 * tempAge)
	must(t, os.Chtimes(stale, old, old))
	must(t, os.Chtimes(other, old, old))
	unlock, err := a.Lock(t.Context())
	must(t, err)
	must(t, unlock())
	for name, want := range map[string]bool{stale: false, young: true, other: true} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", name, err == nil, want)
		}
	}
}

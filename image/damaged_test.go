package image_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/image"
	"github.com/fbuild/fbuild/oci"
)

// An image that is damaged keeps nobody from the others, and the word about it says
// what to do.
func TestFindBesideDamaged(t *testing.T) {
	s, err := cache.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	made := map[string]*oci.Built{}
	for _, name := range []string{"good", "bad"} {
		img, err := oci.Assemble(v1.ConfigFile{OS: "linux", Architecture: "amd64", Author: name}, nil, oci.AssembleOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range [][]byte{img.RawConfig, img.RawManifest} {
			if _, err := s.PutBlob(bytes.NewReader(raw), ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Tag("docker.io/library/"+name+":latest", img.Desc); err != nil {
			t.Fatal(err)
		}
		made[name] = img
	}
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", "sha256", made["bad"].Manifest.Config.Digest.Hex)); err != nil {
		t.Fatal(err)
	}
	img, err := image.Find(t.Context(), s, "good")
	if err != nil || img.Config.Author != "good" || len(img.Names) != 1 {
		t.Errorf("good: got %+v, error %v", img, err)
	}
	if _, err := image.Find(t.Context(), s, "bad"); err == nil || !strings.Contains(err.Error(), "verify --remove") {
		t.Errorf("bad: got %v, want an error that says what to do", err)
	}
}

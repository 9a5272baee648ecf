package build

import (
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
)

// An image that an index chose fits when it is remembered as well: the same build must
// not fail, or warn, the second time only.
func TestRememberedImageFitsAsItDid(t *testing.T) {
	w := newWorld(t)
	img, err := oci.Assemble(v1.ConfigFile{OS: "linux", Architecture: "386"}, nil, oci.AssembleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := v1.Platform{OS: "linux", Architecture: "386"}
	img.Desc.Platform = &p
	idx, err := oci.AssembleIndex([]*oci.Built{img}, oci.IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	amd64 := v1.Platform{OS: "linux", Architecture: "amd64"}
	b := &builder{store: w.store}
	for name, c := range map[string]struct {
		img      oci.Writable
		mismatch bool
	}{"chosen by an index": {idx, false}, "a manifest": {img, true}} {
		dir := filepath.Join(t.TempDir(), "layout")
		if err := oci.WriteLayout(t.Context(), dir, nil, c.img); err != nil {
			t.Fatal(err)
		}
		found, err := oci.OpenLayout(t.Context(), dir, c.img.Root().Digest.String(), amd64)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.learn(Key(name), "example.com/base:1", "sha256:now", found); err != nil {
			t.Fatal(err)
		}
		if _, ok := b.known(t.Context(), Key(name), "example.com/base:1", "sha256:later", amd64); ok {
			t.Errorf("%s: known of another age", name)
		}
		again, ok := b.known(t.Context(), Key(name), "example.com/base:1", "", amd64)
		if !ok || (found.Mismatch != nil) != c.mismatch || (again.Mismatch != nil) != c.mismatch {
			t.Errorf("%s: known %v, got mismatch %v, then %v, want %v both times", name, ok, found.Mismatch, again.Mismatch, c.mismatch)
		}
	}
}

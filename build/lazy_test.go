package build

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// LAWS 33: what was marked before a power loss is looked at before it is believed.
func TestRecheckAfterBoot(t *testing.T) {
	dir := t.TempDir()
	w, l, err := pack.CreateLazy(dir, 3*pack.LazyBlock, "an earlier boot")
	if err != nil {
		t.Fatal(err)
	}
	start := pack.LazyStart(3 * pack.LazyBlock)
	z := &lazyLayer{}
	for i, text := range []string{"kept", "lost", "never"} {
		h := newDigest([]byte(text))
		z.chunks = append(z.chunks, layer.Chunk{Off: start + int64(i)*pack.LazyBlock, Size: int64(len(text)), Digest: h})
		if i < 2 {
			if _, err := l.WriteAt([]byte(text), z.chunks[i].Off); err != nil {
				t.Fatal(err)
			}
			if err := l.Mark(z.chunks[i].Off, z.chunks[i].Size); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := l.WriteAt(make([]byte, 4), z.chunks[1].Off); err != nil { // the mark was on the disk, the bytes not
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if z.file, err = pack.OpenLazy(dir, w.ID()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.file.Close() }()
	if err := z.recheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false} {
		if here, err := z.file.Here(z.chunks[i].Off, z.chunks[i].Size); err != nil || here != want {
			t.Errorf("chunk %d: got %v, %v, want %v", i, here, err, want)
		}
	}
	if boot, err := z.file.Boot(); err != nil || boot != bootID() {
		t.Errorf("boot: got %q, %v, want this one", boot, err)
	}
}

func newDigest(b []byte) tree.Digest {
	h := sha256.Sum256(b)
	return tree.Digest("sha256:" + hex.EncodeToString(h[:]))
}

// LAWS 11: what nobody compared with a diffID has a name of its own: a layer with a table
// of contents, and the key of an image that has one.
func TestSeekableNames(t *testing.T) {
	const diffID = tree.Digest("sha256:aa")
	seek := func(digest string) *layer.Seekable {
		s, ok := layer.FindSeekable(map[string]string{"containerd.io/snapshot/stargz/toc.digest": "sha256:" + digest})
		if !ok {
			t.Fatal("no table")
		}
		return &s
	}
	one, two := seek(strings.Repeat("1", 64)), seek(strings.Repeat("2", 64))
	names := map[tree.Digest]bool{}
	for _, l := range []*fsLayer{{diffID: diffID}, {diffID: diffID, seek: one}, {diffID: diffID, seek: two}, {diffID: "sha256:bb", seek: one}} {
		names[l.name()] = true
	}
	if len(names) != 4 {
		t.Errorf("names: got %d of 4 layers: %v", len(names), names)
	}
	if plain := (&fsLayer{diffID: diffID}).name(); plain != diffID {
		t.Errorf("name of a plain layer: got %s, want its diffID", plain)
	}
	// A build with --lazy=off reads no table: an image that differs in nothing else is the
	// same to it, and what is made on it is not what was made on a table.
	off, on := &builder{opts: Options{Lazy: LazyOff}}, &builder{}
	keys := map[Key]bool{}
	for _, notes := range []map[string]string{nil, {"containerd.io/snapshot/stargz/toc.digest": "sha256:" + strings.Repeat("1", 64)}} {
		img := &oci.Image{Manifest: &v1.Manifest{}, Layers: []oci.Layer{{Desc: v1.Descriptor{Annotations: notes}}}}
		keys[off.imageKey(img)] = true
		if same := off.imageKey(img) == on.imageKey(img); same != (notes == nil) {
			t.Errorf("keys with and without --lazy=off, annotations %v: equal %v", notes, same)
		}
	}
	if len(keys) != 1 {
		t.Errorf("--lazy=off: got %d keys, want one", len(keys))
	}
}

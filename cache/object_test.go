package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

func TestBlob(t *testing.T) {
	data := randomBytes(100_000)
	wrong := digestBytes([]byte("something else"))
	for _, tt := range []struct {
		name   string
		before []byte // stands under the blob's name already
		want   tree.Digest
		err    error
	}{
		{name: "digest not known"},
		{name: "digest as promised", want: digestBytes(data)},
		{name: "equal blob there", before: data},
		{name: "damaged blob there", before: data[:len(data)/2]},
		{name: "digest differs", want: wrong, err: ErrDigest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if tt.before != nil {
				if err := os.WriteFile(s.blobPath(digestBytes(data)), tt.before, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			w, err := s.CreateBlob()
			if err != nil {
				t.Fatal(err)
			}
			for chunk := range bytes.Lines(data) {
				if _, err := w.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			d, size, err := w.Commit(tt.want)
			if !errors.Is(err, tt.err) {
				t.Fatalf("commit: got %v, want %v", err, tt.err)
			}
			if entries, _ := os.ReadDir(s.lease.dir); len(entries) > 0 {
				t.Errorf("temporary files: got %d, want none", len(entries))
			}
			if tt.err != nil {
				if s.HasBlob(digestBytes(data)) || s.HasBlob(wrong) {
					t.Error("a refused blob has a name")
				}
				return
			}
			if d != digestBytes(data) || size != int64(len(data)) {
				t.Errorf("commit: got %s, %d, want %s, %d", d, size, digestBytes(data), len(data))
			}
			got, err := readBlob(s, d)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("read: got %d bytes, %v, want the %d written", len(got), err, len(data))
			}
		})
	}
}

func TestBlobNotThere(t *testing.T) {
	s := open(t, t.TempDir())
	for _, d := range []tree.Digest{"", "sha256:abc", "sha256:../../../version", "md5:00", digestBytes(nil)} {
		if s.HasBlob(d) {
			t.Errorf("has blob %q: got true", d)
		}
		if _, err := s.OpenBlob(d); err == nil {
			t.Errorf("open blob %q: got no error", d)
		}
	}
	if _, err := s.OpenBlob(digestBytes(nil)); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open blob: got %v, want ErrNotFound", err)
	}
	if err := os.Symlink("/etc/passwd", s.blobPath(digestBytes(nil))); err != nil {
		t.Fatal(err)
	}
	if s.HasBlob(digestBytes(nil)) {
		t.Error("has blob: got true for a symlink")
	}
}

func TestRecord(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		r         Record
	}{
		{"empty", "k", Record{}},
		{"a key in hexadecimal", strings.Repeat("ab", 32), Record{Value: []byte("v")}},
		{"a digest as key", string(digestBytes(nil)), Record{Value: []byte("v")}},
		{"any bytes as key", "../\x00\xff", Record{Value: []byte{0, 255}}},
		{"references", "r", Record{Value: []byte("v"), Blobs: []tree.Digest{digestBytes([]byte("a")), digestBytes([]byte("b"))}, Layers: []tree.Digest{digestBytes([]byte("c"))}}},
		{"as large as allowed", "l", Record{Value: bytes.Repeat([]byte("x"), maxRecord-100)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if _, err := s.Record("step", tt.key); !errors.Is(err, ErrNotFound) {
				t.Errorf("before: got %v, want ErrNotFound", err)
			}
			putRecord(t, s, tt.key, Record{Value: []byte("old")})
			putRecord(t, s, tt.key, tt.r)
			s = reopen(t, s)
			got, err := s.Record("step", tt.key)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Value, tt.r.Value) || !slices.Equal(got.Blobs, tt.r.Blobs) || !slices.Equal(got.Layers, tt.r.Layers) {
				t.Errorf("record: got %d bytes, %v, %v, want %d, %v, %v", len(got.Value), got.Blobs, got.Layers, len(tt.r.Value), tt.r.Blobs, tt.r.Layers)
			}
			if _, err := s.Record("other", tt.key); !errors.Is(err, ErrNotFound) {
				t.Errorf("of another kind: got %v, want ErrNotFound", err)
			}
			if err := s.DeleteRecord("step", tt.key); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Record("step", tt.key); !errors.Is(err, ErrNotFound) {
				t.Errorf("after deletion: got %v, want ErrNotFound", err)
			}
		})
	}
}

func TestRecordRefused(t *testing.T) {
	s := open(t, t.TempDir())
	for _, tt := range []struct {
		name, kind string
		r          Record
	}{
		{"too large", "step", Record{Value: make([]byte, maxRecord)}},
		{"a kind that leads elsewhere", "../x", Record{}},
		{"no kind", "", Record{}},
		{"the store's own kind", "layer", Record{}},
		{"a bad digest", "step", Record{Blobs: []tree.Digest{"sha256:../x"}}},
	} {
		if err := s.PutRecord(tt.kind, "k", tt.r); err == nil {
			t.Errorf("%s: got no error", tt.name)
		}
	}
}

// A record that does not verify is a miss, whatever is wrong with it, and goes.
func TestRecordDamaged(t *testing.T) {
	s := open(t, t.TempDir())
	name := s.recordPath("step", "k")
	other := s.recordPath("step", "other")
	putRecord(t, s, "other", Record{Value: []byte("not for k")})
	putRecord(t, s, "k", Record{Value: []byte("value"), Blobs: []tree.Digest{digestBytes(nil)}})
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{"empty": {}, "zeros": make([]byte, len(good)), "of another key": foreign, "too long": append(bytes.Clone(good), 0)}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		cases["byte "+string(rune('0'+i%10))+" flipped"] = flipped
	}
	for i := 0; i < len(good); i += 7 {
		cases["cut short "+strings.Repeat("i", i/7)] = good[:i]
	}
	for what, data := range cases {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Record("step", "k"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("%s: got %q, %v, want ErrNotFound", what, r.Value, err)
		}
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file is still there", what)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(encodeRecord("step", "k", Record{Value: []byte("v"), Blobs: []tree.Digest{digestBytes(nil)}}), true)
	f.Add([]byte(recordMagic), false)
	f.Fuzz(func(t *testing.T, data []byte, whole bool) {
		if !whole { // with a right checksum, so that the fields are reached
			sum := sha256.Sum256(data)
			data = append(bytes.Clone(data), sum[:]...)
		}
		kind, key, r, err := decodeRecord(data)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Fatalf("decode: got %v, want errCorrupt", err)
			}
			return
		}
		kind2, key2, r2, err := decodeRecord(encodeRecord(kind, key, r))
		if err != nil || kind2 != kind || key2 != key || !cmp.Equal(r, r2) {
			t.Fatalf("again: got %q, %q, %v, %v, want %q, %q, %v", kind2, key2, r2, err, kind, key, r)
		}
	})
}

func TestLayer(t *testing.T) {
	s := open(t, t.TempDir())
	diffID, n := putLayer(t, s, []byte("contents"))
	// LAWS 33: the pack was synced before the index that names it was written.
	if !s.synced[n.Extents[0].Pack] {
		t.Error("put layer: the pack was not synced")
	}
	s = reopen(t, s)
	cs, err := s.Layer(diffID)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tree.Format(cs), tree.Format(tree.Changes{{Path: "f", Node: n}}); got != want {
		t.Errorf("layer: got %s, want %s", got, want)
	}
	if got, err := readNode(s.Packs(), cs[0].Node); err != nil || string(got) != "contents" {
		t.Errorf("contents: got %q, %v", got, err)
	}
	name, err := s.LayerFile(diffID)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, name)
	if _, err := s.Layer(diffID); !errors.Is(err, ErrNotFound) {
		t.Errorf("damaged layer: got %v, want ErrNotFound", err)
	}
	if _, err := s.LayerFile(diffID); !errors.Is(err, ErrNotFound) {
		t.Errorf("file of a damaged layer: got %v, want ErrNotFound", err)
	}
}

// LAWS 33: no layer index names a pack that is not there.
func TestLayerNeedsItsPacks(t *testing.T) {
	s := open(t, t.TempDir())
	n := &tree.Node{Kind: tree.File, Size: 1, Extents: []tree.Extent{{Pack: tree.PackID("copy-" + strings.Repeat("0", 32)), Len: 1}}}
	diffID := digestBytes(nil)
	if err := s.PutLayer(diffID, tree.Changes{{Path: "f", Node: n}}); !errors.Is(err, pack.ErrGone) {
		t.Errorf("put layer: got %v, want ErrGone", err)
	}
	if _, err := s.LayerFile(diffID); !errors.Is(err, ErrNotFound) {
		t.Errorf("layer file: got %v, want ErrNotFound", err)
	}
}

// A blob that gives its pages back is none the less whole, and checked before it has a name.
func TestBlobThatPasses(t *testing.T) {
	s := open(t, t.TempDir())
	w, err := s.CreateBlob()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	w.Pass()
	data := bytes.Repeat(randomBytes(1<<20), 2*sendAt>>20+1)
	for part := range slices.Chunk(data, 3<<20) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Verify(digestBytes([]byte("something else"))); !errors.Is(err, ErrDigest) {
		t.Errorf("another digest: got %v, want ErrDigest", err)
	}
	want := digestBytes(data)
	if err := w.Verify(want); err != nil || s.HasBlob(want) {
		t.Errorf("its digest: got %v, there already: %v", err, s.HasBlob(want))
	}
	if _, _, err := w.Commit(want); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.blobPath(want)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v, want the %d that were written", len(got), err, len(data))
	}
}

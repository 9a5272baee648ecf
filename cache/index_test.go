package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// find asks until the index is open and built, or off.
func find(t *testing.T, s *Store, n *tree.Node) bool {
	t.Helper()
	off := func() bool {
		s.index.mu.Lock()
		defer s.index.mu.Unlock()
		return s.index.off
	}
	for end := time.Now().Add(testenv.Patience); !off() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		ex, ok := s.FindContent(n.Digest, n.Size)
		if ok {
			if d := cmp.Diff(n.Extents, ex); d != "" {
				t.Errorf("extents (-want +got):\n%s", d)
			}
			return true
		}
	}
	return false
}

func TestFindContent(t *testing.T) {
	s := open(t, t.TempDir())
	n := putPack(t, s, []byte("contents"))
	if _, ok := s.FindContent(n.Digest, n.Size); ok {
		t.Error("before it was added: got ok")
	}
	s.AddContent(n.Digest, n.Extents)
	if !find(t, s, n) {
		t.Error("after it was added: not found")
	}
	s = reopen(t, s)
	if !find(t, s, n) {
		t.Error("in the next process: not found")
	}
	if _, ok := s.FindContent(n.Digest, n.Size+1); ok {
		t.Error("with another size: got ok")
	}
	if ex, ok := s.FindContent(digestBytes(nil), 0); !ok || len(ex) > 0 {
		t.Errorf("nothing at all: got %v, %v, want no extents, ok", ex, ok)
	}
	if _, ok := s.FindContent("sha256:short", 3); ok {
		t.Error("bad digest: got ok")
	}
}

// LAWS 18: what the index says counts only with a lease on packs that are there
// and long enough.
func TestFindContentChecksPacks(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(string) error
	}{
		{"gone", os.Remove},
		{"too short", func(p string) error { return os.Truncate(p, 3) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			n := putPack(t, s, []byte("contents"))
			s.AddContent(n.Digest, n.Extents)
			if err := tt.spoil(s.path("packs", string(n.Extents[0].Pack))); err != nil {
				t.Fatal(err)
			}
			if _, ok := s.FindContent(n.Digest, n.Size); ok {
				t.Error("got ok")
			}
			if _, ok := s.FindContent(n.Digest, n.Size); ok {
				t.Error("again: got ok")
			}
		})
	}
}

// LAWS 30: a lost index is built again from the layer indexes.
func TestIndexRebuilt(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
	}{
		{"directory lost", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"manifest damaged", func(t *testing.T, dir string) { damage(t, filepath.Join(dir, "MANIFEST")) }},
		{"manifest empty", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "MANIFEST"), 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"a table damaged", func(t *testing.T, dir string) {
			for _, name := range tables(t, dir) {
				damage(t, name)
			}
		}},
		{"a table lost", func(t *testing.T, dir string) {
			for _, name := range tables(t, dir) {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a file in its place", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			_, n := putLayer(t, s, []byte("contents"))
			s.AddContent(n.Digest, n.Extents)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, s.index.dir)
			s = open(t, s.Dir())
			if !find(t, s, n) {
				// What only asking shows is thrown away for the next process.
				if s = reopen(t, s); !find(t, s, n) {
					t.Error("content of a layer: not found in the new index")
				}
			}
		})
	}
}

func tables(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(names) == 0 {
		t.Fatalf("tables of the index: got %q, %v", names, err)
	}
	return names
}

// LAWS 30: whatever is wrong in the index, no answer is wrong, nothing hangs and
// nothing fails.
func TestIndexDamagedAnywhere(t *testing.T) {
	s := open(t, t.TempDir())
	var nodes []*tree.Node
	for i := range 300 {
		n := putPack(t, s, fmt.Appendf(nil, "contents %d", i))
		s.AddContent(n.Digest, n.Extents)
		nodes = append(nodes, n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 25 {
		names, err := filepath.Glob(filepath.Join(s.index.dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		name := names[r.IntN(len(names))]
		if data, err := os.ReadFile(name); err == nil && len(data) > 0 {
			at := r.IntN(min(len(data), 4096))
			data = bytes.Clone(data)
			data[at] ^= byte(1 + r.IntN(255))
			if round%5 == 4 {
				data = data[:at]
			}
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, s.Dir())
		for _, n := range nodes {
			ex, ok := s.FindContent(n.Digest, n.Size)
			if ok && !cmp.Equal(ex, n.Extents) {
				t.Fatalf("round %d, %s: got %v, want %v", round, filepath.Base(name), ex, n.Extents)
			}
			if !ok {
				s.AddContent(n.Digest, n.Extents)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatalf("round %d, %s: close: %v", round, filepath.Base(name), err)
		}
	}
}

func TestEntryDamaged(t *testing.T) {
	d := digestBytes([]byte("x"))
	ex := []tree.Extent{{Pack: tree.PackID("tar-" + strings.Repeat("0", 32)), Off: 7, Len: 9}, {Len: 4096}}
	good := encodeEntry(d, ex)
	got, err := decodeEntry(d, good)
	if diff := cmp.Diff(ex, got); err != nil || diff != "" {
		t.Fatalf("entry: %v (-want +got):\n%s", err, diff)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := decodeEntry(d, bad); err == nil {
			t.Errorf("byte %d flipped: got no error", i)
		}
		if _, err := decodeEntry(d, good[:i]); err == nil {
			t.Errorf("cut to %d bytes: got no error", i)
		}
	}
	if _, err := decodeEntry(digestBytes(nil), good); err == nil {
		t.Error("of another digest: got no error")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(digestBytes(nil), []tree.Extent{{Len: 1}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if ex, err := decodeEntry(digestBytes(nil), data); err == nil {
			again, err := decodeEntry(digestBytes(nil), encodeEntry(digestBytes(nil), ex))
			if err != nil || !cmp.Equal(ex, again) {
				t.Fatalf("again: got %v, %v, want %v", again, err, ex)
			}
		}
	})
}

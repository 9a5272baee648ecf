package cache

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

func TestMain(m *testing.M) {
	children := map[string]func() int{
		"hammer": hammerChild,
		"hold":   holdChild,
		"left":   leftChild,
		"mount":  mountChild,
		"syncs":  syncsChild,
	}
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(arg, "-test.fuzz") && !strings.HasPrefix(arg, "-test.fuzzcache") {
			reexec.Main(children)
			os.Exit(m.Run()) // a fuzzing worker's pipes do not survive another re-execution
		}
	}
	os.Exit(testenv.InUserNS(m, children))
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	patient(s)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// patient has s wait for its index however busy the machine is.
func patient(s *Store) { s.index.wait, s.index.closeWait = testenv.Patience, testenv.Patience }

// reopen ends s and opens its directory again, as the next process does.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	testenv.Tick(t)
	return open(t, s.Dir())
}

func digestBytes(data []byte) tree.Digest {
	sum := sha256.Sum256(data)
	return tree.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func putBlob(t testing.TB, s *Store, data []byte) tree.Digest {
	t.Helper()
	d, err := storeBlob(s, data)
	if err != nil {
		t.Fatalf("put blob: %v", err)
	}
	return d
}

func storeBlob(s *Store, data []byte) (tree.Digest, error) {
	return s.PutBlob(bytes.NewReader(data), "")
}

func readBlob(s *Store, d tree.Digest) ([]byte, error) {
	f, err := s.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// storePack commits data as a pack and returns the file node that holds it.
func storePack(w *pack.Writer, data []byte) (*tree.Node, error) {
	if _, err := w.Write(data); err != nil {
		w.Abort()
		return nil, err
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	return &tree.Node{
		Kind: tree.File, Mode: 0o644, Size: int64(len(data)), Digest: digestBytes(data),
		Extents: []tree.Extent{{Pack: w.ID(), Len: int64(len(data))}},
	}, nil
}

func putPack(t testing.TB, s *Store, data []byte) *tree.Node {
	t.Helper()
	w, err := s.CreatePack()
	if err != nil {
		t.Fatalf("create pack: %v", err)
	}
	n, err := storePack(w, data)
	if err != nil {
		t.Fatalf("put pack: %v", err)
	}
	return n
}

// putLayer stores a layer of one file in a pack of its own.
func putLayer(t testing.TB, s *Store, data []byte) (tree.Digest, *tree.Node) {
	t.Helper()
	n := putPack(t, s, data)
	diffID := digestBytes(append([]byte("layer "), data...))
	if err := s.PutLayer(diffID, tree.Changes{{Path: "f", Node: n}}); err != nil {
		t.Fatalf("put layer: %v", err)
	}
	return diffID, n
}

func putRecord(t testing.TB, s *Store, key string, r Record) {
	t.Helper()
	if err := s.PutRecord("step", key, r); err != nil {
		t.Fatalf("put record: %v", err)
	}
}

func readNode(set *pack.Set, n *tree.Node) ([]byte, error) {
	r, err := set.Open(n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// age makes everything below dir look as if it was last touched d ago.
func age(t testing.TB, dir string, d time.Duration) {
	t.Helper()
	when := time.Now().Add(-d)
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(p, when, when)
	})
	if err != nil {
		t.Fatalf("age: %v", err)
	}
}

// damage flips one byte of a file in its middle.
func damage(t testing.TB, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("damage: %v", err)
	}
	data = bytes.Clone(data)
	data[len(data)/2] ^= 0x40
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatalf("damage: %v", err)
	}
}

// problems runs Verify and returns what it reports as "kind name".
func problems(t testing.TB, s *Store, o VerifyOptions) []Problem {
	t.Helper()
	var out []Problem
	if err := s.Verify(t.Context(), o, func(p Problem) { out = append(out, p) }); err != nil {
		t.Fatalf("verify: %v", err)
	}
	return out
}

package cache

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/testenv"
)

func served(s *Store) bool {
	_, ok := s.index.get().(*servedTable)
	return ok
}

// Of several processes one has the index and the others ask it.
func TestIndexOfAnotherProcess(t *testing.T) {
	for _, tt := range []struct{ name, below string }{
		{"a short path", ""},
		{"a path too long for a socket", strings.Repeat("d/", 100)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), tt.below)
			if s := open(t, dir); s.Close() != nil { // makes the folders
				t.Fatal("close")
			}
			holder(t, dir, "index", "-")
			first, second := open(t, dir), open(t, dir)
			n := putPack(t, first, []byte("contents"))
			if !served(first) || !served(second) {
				t.Fatalf("index: got %T and %T, want both served", first.index.get(), second.index.get())
			}
			first.AddContent(n.Digest, n.Extents)
			if err := first.Close(); err != nil { // tells the owner
				t.Fatal(err)
			}
			if !find(t, second, n) {
				t.Error("what one process added: not found by another")
			}
			if _, ok := second.FindContent(digestBytes([]byte("other")), 5); ok || !served(second) {
				t.Error("what nobody added: found, or the index is lost")
			}
		})
	}
}

// When the owner is killed, the next one takes its place, with what layers say.
func TestIndexTakenOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	_, n := putLayer(t, s, []byte("contents"))
	owner := holder(t, dir, "index", "-")
	if !served(s) {
		t.Fatalf("index: got %T, want a served one", s.index.get())
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	if !find(t, s, n) {
		t.Error("content of a layer: not found after the owner was killed")
	}
	if _, ok := s.index.get().(*badgerTable); !ok {
		t.Errorf("index: got %T, want this process's own", s.index.get())
	}
}

// LAWS 30: an owner that does not answer costs 250 ms, once.
func TestIndexOwnerStopped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	n := putPack(t, s, []byte("contents"))
	owner := holder(t, dir, "index", "-")
	if err := owner.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.index.wait = indexWait
	start := time.Now()
	for range 200 {
		s.AddContent(n.Digest, n.Extents)
		s.FindContent(digestBytes([]byte("other")), 5)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	// Each of them waiting takes 50 s or 100 s.
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("waited %v, want about %v", d, indexWait)
	}
}

// Nothing that comes through the socket harms the owner.
func TestIndexSocketHostile(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	n := putPack(t, s, []byte("contents"))
	s.AddContent(n.Digest, n.Extents)
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"unknown", []byte("x")},
		{"a long key", append([]byte{'g', 0xff, 0xff, 0x7f}, bytes.Repeat([]byte{1}, 1<<16)...)},
		{"a large count", []byte{'p', 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
		{"a number without end", bytes.Repeat([]byte{0xff}, 64)},
		{"half a request", []byte{'g', 9, 'c'}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("unix", s.path("tmp", "locks", indexSocket)) //nolint:noctx // of a test
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(tt.data); err != nil {
				t.Log(err) // it did not listen any longer
			}
			_ = c.(*net.UnixConn).CloseWrite()
			if err := c.SetReadDeadline(time.Now().Add(testenv.Patience)); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Read(make([]byte, 1)); got > 0 || os.IsTimeout(err) {
				t.Errorf("answer: got %d bytes, %v, want an end", got, err)
			}
			_ = c.Close()
		})
	}
	if !find(t, s, n) {
		t.Error("afterwards: not found")
	}
	fi, err := os.Stat(s.Dir())
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("store: got %v, %v, want it closed to others", fi.Mode(), err)
	}
}

// A lying owner is one whose entries do not verify: they are no contents.
func TestIndexOwnerLies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	n := putPack(t, s, []byte("contents"))
	other := putPack(t, s, []byte("other"))
	if s.index.get() == nil {
		t.Fatal("no index")
	}
	s.index.set(contentKey(n.Digest), encodeEntry(other.Digest, other.Extents))
	if ex, ok := s.FindContent(n.Digest, n.Size); ok {
		t.Errorf("an entry of another content: got %v", ex)
	}
}

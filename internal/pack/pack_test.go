package pack

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

func put(t *testing.T, dir string, data []byte) tree.PackID {
	t.Helper()
	w, err := Create(dir, "spool")
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	for len(data) > 0 {
		n := min(len(data), 1000)
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatalf("write: %v", err)
		}
		data = data[n:]
	}
	if err := w.Commit(); err != nil {
		t.Fatalf("commit: %v", err)
	}
	return w.ID()
}

func newSet(t *testing.T, dir string) *Set {
	t.Helper()
	s := NewSet(dir)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func file(ex ...tree.Extent) *tree.Node {
	n := &tree.Node{Kind: tree.File, Extents: ex}
	for _, x := range ex {
		n.Size += x.Len
	}
	return n
}

func randomData(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestValid(t *testing.T) {
	digits := strings.Repeat("0a", 16)
	for id, want := range map[tree.PackID]bool{
		tree.PackID("tar-" + digits):            true,
		tree.PackID("spool-" + digits):          true,
		tree.PackID("copy-" + digits):           true,
		"":                                      false,
		tree.PackID(digits):                     false,
		tree.PackID("other-" + digits):          false,
		tree.PackID("tar-" + digits + ".part"):  false,
		tree.PackID("tar-" + digits[1:]):        false,
		tree.PackID("tar-" + digits[1:] + "/"):  false,
		tree.PackID("tar-" + digits[1:] + "A"):  false,
		"tar-../../../../etc/passwd00000000000": false,
	} {
		if got := Valid(id); got != want {
			t.Errorf("valid %q: got %v, want %v", id, got, want)
		}
		if !want {
			if _, err := NewSet(t.TempDir()).File(id); err == nil {
				t.Errorf("open %q: got no error", id)
			}
		}
	}
}

func TestReadExtents(t *testing.T) {
	dir := t.TempDir()
	a, b := randomData(5000), randomData(7000)
	ida, idb := put(t, dir, a), put(t, dir, b)
	s := newSet(t, dir)
	for _, tt := range []struct {
		name string
		node *tree.Node
		want []byte
	}{
		{"empty", file(), nil},
		{"whole pack", file(tree.Extent{Pack: ida, Len: 5000}), a},
		{"part", file(tree.Extent{Pack: ida, Off: 4000, Len: 1000}), a[4000:]},
		{"hole", file(tree.Extent{Len: 3000}), make([]byte, 3000)},
		{
			"pieces of both with holes",
			file(tree.Extent{Pack: idb, Off: 10, Len: 90}, tree.Extent{Len: 50}, tree.Extent{Pack: ida, Off: 1, Len: 1}, tree.Extent{Len: 1}, tree.Extent{Pack: idb, Len: 7000}),
			bytes.Join([][]byte{b[10:100], make([]byte, 50), a[1:2], {0}, b}, nil),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := s.Open(tt.node)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, tt.want); err != nil {
				t.Errorf("reader: %v", err)
			}
			// Every window, into a buffer that is not clean: holes are zeros.
			for off := int64(0); off <= tt.node.Size; off += 1 + tt.node.Size/37 {
				for _, n := range []int{1, 60, 4096, 20_000} {
					p := bytes.Repeat([]byte{0xee}, n)
					got, err := s.ReadAt(tt.node, p, off)
					want := tt.want[off:min(int64(len(tt.want)), off+int64(n))]
					if !bytes.Equal(p[:got], want) {
						t.Errorf("read %d at %d: got other bytes", n, off)
					}
					if atEnd := off+int64(n) > tt.node.Size; errors.Is(err, io.EOF) != atEnd || err != nil && !errors.Is(err, io.EOF) {
						t.Errorf("read %d at %d of %d: got %v, want EOF = %v", n, off, tt.node.Size, err, atEnd)
					}
				}
			}
		})
	}
}

// LAWS 18: a short read is an error, never zeros and never the end of a file.
func TestShortReadIsAnError(t *testing.T) {
	dir := t.TempDir()
	id := put(t, dir, randomData(1000))
	s := newSet(t, dir)
	for _, tt := range []struct {
		name string
		node *tree.Node
	}{
		{"extent past the end", file(tree.Extent{Pack: id, Off: 500, Len: 501})},
		{"extent behind the end", file(tree.Extent{Pack: id, Off: 5000, Len: 10})},
		{"extents end early", &tree.Node{Kind: tree.File, Size: 10, Extents: []tree.Extent{{Pack: id, Len: 5}}}},
		{"no extents", &tree.Node{Kind: tree.File, Size: 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := s.ReadAt(tt.node, make([]byte, tt.node.Size), 0)
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("read: got %d, %v, want an error that is not EOF", n, err)
			}
			r, err := s.Open(tt.node)
			if err != nil {
				t.Fatal(err)
			}
			if data, err := io.ReadAll(r); err == nil {
				t.Errorf("read all: got %d bytes and no error", len(data))
			}
		})
	}
	if err := os.Truncate(filepath.Join(dir, string(id)), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(file(tree.Extent{Pack: id, Len: 1000}), make([]byte, 1000), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read of a pack cut short: got %v, want unexpected EOF", err)
	}
}

// LAWS 18: a pack is leased before its first byte is served, and one that went
// between opening and locking is gone.
func TestLease(t *testing.T) {
	dir := t.TempDir()
	id := put(t, dir, randomData(100))
	name := filepath.Join(dir, string(id))
	s := newSet(t, dir)
	if _, err := s.Open(file(tree.Extent{Pack: id, Len: 100})); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only held
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("lock of a leased pack: got %v, want would block", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatalf("lock after the lease: %v", err)
	}
	// The collector holds it: who opens the pack now waits, and finds it gone.
	got := make(chan error, 1)
	go func() {
		_, err := s.File(id)
		got <- err
	}()
	testenv.Until(t, "reader that waits", func() bool {
		fds, _ := filepath.Glob("/proc/self/fd/*")
		opened := 0
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil && target == name {
				opened++
			}
		}
		return opened == 2
	})
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrGone) {
		t.Errorf("open of a pack that was collected: got %v, want ErrGone", err)
	}
	if _, err := s.Open(file(tree.Extent{Pack: id, Len: 100})); !errors.Is(err, ErrGone) {
		t.Errorf("open of a pack that is not there: got %v, want ErrGone", err)
	}
}

func TestLeasedPackOutlivesItsName(t *testing.T) {
	dir := t.TempDir()
	data := randomData(100)
	id := put(t, dir, data)
	s := newSet(t, dir)
	r, err := s.Open(file(tree.Extent{Pack: id, Len: 100}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, string(id))); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read: got %d bytes, %v, want the %d of the pack", len(got), err, len(data))
	}
}

func TestSymlinkIsNoPack(t *testing.T) {
	dir := t.TempDir()
	id := put(t, dir, randomData(10))
	other := tree.PackID("tar-" + strings.Repeat("0", 32))
	if err := os.Symlink(string(id), filepath.Join(dir, string(other))); err != nil {
		t.Fatal(err)
	}
	if _, err := newSet(t, dir).File(other); err == nil {
		t.Error("open: got no error")
	}
}

func TestOpenRefusesOthers(t *testing.T) {
	s := newSet(t, t.TempDir())
	for _, k := range []tree.Kind{tree.Dir, tree.Symlink, tree.Fifo} {
		if _, err := s.Open(&tree.Node{Kind: k}); err == nil {
			t.Errorf("open of %s: got no error", k)
		}
	}
}

func TestWriter(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, "tar")
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, string(w.ID())+PartSuffix)
	f, err := os.Open(part)
	if err != nil {
		t.Fatalf("half-made pack: %v", err)
	}
	defer func() { _ = f.Close() }() // only held
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("lock of a half-made pack: got %v, want would block", err)
	}
	if _, err := NewSet(dir).File(w.ID()); !errors.Is(err, ErrGone) {
		t.Errorf("open of a half-made pack: got %v, want ErrGone", err)
	}
	for i, want := range []int64{0, 3, 6} {
		if got := w.Offset(); got != want {
			t.Errorf("offset after %d writes: got %d, want %d", i, got, want)
		}
		if _, err := w.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err == nil {
		t.Error("commit again: got no error")
	}
	w.Abort()
	s := newSet(t, dir)
	if err := s.Sync(w.ID()); err != nil {
		t.Errorf("sync: %v", err)
	}
	p := make([]byte, 9)
	if _, err := s.ReadAt(file(tree.Extent{Pack: w.ID(), Len: 9}), p, 0); err != nil || string(p) != "abcabcabc" {
		t.Errorf("read: got %q, %v", p, err)
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half-made name after commit: got %v, want not exist", err)
	}
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, "copy")
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	if err := w.Commit(); err == nil {
		t.Error("commit after abort: got no error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("after abort: got %v, %v, want nothing", entries, err)
	}
	if _, err := Create(dir, "../x"); err == nil {
		t.Error("create with a bad origin: got no error")
	}
	if err := NewSet(dir).Sync(w.ID()); !errors.Is(err, ErrGone) {
		t.Errorf("sync: got %v, want ErrGone", err)
	}
}

func TestManyReaders(t *testing.T) {
	dir := t.TempDir()
	data := randomData(50_000)
	ids := []tree.PackID{put(t, dir, data), put(t, dir, data)}
	s := newSet(t, dir)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r, err := s.Open(file(tree.Extent{Pack: ids[i%2], Len: int64(len(data))}))
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read: got %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

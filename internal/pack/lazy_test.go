package pack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// newLazy makes a lazy pack of some blocks in dir, none of which is there.
func newLazy(t *testing.T, dir string, blocks int64) (tree.PackID, *Lazy, int64) {
	t.Helper()
	w, _, err := CreateLazy(dir, blocks*LazyBlock, "boot")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLazy(dir, w.ID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return w.ID(), l, LazyStart(blocks * LazyBlock)
}

func fillBlocks(t *testing.T, l *Lazy, off int64, data []byte) {
	t.Helper()
	if _, err := l.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
	if err := l.Mark(off, int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

// LAWS 18: what is not in a lazy pack is never zeros to a reader: he waits for it, or gets
// an error, whatever who fetches it says.
func TestLazyNeverZeros(t *testing.T) {
	dir := t.TempDir()
	id, l, start := newLazy(t, dir, 10)
	s := newSet(t, dir)
	data := randomData(3 * LazyBlock)
	node := file(tree.Extent{Pack: id, Off: start, Len: int64(len(data))})
	buf := make([]byte, len(data))

	if _, err := s.File(id); !errors.Is(err, ErrPartial) {
		t.Errorf("file of a partial pack: got %v, want ErrPartial", err)
	}
	if _, err := s.ReadAt(node, buf, 0); !errors.Is(err, ErrPartial) {
		t.Errorf("nobody fetches: got %v, want ErrPartial", err)
	}
	if !s.Waits(id, start, 1) {
		t.Error("waits for what is missing: got false, want true")
	}
	remove := s.AddFiller(id, func(tree.PackID, int64, int64) error { return nil })
	if _, err := s.ReadAt(node, buf, 0); !errors.Is(err, ErrPartial) {
		t.Errorf("who fetches lies: got %v, want ErrPartial", err)
	}
	remove()
	broken := errors.New("no network")
	s.AddFiller("", func(tree.PackID, int64, int64) error { return broken })
	if _, err := s.ReadAt(node, buf, 0); !errors.Is(err, broken) {
		t.Errorf("fetching fails: got %v, want its error", err)
	}
	fillBlocks(t, l, start, data[:LazyBlock])
	if _, err := s.ReadAt(node, buf, 0); !errors.Is(err, broken) {
		t.Errorf("some of it is there: got %v, want an error", err)
	}
	if _, err := s.ReadAt(node, buf[:LazyBlock], 0); err != nil || !bytes.Equal(buf[:LazyBlock], data[:LazyBlock]) {
		t.Errorf("what is there: got %v and other bytes", err)
	}
	s.AddFiller("", func(tree.PackID, int64, int64) error {
		fillBlocks(t, l, start, data)
		return nil
	})
	if _, err := s.ReadAt(node, buf, 0); err != nil || !bytes.Equal(buf, data) {
		t.Errorf("fetched: got %v and other bytes", err)
	}
	if s.Waits(id, start, int64(len(data))) {
		t.Error("waits for what is there: got true, want false")
	}
	if err := l.Forget(start+LazyBlock, 1); err != nil || !s.Waits(id, start, int64(len(data))) {
		t.Errorf("forgotten: got %v, and it counts as there", err)
	}
	if err := l.Finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.File(id); err != nil {
		t.Errorf("file of a whole pack: %v", err)
	}
}

// The places of a lazy pack that are no data are nobody's, and a damaged head is an error.
func TestLazyDamaged(t *testing.T) {
	dir := t.TempDir()
	id, l, start := newLazy(t, dir, 4)
	for _, at := range []int64{0, LazyBlock, start + 1, start + 5*LazyBlock, -LazyBlock} {
		if err := l.Mark(at, 1); err == nil {
			t.Errorf("mark at %d of a pack whose data starts at %d: got no error", at, start)
		}
	}
	for _, head := range []string{"fblazy2\n", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if err := os.WriteFile(filepath.Join(dir, string(id)), []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenLazy(dir, id); err == nil {
			t.Errorf("head %q: got no error", head)
		}
		if _, err := newSet(t, dir).File(id); err == nil {
			t.Errorf("head %q: a set took it for whole", head)
		}
	}
	for data := int64(1); data < 1<<40; data *= 7 { // all marks fit before the data
		if marks := LazyStart(data) - LazyBlock; marks < LazyStart(data)/LazyBlock+LazyBlocks(data) {
			t.Fatalf("%d bytes: %d marks for more blocks", data, marks)
		}
	}
}

package fusefs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/testenv"
)

// TestRoomIsTakenAhead: a range that was handed out is on the disk before anybody writes to it, and where there is no room that is
// known then. LAWS 17.
func TestRoomIsTakenAhead(t *testing.T) {
	testenv.NeedUserNS(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	p, err := pack.Create(dir, "spool")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abort()
	s := newSpool(p)
	const size = 5 << 20
	if _, err := s.alloc(size); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Blocks * 512; got < size {
		t.Errorf("room taken: got %d bytes, want %d", got, size)
	}
	if _, err := s.alloc(size); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("second range: got %v, want no space", err)
	}
}

// TestOverwriteStaysInPlace: bytes that the step wrote itself are written over where they lie. LAWS 16.
func TestOverwriteStaysInPlace(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh(`python3 -c '
import os
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.pwrite(f, bytes(12288), 0)
for i in range(1000): os.pwrite(f, bytes([i % 256]) * 4096, i % 3 * 4096)'`)
	if got := w.b.(*backend).steps[r.id].spool.handedOut(); got != 12288 {
		t.Errorf("spool after 1000 writes over 4 KiB: got %d bytes handed out, want 12 KiB", got)
	}
	r.finish()
}

// handedOut is how much of the spool is in use.
func (s *spool) handedOut() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.end
	for _, c := range s.chunks {
		n -= c.reach() - c.base - c.used
	}
	for _, r := range s.freed {
		n -= r.n
	}
	return n
}

// alloc hands out n bytes in one piece.
func (s *spool) alloc(n int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.scrap(n); ok {
		return at, nil
	}
	at := s.end
	return at, s.grow(n)
}

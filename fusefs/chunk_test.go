package fusefs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
)

// TestArenas has several workers take ranges, write over them, read them and give them back, while the writer works: what is in memory
// is the truth for its range, and nothing is handed out twice. In the end the disk holds what lives, and little else. LAWS 16, 17.
func TestArenas(t *testing.T) {
	p, err := pack.Create(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abort()
	s := newSpool(p)
	const workers = 3
	s.start(workers, func(err error) { t.Error(err) })
	var wg sync.WaitGroup
	kept := make([]map[int64][]byte, workers)
	for k := range workers {
		wg.Go(func() {
			u := arenaUser{a: arena{sp: s}, r: rand.New(rand.NewPCG(uint64(k), 1)), held: map[int64][]byte{}}
			for range 2500 {
				if err := u.step(); err != nil {
					t.Errorf("worker %d: %v", k, err)
					return
				}
			}
			kept[k] = u.held
		})
	}
	wg.Wait()
	s.flush()
	var live int64
	for _, held := range kept {
		for at, want := range held {
			got := make([]byte, len(want))
			if _, err := s.f.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("on the disk at %d+%d: %v, other bytes", at, len(want), err)
			}
			live += int64(len(want))
		}
	}
	if err := s.seal(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if room := st.Blocks * 512; room > 2*live+1<<20 {
		t.Errorf("room: got %d for %d live bytes", room, live)
	}
	if err := s.drop(); err != nil {
		t.Error(err)
	}
}

// arenaUser is a worker that knows what its ranges hold.
type arenaUser struct {
	a    arena
	r    *rand.Rand
	held map[int64][]byte
}

func (u *arenaUser) step() error {
	s := u.a.sp
	if len(u.held) > 0 && u.r.IntN(100) < 60 {
		for at, p := range u.held { // any
			switch u.r.IntN(3) {
			case 0:
				delete(u.held, at)
				return s.free(at, int64(len(p)))
			case 1:
				from := u.r.IntN(len(p))
				u.fill(p[from:])
				return s.writeAt(p[from:], at+int64(from))
			}
			got := make([]byte, len(p))
			if err := s.readAt(got, at); err != nil {
				return err
			}
			if !bytes.Equal(got, p) {
				return fmt.Errorf("read %d+%d: other bytes", at, len(p))
			}
			return nil
		}
	}
	tail, err := u.a.tail()
	if err != nil {
		return err
	}
	n := 1 + u.r.IntN([]int{3000, 200000}[u.r.IntN(2)])
	payload := tail[:n] // where the device would put it
	if u.r.IntN(4) == 0 {
		payload = make([]byte, n)
	}
	u.fill(payload)
	want := bytes.Clone(payload)
	at, got, err := u.a.claim(payload, int64(n+u.r.IntN(5000)))
	if err != nil {
		return err
	}
	u.held[at] = want
	if slack := got - int64(n); slack > 0 {
		return s.free(at+int64(n), slack)
	}
	return nil
}

func (u *arenaUser) fill(p []byte) {
	word := binary.LittleEndian.AppendUint64(nil, u.r.Uint64())
	for n := copy(p, word); n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}

// TestRoomOfAChunkThatWaits: what is given back of a chunk that waits for the writer is not handed out again before it was written, and is punched after it, not
// before. LAWS 16.
func TestRoomOfAChunkThatWaits(t *testing.T) {
	p, err := pack.Create(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abort()
	s := newSpool(p)
	s.most = 2
	a := arena{sp: s}
	tail, err := a.tail()
	if err != nil {
		t.Fatal(err)
	}
	const n = 1 << 20
	fill := func(b byte) []byte { return bytes.Repeat([]byte{b}, n) }
	copy(tail, fill(1))
	at, _, err := a.claim(tail[:n], n)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.enqueue(a.c)
	s.mu.Unlock()
	if err := s.free(at+block, n-block); err != nil {
		t.Fatal(err)
	}
	if s.end < at+n {
		t.Errorf("end of the spool: got %d, want at least %d, which waits to be written", s.end, at+n)
	}
	s.mu.Lock()
	err = s.punch()
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	s.start(1, func(err error) { t.Error(err) })
	s.flush()
	if err := s.seal(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Blocks * 512; got > 2*block {
		t.Errorf("room: got %d bytes for %d live ones", got, block)
	}
	if err := s.drop(); err != nil {
		t.Error(err)
	}
}

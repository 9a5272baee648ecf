package fusefs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
)

const (
	block = 4096
	// ahead is how much room is taken at a time, so that "no space left" is
	// known before a WRITE is answered (LAWS 17). The first is small: a file system
	// in memory clears it.
	ahead      = 16 << 20
	firstAhead = 1 << 20
	// garbage is how much freed room may wait to be punched (LAWS 16).
	garbage = 64 << 20
)

// spool is the step's own pack while it is written: offsets are handed out, are
// never read before they were written, and go back when nobody needs them. What
// was written last is in memory (chunk.go).
type spool struct {
	w *pack.Writer
	f *os.File

	written sync.WaitGroup // the writer
	busy    atomic.Bool    // it writes

	mu       sync.Mutex
	moved    sync.Cond // the queue, the buffers or closing changed
	chunks   []*chunk  // those in memory, in the order of their opening
	queue    []*chunk  // those that wait for the writer, the first is being written
	buffers  [][]byte  // free ones
	made     int       // buffers that exist
	most     int       // and may
	closing  bool
	end      int64 // everything behind was never handed out, or came back
	reserved int64 // room is taken up to here
	short    bool  // the writer shall take more
	asked    int64 // what reserved was when it was last asked to
	plain    bool  // the file system can't take room ahead
	freed    map[int64]run
	ends     map[int64]int64 // end of a freed run to its start
	waiting  int64           // freed bytes not punched yet
	scraps   []int64         // starts of freed runs too small to be punched
}

// run is a freed range.
type run struct {
	n       int64
	punched bool
}

func newSpool(w *pack.Writer) *spool {
	s := &spool{w: w, f: w.File(), freed: map[int64]run{}, ends: map[int64]int64{}}
	s.moved.L = &s.mu
	return s
}

// scrap hands out a freed run that no punch can give back, where there are many.
func (s *spool) scrap(n int64) (int64, bool) {
	for n < block && len(s.scraps) > 0 {
		at := s.scraps[len(s.scraps)-1]
		s.scraps = s.scraps[:len(s.scraps)-1]
		r, ok := s.freed[at]
		if !ok || r.n < n {
			continue
		}
		s.forget(at, r)
		if rest := r.n - n; rest > 0 {
			s.freed[at+n], s.ends[at+r.n] = run{n: rest, punched: r.punched}, at+n
		}
		return at, true
	}
	return 0, false
}

// grow hands out n bytes at the end. The caller holds mu.
func (s *spool) grow(n int64) error {
	if err := s.reserve(s.end + n); err != nil {
		return err
	}
	s.end += n
	return nil
}

// reserve takes room up to end, and more if there is.
func (s *spool) reserve(end int64) error {
	if end <= s.reserved || s.plain {
		return nil
	}
	if s.fallocate(end+further(end)) == nil || s.plain || s.fallocate(end) == nil {
		return nil
	}
	// What was given back and not punched yet may be enough.
	if err := s.punch(); err != nil {
		return err
	}
	if err := s.fallocate(end); err != nil {
		return fmt.Errorf("reserve %d bytes in spool: %w", end-s.reserved, err)
	}
	return nil
}

// further is how much room is taken behind end.
func further(end int64) int64 { return min(ahead, max(firstAhead, end)) }

// reserveSoon has the writer take more room before a request has to wait for it. The
// caller holds mu.
func (s *spool) reserveSoon(end int64) {
	if s.plain || s.asked == s.reserved || s.reserved-end > further(end)/2 {
		return
	}
	s.short, s.asked = true, s.reserved
	s.moved.Broadcast()
}

// reserveAhead is what reserveSoon asks for. It lets mu go meanwhile; where others took
// room or gave some back, that counts. A lack of room is told by who needs it.
func (s *spool) reserveAhead() {
	from, fd := s.reserved, int(s.f.Fd())
	n := further(from)
	s.mu.Unlock()
	s.busy.Store(true)
	err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, from, n)
	s.busy.Store(false)
	s.mu.Lock()
	s.short = false
	switch {
	case err != nil:
	case s.reserved == from:
		s.reserved = from + n
	case s.reserved < from:
		_ = s.punchRange(from, from+n) // else it stays taken until the step ends
	}
}

func (s *spool) fallocate(end int64) error {
	err := unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, s.reserved, end-s.reserved)
	switch {
	case err == nil:
		s.reserved = end
	case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
		s.plain = true
		return nil
	}
	return err
}

// free takes n bytes at at back.
func (s *spool) free(at, n int64) error {
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeBack(at, n)
	if s.waiting < garbage {
		return nil
	}
	return s.punch()
}

// takeBack enters a range that is not needed any more.
func (s *spool) takeBack(at, n int64) {
	s.waiting += n
	r := run{n: n}
	if next, ok := s.freed[at+n]; ok {
		s.forget(at+n, next)
		r.n += next.n
	}
	if start, ok := s.ends[at]; ok {
		before := s.freed[start]
		s.forget(start, before)
		at, r.n = start, r.n+before.n
	}
	end := at + r.n
	floor := int64(0) // the ranges of chunks in memory are not handed out again
	for _, c := range s.chunks {
		if c.open && c.base+c.used == end && r.n > 0 {
			end = max(at, c.base) // the chunk itself hands them out again
			c.used = end - c.base
			s.waiting -= at + r.n - end
			r.n = end - at
		}
		floor = max(floor, c.reach())
	}
	if end == s.end {
		s.end = max(at, floor)
		r.n = s.end - at
	}
	if r.n > 0 {
		s.freed[at], s.ends[at+r.n] = r, at
	}
}

func (s *spool) forget(at int64, r run) {
	delete(s.freed, at)
	delete(s.ends, at+r.n)
}

// punch gives the room of freed runs, and of what lies behind end, back.
func (s *spool) punch() error {
	s.waiting, s.scraps = 0, s.scraps[:0]
	for at, r := range s.freed {
		from, to := (at+block-1)/block*block, (at+r.n)/block*block
		if from >= to {
			s.scraps = append(s.scraps, at)
		}
		if r.punched {
			continue
		}
		whole, err := s.punchWritten(from, to)
		if err != nil {
			return err
		}
		r.punched = whole
		s.freed[at] = r
	}
	if tail := (s.end + block - 1) / block * block; s.reserved > tail+ahead {
		if err := s.punchRange(tail, s.reserved); err != nil {
			return err
		}
		s.reserved = tail
	}
	return nil
}

// punchWritten punches what is not in memory: the writer would take that room
// again, and not find it. It reports whether that was all.
func (s *spool) punchWritten(from, to int64) (whole bool, err error) {
	whole = true
	for from < to {
		end := to
		for _, c := range s.chunks {
			low, high := c.base/block*block, (c.reach()+block-1)/block*block
			switch {
			case low <= from && from < high:
				whole, from, end = false, high, high
			case from < low:
				end = min(end, low)
			}
		}
		if end = min(end, to); end > from {
			if err := s.punchRange(from, end); err != nil {
				return false, err
			}
			from = end
		}
	}
	return whole, nil
}

func (s *spool) punchRange(from, to int64) error {
	if from >= to {
		return nil
	}
	err := unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("free %d bytes of spool: %w", to-from, err)
	}
	return nil
}

// seal frees what is not needed at the end of a step.
func (s *spool) seal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.punch(); err != nil {
		return err
	}
	// Up and down again: a file that ends where it should keeps room that was
	// reserved behind its end on some file systems.
	if err := s.f.Truncate(max(s.reserved, s.end)); err != nil {
		return fmt.Errorf("end spool: %w", err)
	}
	if err := s.f.Truncate(s.end); err != nil {
		return fmt.Errorf("end spool: %w", err)
	}
	return nil
}

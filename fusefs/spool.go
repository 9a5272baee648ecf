package fusefs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
)

const (
	block = 4096
	// ahead is how much room is taken at a time, so that "no space left" is
	// known before a WRITE is answered (LAWS 17).
	ahead = 16 << 20
	// garbage is how much freed room may wait to be punched (LAWS 16).
	garbage = 64 << 20
)

// spool is the step's own pack while it is written: offsets are handed out, are
// never read before they were written, and go back when nobody needs them.
type spool struct {
	w *pack.Writer
	f *os.File

	mu       sync.Mutex
	end      int64 // everything behind was never handed out, or came back
	reserved int64 // room is taken up to here
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
	return &spool{w: w, f: w.File(), freed: map[int64]run{}, ends: map[int64]int64{}}
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

// extend hands out the n bytes behind at, if they are the next ones anyway.
func (s *spool) extend(at, n int64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at != s.end {
		return false, nil
	}
	return true, s.grow(n)
}

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
	for _, to := range []int64{end + ahead, end} {
		err := unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, s.reserved, to-s.reserved)
		switch {
		case err == nil:
			s.reserved = to
			return nil
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			s.plain = true
			return nil
		case !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EFBIG) || to == end:
			return fmt.Errorf("reserve %d bytes in spool: %w", to-s.reserved, err)
		}
	}
	return nil
}

// free takes n bytes at at back.
func (s *spool) free(at, n int64) error {
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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
	if at+r.n == s.end {
		s.end = at
	} else {
		s.freed[at], s.ends[at+r.n] = r, at
	}
	if s.waiting < garbage {
		return nil
	}
	return s.punch()
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
		if err := s.punchRange(from, to); err != nil {
			return err
		}
		r.punched = true
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

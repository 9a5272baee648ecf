package fusefs

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// chunkSize is how much of the spool is gathered before it is written.
	chunkSize = 4 << 20
	// tailRoom is what a request may need behind that: the largest WRITE, and what
	// other requests are longer than its header.
	tailRoom = maxWrite + block
	// spare is how many chunks may wait for the writer (LAWS 17: bounded memory).
	spare = 3
)

// chunk is a range of the spool that is in memory only. While it is there it is
// the truth for its range.
type chunk struct {
	buf     []byte
	base    int64 // where it stands in the spool
	used    int64 // bytes handed out
	open    bool  // an arena still hands out more of it
	writing bool
	redo    []redo // changed while it was being written
}

type redo struct{ at, n int64 }

// reach is the end of the range that c may still fill.
func (c *chunk) reach() int64 {
	if c.open {
		return c.base + int64(len(c.buf))
	}
	return c.base + c.used
}

// arena is where one worker's requests land. What it hands out is taken from its
// chunk, so that the bytes of a WRITE lie in the spool when they were read from
// the device.
type arena struct {
	sp *spool
	c  *chunk
}

// tail returns the room for the next request, waiting for the writer if too much
// is in memory.
func (a *arena) tail() ([]byte, error) {
	s := a.sp
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.c != nil && a.c.used < chunkSize {
		return a.c.buf[a.c.used:], nil
	}
	if a.c != nil {
		s.enqueue(a.c)
		a.c = nil
	}
	c, err := s.openChunk()
	if err != nil {
		return nil, err
	}
	a.c = c
	return c.buf, nil
}

// claim hands out up to want bytes of the spool side by side, the first of which
// are p. p may lie at the arena's tail, and then is in place.
func (a *arena) claim(p []byte, want int64) (at, got int64, err error) {
	s, c, n := a.sp, a.c, int64(len(p))
	s.mu.Lock()
	defer s.mu.Unlock()
	if want == n {
		if at, ok := s.scrap(n); ok {
			return at, n, s.writeLocked(p, at)
		}
	}
	room := int64(len(c.buf)) - c.used
	if room < n || s.plain {
		at, err = s.direct(p)
		return at, n, err
	}
	at, got = c.base+c.used, min(want, room)
	if err = s.reserve(at + got); err != nil && got > n {
		got = n
		err = s.reserve(at + n)
	}
	if err != nil {
		return 0, 0, err
	}
	if s.plain { // known only now
		at, err = s.direct(p)
		return at, n, err
	}
	copy(c.buf[at-c.base:], p) // mostly onto itself, which costs nothing
	c.used += got
	s.reserveSoon(at + got)
	return at, got, nil
}

// at is the offset that the next claim gets.
func (a *arena) at() int64 {
	a.sp.mu.Lock()
	defer a.sp.mu.Unlock()
	return a.c.base + a.c.used
}

// openChunk takes a free buffer. The caller holds mu.
func (s *spool) openChunk() (*chunk, error) {
	for len(s.buffers) == 0 && s.made >= s.most {
		s.moved.Wait()
	}
	c := &chunk{base: s.end, open: true}
	if k := len(s.buffers); k > 0 {
		c.buf, s.buffers = s.buffers[k-1], s.buffers[:k-1]
	} else {
		buf, err := unix.Mmap(-1, 0, chunkSize+tailRoom, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, fmt.Errorf("map spool buffer: %w", err)
		}
		c.buf = buf
		s.made++
	}
	s.end += int64(len(c.buf))
	s.chunks = append(s.chunks, c)
	return c, nil
}

// enqueue gives c to the writer, and what it did not use back.
func (s *spool) enqueue(c *chunk) {
	rest := int64(len(c.buf)) - c.used
	c.open = false
	s.takeBack(c.base+c.used, rest)
	s.queue = append(s.queue, c)
	s.moved.Broadcast()
}

// writeOut is the writer: it writes chunks until the spool is closed. An error
// is kept for whoever closes it, and reported at once by fail.
func (s *spool) writeOut(fail func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.queue) == 0 && !s.closing && !s.short {
			s.moved.Wait()
		}
		if s.short {
			s.reserveAhead()
			continue
		}
		if len(s.queue) == 0 {
			return
		}
		c := s.queue[0]
		c.writing = true
		err := s.unlockedWrite(c, redo{c.base, c.used})
		for len(c.redo) > 0 && err == nil {
			r := c.redo[0]
			c.redo = c.redo[1:]
			err = s.unlockedWrite(c, r)
		}
		s.queue = s.queue[1:]
		s.chunks = slices.DeleteFunc(s.chunks, func(x *chunk) bool { return x == c })
		s.buffers = append(s.buffers, c.buf)
		s.moved.Broadcast()
		if err != nil {
			s.mu.Unlock()
			fail(err)
			s.mu.Lock()
		}
	}
}

// unlockedWrite writes a part of c without holding mu meanwhile.
func (s *spool) unlockedWrite(c *chunk, r redo) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	s.busy.Store(true)
	defer s.busy.Store(false)
	if _, err := s.f.WriteAt(c.buf[r.at-c.base:][:r.n], r.at); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

// covering returns the chunk that holds at, or nil, and how many of the n bytes
// from there that is true for. The caller holds mu.
func (s *spool) covering(at, n int64) (*chunk, int64) {
	for _, c := range s.chunks {
		end := c.base + c.used
		switch {
		case c.base <= at && at < end:
			return c, min(n, end-at)
		case at < c.base && c.base < at+n:
			n = c.base - at
		}
	}
	return nil, n
}

// writeAt writes p to a range that was handed out.
func (s *spool) writeAt(p []byte, at int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(p, at)
}

// writeLocked is writeAt for who holds mu, which is let go while the disk works:
// the range has one owner, and no chunk comes to stand where one was handed out.
func (s *spool) writeLocked(p []byte, at int64) error {
	for len(p) > 0 {
		c, n := s.covering(at, int64(len(p)))
		if c != nil {
			copy(c.buf[at-c.base:], p[:n])
			if c.writing {
				c.redo = append(c.redo, redo{at, n})
			}
		} else if err := s.writeDisk(p[:n], at); err != nil {
			return err
		}
		p, at = p[n:], at+n
	}
	return nil
}

func (s *spool) writeDisk(p []byte, at int64) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	_, err := s.f.WriteAt(p, at)
	return err
}

// readAt fills p with bytes that were handed out and written. Missing ones are
// an error, as in any pack (LAWS 18).
func (s *spool) readAt(p []byte, at int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		c, n := s.covering(at, int64(len(p)))
		if c != nil {
			copy(p[:n], c.buf[at-c.base:])
		} else if err := s.readDisk(p[:n], at); err != nil {
			return err
		}
		p, at = p[n:], at+n
	}
	return nil
}

func (s *spool) readDisk(p []byte, at int64) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	_, err := s.f.ReadAt(p, at)
	return err
}

// start starts the writer for a spool with so many arenas.
func (s *spool) start(arenas int, fail func(error)) {
	s.most = arenas + spare + 1 // samecore.go
	s.written.Go(func() { s.writeOut(fail) })
}

// flush writes all that is in memory and ends the writer. The arenas are not used any more.
func (s *spool) flush() {
	s.mu.Lock()
	for _, c := range slices.Clone(s.chunks) {
		if c.open {
			s.enqueue(c)
		}
	}
	s.closing = true
	s.moved.Broadcast()
	s.mu.Unlock()
	s.written.Wait()
}

// drop ends the writer, with whatever it has not written, and gives the memory back.
func (s *spool) drop() error {
	s.mu.Lock()
	if !s.closing {
		s.queue, s.closing = s.queue[:min(1, len(s.queue))], true // the first may be half written
	}
	s.moved.Broadcast()
	s.mu.Unlock()
	s.written.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.chunks {
		s.buffers = append(s.buffers, c.buf)
	}
	s.chunks = nil
	for _, b := range s.buffers {
		if err := unix.Munmap(b); err != nil {
			return fmt.Errorf("unmap spool buffer: %w", err)
		}
	}
	s.buffers = nil
	return nil
}

// hold is claim where a may be nil: then from the end.
func (s *spool) hold(a *arena, p []byte, want int64) (at, got int64, err error) {
	if a != nil {
		return a.claim(p, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err = s.direct(p)
	return at, int64(len(p)), err
}

// direct hands out room for p at the end and writes p at once. The caller holds mu.
func (s *spool) direct(p []byte) (int64, error) {
	at, n := s.end, int64(len(p))
	if err := s.grow(n); err != nil {
		return 0, err
	}
	if err := s.writeLocked(p, at); err != nil {
		s.takeBack(at, n)
		return 0, err
	}
	return at, nil
}

package fusefs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fbuild/fbuild/tree"
)

const (
	// settleTime is how long a file is left alone before it counts as done. The kernel
	// does not say when it is closed (Open), and what a program makes and removes at once
	// is gone by then.
	settleTime  = time.Second
	mostWritten = 1 << 16
)

// settling knows the files that the step wrote, for a build that compresses them while
// the command still runs. It is only a help: what it lacks, and what changes later, is
// compressed at the end.
type settling struct {
	least atomic.Int64 // smaller files don't count; 0 while nobody asks
	busy  atomic.Bool  // somebody works on what was given out, on a processor that is free

	mu      sync.Mutex
	written []uint64 // inodes, each once
}

// written notes a file that grew. The caller holds mu.
func (s *step) written(i *inode) {
	q := &s.settling
	least := q.least.Load()
	if least == 0 || i.size < least || i.noted {
		return
	}
	i.noted = true
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.written) < mostWritten {
		q.written = append(q.written, i.id)
	}
}

// settled is recorder.Settler.Settled of one step.
func (s *step) settled(least int64, most int, now tree.Time) [][]tree.Extent {
	q := &s.settling
	q.least.Store(least)
	q.mu.Lock()
	list := q.written
	q.written = nil
	q.mu.Unlock()

	var out [][]tree.Extent
	var left []uint64
	for k, id := range list {
		if len(out) >= most {
			left = append(left, list[k:]...)
			break
		}
		switch extents, later := s.place(id, least, now); {
		case later:
			left = append(left, id)
		case extents != nil:
			out = append(out, extents)
		}
	}
	q.mu.Lock()
	q.written = append(left, q.written...)
	q.mu.Unlock()
	q.busy.Store(len(out) > 0)
	return out
}

// place returns where the bytes of a new file are, nil where they are not all in the
// spool; later says that they may still change, or are not written out yet.
func (s *step) place(id uint64, least int64, now tree.Time) (extents []tree.Extent, later bool) {
	s.mu.Lock()
	i := s.inode(id)
	if i == nil || i.file == nil || i.nlink == 0 {
		s.mu.Unlock()
		return nil, false
	}
	young := now.Time().Sub(i.ctime.Time()) < settleTime
	s.mu.Unlock()
	if young {
		return nil, true
	}
	i.file.mu.RLock()
	defer i.file.mu.RUnlock()
	if !i.file.own || i.size < least {
		return nil, false
	}
	var at int64
	for _, x := range i.file.spans {
		if x.at != at || x.pack != 0 {
			return nil, false
		}
		if s.spool.holds(x.src, x.n) {
			return nil, true
		}
		extents = append(extents, tree.Extent{Pack: s.packID(0), Off: x.src, Len: x.n})
		at = x.end()
	}
	if at != i.size {
		return nil, false
	}
	return extents, false
}

// holds says that some of a range is in memory only.
func (s *spool) holds(at, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, k := s.covering(at, n)
	return c != nil || k < n
}

// Settled is recorder.Settler.Settled.
func (b *backend) Settled(id string, least int64, most int) [][]tree.Extent {
	b.mu.Lock()
	s := b.steps[id]
	b.mu.Unlock()
	if s == nil {
		return nil // it is over
	}
	return s.settled(least, most, tree.TimeOf(time.Now()))
}

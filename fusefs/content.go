package fusefs

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/fbuild/fbuild/tree"
)

// content is the bytes of a file.
type content struct {
	mu     sync.RWMutex
	own    bool   // spans hold the bytes; else the base's extents do
	spans  []span // in order, never empty ones; what is between is a hole
	stored atomic.Int64

	// The room behind the last span in the spool, kept for a file that grows.
	slackAt, slackEnd int64
}

// span is n bytes at offset at of a file, found at src of a pack.
type span struct {
	at, n, src int64
	pack       int32 // 0 is the spool, whose ranges have one owner
}

func (x span) end() int64 { return x.at + x.n }

// Slack for a file that grows while others do.
const (
	minSlack = 64 << 10
	maxSlack = 8 << 20
)

// take makes the base's extents spans, so that they can change. No byte moves.
func (s *step) take(i *inode) {
	c := i.file
	if c.own {
		return
	}
	c.own = true
	var at int64
	for _, x := range i.base.Extents {
		if x.Pack != "" {
			c.spans = append(c.spans, span{at, x.Len, x.Off, s.packNumber(x.Pack)})
		}
		at += x.Len
	}
}

// packNumber names a pack in spans.
func (s *step) packNumber(id tree.PackID) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.packIndex[id]
	if !ok {
		n = int32(len(s.packIDs))
		s.packIDs = append(s.packIDs, id)
		s.packIndex[id] = n
	}
	return n
}

// packID is the reverse of packNumber.
func (s *step) packID(n int32) tree.PackID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.packIDs[n]
}

// find returns the index of the first span that ends behind off.
func (c *content) find(off int64) int {
	return sort.Search(len(c.spans), func(k int) bool { return c.spans[k].end() > off })
}

// cut makes [from, to) a hole.
func (c *content) cut(sp *spool, from, to int64) error {
	first := c.find(from)
	last := first
	var keep []span
	var err error
	for ; last < len(c.spans) && c.spans[last].at < to; last++ {
		x := c.spans[last]
		a, b := max(x.at, from), min(x.end(), to)
		if a > x.at {
			keep = append(keep, span{x.at, a - x.at, x.src, x.pack})
		}
		if b < x.end() {
			keep = append(keep, span{b, x.end() - b, x.src + b - x.at, x.pack})
		}
		c.stored.Add(a - b)
		if x.pack == 0 {
			if ferr := sp.free(x.src+a-x.at, b-a); err == nil {
				err = ferr
			}
		}
	}
	c.spans = slices.Replace(c.spans, first, last, keep...)
	return err
}

// put enters x, whose range is a hole.
func (c *content) put(x span) {
	c.stored.Add(x.n)
	k := c.find(x.at)
	if k > 0 && joins(c.spans[k-1], x) {
		c.spans[k-1].n += x.n
		if k < len(c.spans) && joins(c.spans[k-1], c.spans[k]) {
			c.spans[k-1].n += c.spans[k].n
			c.spans = slices.Delete(c.spans, k, k+1)
		}
		return
	}
	if k < len(c.spans) && joins(x, c.spans[k]) {
		y := &c.spans[k]
		y.at, y.n, y.src = x.at, y.n+x.n, x.src
		return
	}
	c.spans = slices.Insert(c.spans, k, x)
}

func joins(a, b span) bool { return a.pack == b.pack && a.end() == b.at && a.src+a.n == b.src }

// room returns where the next bytes, at most n, of the hole at off shall go, and
// how many of them. A file that grows gets its bytes side by side.
func (c *content) room(sp *spool, off, n int64) (src, got int64, err error) {
	k := c.find(off) - 1
	if k < 0 || c.spans[k].end() != off || c.spans[k].pack != 0 {
		src, err = sp.alloc(n)
		return src, n, err
	}
	end := c.spans[k].src + c.spans[k].n
	if c.slackAt == end && c.slackEnd > end {
		got = min(n, c.slackEnd-end)
		c.slackAt += got
		return end, got, nil
	}
	if ok, err := sp.extend(end, n); ok {
		return end, n, err
	}
	if err := c.dropSlack(sp); err != nil {
		return 0, 0, err
	}
	want := max(n, min(maxSlack, max(minSlack, off)))
	src, err = sp.alloc(want)
	if err != nil && want > n {
		src, err = sp.alloc(n)
		want = n
	}
	if err == nil {
		c.slackAt, c.slackEnd = src+n, src+want
	}
	return src, n, err
}

func (c *content) dropSlack(sp *spool) error {
	at, n := c.slackAt, c.slackEnd-c.slackAt
	c.slackAt, c.slackEnd = 0, 0
	return sp.free(at, n)
}

// write stores p at off: in place where the spool has the range already, else
// in new room. Bytes before an error are written.
func (s *step) write(c *content, off int64, p []byte) (int, error) {
	done := 0
	for done < len(p) {
		at, rest := off+int64(done), int64(len(p)-done)
		k := c.find(at)
		if k < len(c.spans) && c.spans[k].at <= at && c.spans[k].pack == 0 {
			x := c.spans[k]
			n := min(rest, x.end()-at)
			if _, err := s.spool.f.WriteAt(p[done:done+int(n)], x.src+at-x.at); err != nil {
				return done, err
			}
			done += int(n)
			continue
		}
		for ; k < len(c.spans) && c.spans[k].at < at+rest; k++ {
			if c.spans[k].pack == 0 {
				rest = c.spans[k].at - at
				break
			}
		}
		n, err := s.writeNew(c, at, p[done:done+int(rest)])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// writeNew stores p at off in new room; it may stop early.
func (s *step) writeNew(c *content, off int64, p []byte) (int, error) {
	src, n, err := c.room(s.spool, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	if _, err := s.spool.f.WriteAt(p[:n], src); err != nil {
		if c.slackAt == src+n {
			c.slackAt = src // the bytes were never written; the room is dropped with the slack
		} else if ferr := s.spool.free(src, n); ferr != nil {
			return 0, ferr
		}
		return 0, err
	}
	if err := c.cut(s.spool, off, off+n); err != nil {
		return 0, err
	}
	c.put(span{at: off, n: n, src: src})
	return int(n), nil
}

// extents gives contents the form of a tree.
func (s *step) extents(c *content, size int64) []tree.Extent {
	var out []tree.Extent
	var at int64
	for _, x := range c.spans {
		if x.at > at {
			out = append(out, tree.Extent{Len: x.at - at})
		}
		out = append(out, tree.Extent{Pack: s.packID(x.pack), Off: x.src, Len: x.n})
		at = x.end()
	}
	if at < size {
		out = append(out, tree.Extent{Len: size - at})
	}
	return out
}

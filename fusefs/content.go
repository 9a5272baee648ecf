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

const (
	// maxSlack bounds the room kept for a file that grows while others do: as much
	// as it has, so that never more than twice what lives is taken (LAWS 16).
	maxSlack = 256 << 10
	// bigWrite needs none: reading such pieces costs no more than reading one.
	bigWrite = 64 << 10
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
	if n == 0 {
		return s.spool.w.ID()
	}
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

// place stores p, the next bytes of the hole at off, and returns where. A file
// that grows gets its bytes side by side.
func (c *content) place(sp *spool, a *arena, off int64, p []byte) (int64, error) {
	n := int64(len(p))
	k := c.find(off) - 1
	if k < 0 || c.spans[k].end() != off || c.spans[k].pack != 0 {
		src, _, err := sp.hold(a, p, n)
		return src, err
	}
	end := c.spans[k].src + c.spans[k].n
	if c.slackAt == end && c.slackEnd-end >= n {
		err := sp.writeAt(p, end)
		if err == nil {
			c.slackAt += n
		}
		return end, err
	}
	if err := c.dropSlack(sp); err != nil {
		return 0, err
	}
	want := n
	if n < bigWrite && a != nil && a.at() != end {
		want += min(maxSlack, off)
	}
	src, got, err := sp.hold(a, p, want)
	if err == nil && got > n {
		c.slackAt, c.slackEnd = src+n, src+got
	}
	return src, err
}

func (c *content) dropSlack(sp *spool) error {
	at, n := c.slackAt, c.slackEnd-c.slackAt
	c.slackAt, c.slackEnd = 0, 0
	return sp.free(at, n)
}

// owned returns where the spool has all n bytes at off side by side.
func (c *content) owned(off, n int64) (int64, bool) {
	k := c.find(off)
	if k == len(c.spans) || c.spans[k].at > off || c.spans[k].end() < off+n || c.spans[k].pack != 0 {
		return 0, false
	}
	return c.spans[k].src + off - c.spans[k].at, true
}

// unowned returns how many of the n bytes at off come before the first that the
// spool has.
func (c *content) unowned(off, n int64) int64 {
	for k := c.find(off); k < len(c.spans) && c.spans[k].at < off+n; k++ {
		if c.spans[k].pack == 0 {
			return max(0, c.spans[k].at-off)
		}
	}
	return n
}

// write stores p at off: in place where the spool has the range already, else
// in new room. Bytes before an error are written. p may lie at a's tail.
func (s *step) write(a *arena, c *content, off int64, p []byte) (int, error) {
	n := int64(len(p))
	if n == 0 {
		return 0, nil
	}
	if at, ok := c.owned(off, n); ok {
		if err := s.spool.writeAt(p, at); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if c.unowned(off, n) == n {
		return s.writeNew(a, c, off, p)
	}
	p = slices.Clone(p) // what is claimed for one part would take the place of the next
	done := int64(0)
	for done < n {
		at, rest := off+done, n-done
		k := c.find(at)
		if k < len(c.spans) && c.spans[k].at <= at && c.spans[k].pack == 0 {
			rest = min(rest, c.spans[k].end()-at)
			if err := s.spool.writeAt(p[done:done+rest], c.spans[k].src+at-c.spans[k].at); err != nil {
				return int(done), err
			}
		} else {
			rest = c.unowned(at, rest)
			if _, err := s.writeNew(a, c, at, p[done:done+rest]); err != nil {
				return int(done), err
			}
		}
		done += rest
	}
	return len(p), nil
}

// writeNew stores p at off, of which the spool has nothing, in new room.
func (s *step) writeNew(a *arena, c *content, off int64, p []byte) (int, error) {
	src, err := c.place(s.spool, a, off, p)
	if err != nil {
		return 0, err
	}
	n := int64(len(p))
	if err := c.cut(s.spool, off, off+n); err != nil {
		return 0, err
	}
	c.put(span{at: off, n: n, src: src})
	return len(p), nil
}

// extents appends contents in the form of a tree to out, if there are any.
func (s *step) extents(out []tree.Extent, c *content, size int64) []tree.Extent {
	if len(c.spans) == 0 && size == 0 {
		return nil
	}
	out = slices.Grow(out, len(c.spans))
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

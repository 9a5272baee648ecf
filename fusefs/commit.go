package fusefs

import (
	"bytes"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// scrapRoom is how much of a pack may be waste whatever it holds.
const scrapRoom = 256 << 10

// commit makes the spool a pack, if anything of it is needed. One that is less than half
// live is copied to a new one first, and what c found comes back with that (LAWS 16).
func (s *step) commit(c *collector) (tree.PackID, tree.Changes, error) {
	if c.live == 0 {
		return "", nil, nil
	}
	if err := s.spool.seal(); err != nil {
		return "", nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.spool.f.Fd()), &st); err != nil {
		return "", nil, fmt.Errorf("stat spool: %w", err)
	}
	if st.Blocks*512 > 2*c.live+scrapRoom {
		cs := c.changes()
		id, err := s.compact(cs)
		return id, cs, err
	}
	return s.spool.w.ID(), nil, s.spool.w.Commit()
}

// compact copies what cs needs of the spool to a pack of its own.
func (s *step) compact(cs tree.Changes) (tree.PackID, error) {
	w, err := pack.Create(s.packs.Dir(), "spool")
	if err != nil {
		return "", err
	}
	defer w.Abort() // after Commit it does nothing
	copies := map[*tree.Node]*tree.Node{}
	for k := range cs {
		n := cs[k].Node
		if n == nil || len(n.Extents) == 0 {
			continue
		}
		if copies[n] == nil {
			c := n.Attrs()
			if c.Extents, err = s.copyExtents(w, n.Extents); err != nil {
				return "", err
			}
			copies[n] = &c
		}
		cs[k].Node = copies[n]
	}
	return w.ID(), w.Commit()
}

// copyExtents copies those in the spool to w; others stay where they are.
func (s *step) copyExtents(w *pack.Writer, list []tree.Extent) ([]tree.Extent, error) {
	out := make([]tree.Extent, 0, len(list))
	for _, x := range list {
		if x.Pack == s.spool.w.ID() {
			to := w.Offset()
			if _, err := io.Copy(w, io.NewSectionReader(s.spool.f, x.Off, x.Len)); err != nil {
				return nil, fmt.Errorf("compact spool: %w", err)
			}
			if w.Offset() != to+x.Len {
				return nil, fmt.Errorf("compact spool: %w", io.ErrUnexpectedEOF)
			}
			x.Pack, x.Off = w.ID(), to
			if k := len(out) - 1; k >= 0 && out[k].Pack == x.Pack && out[k].Off+out[k].Len == x.Off {
				out[k].Len += x.Len
				continue
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// sameContent compares the bytes of two files of one size. Where both have a
// hole, or the same place of a pack, nothing is read: a sparse file may be huge.
func (s *step) sameContent(a, b *tree.Node) (bool, error) {
	const piece = 1 << 20
	x, y := make([]byte, piece), make([]byte, piece)
	ca, cb := cursor{list: a.Extents}, cursor{list: b.Extents}
	for off := int64(0); off < a.Size; {
		ea, na := ca.at(off)
		eb, nb := cb.at(off)
		n := min(na, nb)
		if n <= 0 {
			return false, fmt.Errorf("compare contents: extents end at %d: %w", off, io.ErrUnexpectedEOF)
		}
		if ea.Pack == eb.Pack && (ea.Pack == "" || ea.Off == eb.Off) {
			off += n
			continue
		}
		n = min(n, piece)
		if err := s.readExtent(ea, x[:n]); err != nil {
			return false, err
		}
		if err := s.readExtent(eb, y[:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
		off += n
	}
	return true, nil
}

// cursor goes through extents in order.
type cursor struct {
	list  []tree.Extent
	start int64
}

// at returns the rest of the extent at off, which never goes back.
func (c *cursor) at(off int64) (tree.Extent, int64) {
	for len(c.list) > 0 && c.start+c.list[0].Len <= off {
		c.start += c.list[0].Len
		c.list = c.list[1:]
	}
	if len(c.list) == 0 {
		return tree.Extent{}, 0
	}
	x, skip := c.list[0], off-c.start
	return tree.Extent{Pack: x.Pack, Off: x.Off + skip, Len: x.Len - skip}, x.Len - skip
}

func (s *step) readExtent(x tree.Extent, p []byte) error {
	switch x.Pack {
	case "":
		clear(p)
		return nil
	case s.spool.w.ID():
		return s.readPack(0, p, x.Off)
	}
	return s.readPack(s.packNumber(x.Pack), p, x.Off)
}

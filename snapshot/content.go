package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// chunk is how much is read at once.
const chunk = 256 << 10

// fill writes the bytes of file node n to the empty file f; holes stay holes.
func fill(f *os.File, packs *pack.Set, n *tree.Node) error {
	var at int64
	hole := false
	for i := range n.Extents {
		x := &n.Extents[i]
		hole = x.Pack == ""
		if !hole {
			src, err := packs.At(x.Pack, x.Off, x.Len)
			if err != nil {
				return err
			}
			if err := copyRange(f, at, src, x.Off, x.Len); err != nil {
				return fmt.Errorf("copy from pack %s: %w", x.Pack, err)
			}
		}
		at += x.Len
	}
	if at != n.Size {
		return fmt.Errorf("contents are not stored: %d of %d bytes", at, n.Size)
	}
	if hole {
		return f.Truncate(at)
	}
	return nil
}

// copyRange copies bytes between files, in the kernel where it can: some file
// systems then share the blocks.
func copyRange(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	for n >= chunk {
		k, err := unix.CopyFileRange(int(src.Fd()), &srcOff, int(dst.Fd()), &dstOff, int(min(n, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			break
		}
		if err != nil {
			return fmt.Errorf("copy range: %w", err)
		}
		if k == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= int64(k) // both offsets were moved by the call
	}
	buf := make([]byte, min(n, chunk))
	for n > 0 {
		part := buf[:min(n, chunk)]
		if _, err := src.ReadAt(part, srcOff); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := dst.WriteAt(part, dstOff); err != nil {
			return err
		}
		n, srcOff, dstOff = n-int64(len(part)), srcOff+int64(len(part)), dstOff+int64(len(part))
	}
	return nil
}

// segment is a run of a file's bytes, or of its hole.
type segment struct {
	off, len int64
	hole     bool
}

// segments returns data and holes of a file in order.
func segments(f *os.File, size int64) ([]segment, error) {
	var out []segment
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return append(out, segment{at, size - at, true}), nil
		}
		if err != nil {
			return nil, fmt.Errorf("seek data: %w", err)
		}
		if data = min(data, size); data > at {
			out = append(out, segment{at, data - at, true})
		}
		if data == size {
			break
		}
		end, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("seek hole: %w", err)
		}
		end = min(end, size)
		out = append(out, segment{data, end - data, false})
		at = end
	}
	return out, nil
}

// holeSize is the least run of zeros that holes makes a hole.
const holeSize = 4096

// holes makes runs of zeros in SEGS holes.
func holes(f *os.File, segs []segment) ([]segment, error) {
	var out []segment
	add := func(s segment) {
		if k := len(out) - 1; k >= 0 && out[k].hole == s.hole {
			out[k].len += s.len
			return
		}
		out = append(out, s)
	}
	buf, zeros := make([]byte, holeSize), make([]byte, holeSize)
	for _, s := range segs {
		if s.hole {
			add(s)
			continue
		}
		for s.len > 0 {
			// To the next border: holes of file systems start there.
			n := min(s.len, holeSize-s.off%holeSize)
			if k, err := f.ReadAt(buf[:n], s.off); int64(k) < n {
				return nil, fmt.Errorf("look for holes: %w", err)
			}
			add(segment{s.off, n, bytes.Equal(buf[:n], zeros[:n])})
			s.off, s.len = s.off+n, s.len-n
		}
	}
	return out, nil
}

// nodeSegments are the data and holes of a node's extents.
func nodeSegments(n *tree.Node) []segment {
	out := make([]segment, len(n.Extents))
	var at int64
	for i, x := range n.Extents {
		out[i] = segment{at, x.Len, x.Pack == ""}
		at += x.Len
	}
	return out
}

// sameBytes compares two files of one size; what is a hole in both is not read.
func sameBytes(a io.ReaderAt, as []segment, b io.ReaderAt, bs []segment) (bool, error) {
	bufA, bufB := make([]byte, chunk), make([]byte, chunk)
	for len(as) > 0 && len(bs) > 0 {
		n := min(as[0].len, bs[0].len)
		if !as[0].hole || !bs[0].hole {
			n = min(n, chunk)
			for _, r := range []struct {
				r   io.ReaderAt
				buf []byte
			}{{a, bufA}, {b, bufB}} {
				if k, err := r.r.ReadAt(r.buf[:n], as[0].off); int64(k) < n {
					return false, fmt.Errorf("compare contents: %w", err)
				}
			}
			if !bytes.Equal(bufA[:n], bufB[:n]) {
				return false, nil
			}
		}
		as, bs = advance(as, n), advance(bs, n)
	}
	return len(as) == 0 && len(bs) == 0, nil
}

func advance(s []segment, n int64) []segment {
	if s[0].len == n {
		return s[1:]
	}
	s[0].off, s[0].len = s[0].off+n, s[0].len-n
	return s
}

// nodeReader reads the bytes of a node at offsets.
type nodeReader struct {
	packs *pack.Set
	n     *tree.Node
}

func (r nodeReader) ReadAt(p []byte, off int64) (int, error) { return r.packs.ReadAt(r.n, p, off) }

// spool is the pack of a step, made when the first byte needs it.
type spool struct {
	dir string
	w   *pack.Writer
	end int64
}

// add stores the bytes of a file.
func (s *spool) add(f *os.File, segs []segment) ([]tree.Extent, error) {
	var out []tree.Extent
	for _, seg := range segs {
		if seg.hole {
			out = append(out, tree.Extent{Len: seg.len})
			continue
		}
		if s.w == nil {
			w, err := pack.Create(s.dir, "spool")
			if err != nil {
				return nil, err
			}
			s.w = w
		}
		if err := copyRange(s.w.File(), s.end, f, seg.off, seg.len); err != nil {
			return nil, fmt.Errorf("store contents: %w", err)
		}
		out = append(out, tree.Extent{Pack: s.w.ID(), Off: s.end, Len: seg.len})
		s.end += seg.len
	}
	return out, nil
}

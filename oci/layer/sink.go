package layer

import (
	"fmt"
	"io"
	"os"
)

// holeBlock is the unit in which zeros become holes of a pack.
const holeBlock = 64 << 10

// holeWriter is a file: what is seeked over reads as zeros.
type holeWriter interface {
	io.WriteSeeker
	Truncate(size int64) error
}

// sink writes a pack. Where the writer is a file, or a pack writer that has
// one, blocks of zeros are left out.
type sink struct {
	w     io.Writer
	holes holeWriter // nil: every byte is written
	size  int64
	gap   int64 // bytes left out since the last write
}

// newSink returns a sink over w, which must be at its start: extents are counted
// from there.
func newSink(w io.Writer) (*sink, error) {
	if o, ok := w.(interface{ Offset() int64 }); ok && o.Offset() != 0 {
		return nil, fmt.Errorf("write pack: it already holds %d bytes", o.Offset())
	}
	s := &sink{w: w}
	if p, ok := w.(interface{ File() *os.File }); ok {
		s.holes = p.File()
	} else if h, ok := w.(holeWriter); ok {
		s.holes = h
	}
	if s.holes == nil {
		return s, nil
	}
	at, err := s.holes.Seek(0, io.SeekCurrent)
	if err != nil {
		s.holes = nil
		return s, nil //nolint:nilerr // a pipe is a file, too
	}
	if at != 0 {
		return nil, fmt.Errorf("write pack: it is at offset %d", at)
	}
	s.w = s.holes
	return s, nil
}

// write appends p, whose blocks count from the start of the pack.
func (s *sink) write(p []byte) error {
	if s.holes == nil {
		return s.data(p)
	}
	for start := 0; start < len(p); {
		end, zero := s.run(p, start)
		if zero {
			s.gap += int64(end - start)
			s.size += int64(end - start)
		} else if err := s.data(p[start:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// run returns the end of the blocks from start that are all zeros, or all not.
func (s *sink) run(p []byte, start int) (end int, zero bool) {
	for end = start; end < len(p); {
		n := min(len(p)-end, holeBlock-int((s.size+int64(end-start))%holeBlock))
		z := isZero(p[end : end+n])
		if end > start && z != zero {
			return end, zero
		}
		zero = z
		end += n
	}
	return end, zero
}

func (s *sink) data(p []byte) error {
	if s.gap > 0 {
		if _, err := s.holes.Seek(s.gap, io.SeekCurrent); err != nil {
			return fmt.Errorf("write pack: %w", err)
		}
		s.gap = 0
	}
	n, err := s.w.Write(p)
	s.size += int64(n)
	if err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	return nil
}

// close gives a pack that ends in a hole its size.
func (s *sink) close() error {
	if s.gap == 0 {
		return nil
	}
	if err := s.holes.Truncate(s.size); err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	return nil
}

var zeros [4096]byte

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if string(p[:len(zeros)]) != string(zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return string(p) == string(zeros[:len(p)])
}

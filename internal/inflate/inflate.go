// Package inflate decompresses DEFLATE (RFC 1951), as fast as Go without assembly
// lets it: on the layers of images about twice as fast as other packages.
//
// Owns: the decoding of one raw stream, whose end it knows to the byte. What stands
// around one (gzip's header, checksum and further members) is its caller's.
//
// Invariants: whatever comes in, it ends, reads nothing of the source beyond the end of
// the stream, and takes a fixed amount of memory. What it gives is what compress/flate
// gives, which its tests and its fuzz target compare.
//
// Concurrency: a Reader is for one goroutine.
//
// Fails when: ErrCorrupt for a stream that cannot be, io.ErrUnexpectedEOF for one that
// is cut short, else whatever the source returned.
package inflate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// ErrCorrupt is returned for a stream that nobody can have compressed.
var ErrCorrupt = errors.New("corrupt deflate stream")

const (
	window   = 32 << 10  // how far back a match may lie
	run      = 128 << 10 // of output, about, that Next gives
	maxMatch = 258
	// outSlack is what one turn of the loop in codes may write: three literals, a match,
	// and what copying words writes too much.
	outSlack = 3 + maxMatch + 16
	// inSlack is what one turn may read.
	inSlack = 24
	// viewMin is what is looked at, at least, of a source that has as much; the header
	// of a block takes at most 570 bytes.
	viewMin = 1024
	// MinBuffer is the size that the buffer of a source has at least.
	MinBuffer = 4096
)

// What comes next in the stream.
const (
	atHeader = iota
	inStored
	inCodes
	atEnd
)

// Reader decompresses one stream.
type Reader struct {
	src   *bufio.Reader
	bits  uint64 // that were taken from src and not used: fewer than 8 between calls
	n     uint   // how many
	state int
	last  bool // the block is the last one
	left  int  // of a stored block
	err   error

	out []byte // the last window, and what was decoded behind it
	pos int

	view []byte // what can be seen of src; zeros behind its end
	real int    // bytes of view that src has
	in   int    // how many of view were taken

	lit  litTable
	dist distTable
	lens [maxLit + maxDist]uint8
	pad  [viewMin + 64]byte
}

// NewReader returns a Reader of the stream that src, whose buffer has MinBuffer bytes or
// more, stands before.
func NewReader(src *bufio.Reader) *Reader {
	r := &Reader{out: make([]byte, window+run+outSlack)}
	r.Reset(src)
	return r
}

// Reset starts with another stream.
func (r *Reader) Reset(src *bufio.Reader) {
	r.src, r.bits, r.n, r.state, r.last, r.err, r.pos = src, 0, 0, atHeader, false, nil, 0
	r.view, r.real, r.in = nil, 0, 0
}

// Next returns the next run of output, valid until the next call, and io.EOF, without a
// run, at the end of the stream: the source then stands just behind it. What comes before
// an error is returned too: the start of a damaged file says what it was to be.
func (r *Reader) Next() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.pos > window {
		copy(r.out, r.out[r.pos-window:r.pos])
		r.pos = window
	}
	from := r.pos
	for r.err == nil && r.pos <= len(r.out)-outSlack {
		r.err = r.step()
	}
	r.leave()
	if r.pos == from {
		return nil, r.err
	}
	return r.out[from:r.pos], nil
}

// step decodes until the output is full, the view is used up or a block ends.
func (r *Reader) step() error {
	if r.state == atEnd {
		return io.EOF
	}
	if r.in+inSlack > len(r.view) || r.state == atHeader && r.in+viewMin > len(r.view) {
		if err := r.look(); err != nil {
			return err
		}
	}
	var err error
	before := r.pos
	switch r.state {
	case atHeader:
		err = r.header()
	case inStored:
		err = r.stored()
	case inCodes:
		err = r.codes()
	}
	if r.in-int(r.n/8) > r.real { // zeros that the source does not have were used
		r.pos = before
		return io.ErrUnexpectedEOF
	}
	return err
}

// leave gives back what was taken of the source and not used.
func (r *Reader) leave() {
	r.in -= int(r.n / 8)
	r.n %= 8
	r.bits &= 1<<r.n - 1
	_, _ = r.src.Discard(min(r.in, r.real)) // they are in its buffer
	r.view, r.real, r.in = nil, 0, 0
}

// look takes a new view of the source.
func (r *Reader) look() error {
	r.leave()
	b, err := r.src.Peek(viewMin)
	if len(b) == viewMin {
		r.view, err = r.src.Peek(r.src.Buffered())
		r.real = len(r.view)
		return err
	}
	if err != io.EOF { // one that is wrapped is a fault of the source
		return err
	}
	r.real = copy(r.pad[:], b)
	clear(r.pad[r.real:])
	r.view = r.pad[:]
	return nil
}

// need makes sure of 56 bits.
func (r *Reader) need() {
	r.bits |= binary.LittleEndian.Uint64(r.view[r.in:r.in+8]) << (r.n & 63)
	r.in += int((63 - r.n) >> 3)
	r.n |= 56
}

// take takes k bits that are there.
func (r *Reader) take(k uint) int {
	v := r.bits & (1<<k - 1)
	r.bits >>= k
	r.n -= k
	return int(v)
}

// stored copies what is in the view of a block that is not compressed.
func (r *Reader) stored() error {
	k := min(r.left, r.real-r.in, len(r.out)-r.pos)
	if k <= 0 && r.left > 0 { // a view that is not the last has some
		return io.ErrUnexpectedEOF
	}
	copy(r.out[r.pos:], r.view[r.in:r.in+k])
	r.in, r.pos, r.left = r.in+k, r.pos+k, r.left-k
	if r.left == 0 {
		r.blockEnds()
	}
	return nil
}

func (r *Reader) blockEnds() {
	r.state = atHeader
	if r.last {
		r.state = atEnd
	}
}

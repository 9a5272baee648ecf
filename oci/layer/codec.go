package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// codec is a compression, recognised by the first bytes of a stream.
type codec int

const (
	plain codec = iota
	codecGzip
	codecZstd
	codecBzip2
	codecXz
)

func (c codec) String() string {
	return [...]string{"plain", "gzip", "zstd", "bzip2", "xz"}[c]
}

var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicBzip2 = []byte("BZh")
	magicXz    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
)

// magicLen bytes are enough to tell the codecs apart.
const magicLen = 6

func detect(b []byte) codec {
	switch {
	case bytes.HasPrefix(b, magicGzip):
		return codecGzip
	case bytes.HasPrefix(b, magicZstd), len(b) >= 4 && b[0]&0xf0 == 0x50 && bytes.Equal(b[1:4], []byte{0x2a, 0x4d, 0x18}):
		return codecZstd // its own magic, or that of a skippable frame
	case bytes.HasPrefix(b, magicBzip2):
		return codecBzip2
	case bytes.HasPrefix(b, magicXz):
		return codecXz
	}
	return plain
}

// maxWindow is what a zstd frame may have us hold; `zstd --long` asks for as
// much, and larger ones need a switch there, too.
const maxWindow = 128 << 20

var errWindow = zstd.ErrWindowSizeExceeded

// decompressor reads the uncompressed stream of r. close frees what it holds.
type decompressor struct {
	io.Reader
	close func()
}

// newDecompressor returns a decompressor over r. Errors of r pass unchanged
// where the codec lets them.
func newDecompressor(r *bufio.Reader, n *notes, adding bool) (*decompressor, error) {
	head, err := r.Peek(magicLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	d := &decompressor{Reader: r, close: func() {}}
	c := detect(head)
	switch {
	case c == codecGzip:
		d.Reader = &gunzip{src: r, notes: n}
	case c == codecZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("open zstd stream: %w", err)
		}
		d.Reader, d.close = z, z.Close
	case c == plain:
	case !adding:
		return nil, fmt.Errorf("%w: compressed with %s, which no image layer may be", ErrCorrupt, c)
	case c == codecBzip2:
		d.Reader = bzip2.NewReader(r)
	case c == codecXz:
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("open xz stream: %w", err)
		}
		d.Reader = x
	}
	return d, nil
}

// gunzip reads a gzip stream of one or many members. Zeros behind the last one
// are padding, as gzip takes them; anything else is damage.
type gunzip struct {
	src   *bufio.Reader
	z     *gzip.Reader
	notes *notes
	done  bool
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		if g.done {
			return 0, io.EOF
		}
		if g.z == nil {
			z, err := gzip.NewReader(g.src)
			if err != nil {
				return 0, short(err)
			}
			z.Multistream(false)
			g.z = z
		}
		n, err := g.z.Read(p)
		if err == io.EOF { //nolint:errorlint // one that is wrapped is a fault of src
			err = g.member()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// member goes on to the next member, or to the end of the stream.
func (g *gunzip) member() error {
	head, err := g.src.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, magicGzip) {
		if err := g.z.Reset(g.src); err != nil {
			return short(err)
		}
		g.z.Multistream(false)
		return nil
	}
	g.done = true
	for {
		b, err := g.src.ReadByte()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if b != 0 {
			return errors.New("bytes behind the gzip stream that are neither a member nor padding")
		}
		g.notes.add("zeros behind the gzip stream are ignored")
	}
}

// short turns the end of a stream inside a header into what it is.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// describe gives an error of a codec without the codec's own prefixes.
func describe(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the compressed stream is cut short"
	}
	return strings.TrimPrefix(err.Error(), "gzip: ")
}

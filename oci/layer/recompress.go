package layer

import (
	"bufio"
	"context"
	"fmt"
	"io"
)

// Recompress writes the tar of a layer blob, byte for byte, with another
// compression, which must not be a seekable one: those are of changes. Sealed has
// no Changes.
//
// ErrCorrupt and ErrTooLarge are returned for what the blob is to blame for.
func Recompress(ctx context.Context, out io.Writer, blob io.Reader, lim Limits, o Options) (Sealed, error) {
	var n notes
	in := &counted{r: blob}
	d, err := newDecompressor(bufio.NewReaderSize(in, inChunk), &n, false)
	if err != nil {
		return Sealed{}, fmt.Errorf("recompress layer: %w", err)
	}
	defer d.close()
	s := newSealing(out, nil, o)
	s.stream = &bounded{r: d, in: in, lim: lim.withDefaults()}
	if err := s.seal(ctx, nil); err != nil {
		return Sealed{}, fmt.Errorf("recompress layer: %w", err)
	}
	sealed := s.sealed(nil)
	sealed.Notes = n.done()
	return sealed, nil
}

// counted counts what is read.
type counted struct {
	r   io.Reader
	n   int64
	err error // of r, which is no fault of the stream's
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// bounded reads a decompressor within limits.
type bounded struct {
	r   io.Reader
	in  *counted
	lim Limits
	n   int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	switch {
	case b.n > b.lim.MaxSize && b.n/b.lim.MaxRatio > b.in.n:
		return n, fmt.Errorf("%w: more than %d bytes come out of %d", ErrTooLarge, b.n, b.in.n)
	case err == nil || err == io.EOF || b.in.err != nil:
		return n, err
	}
	return n, fmt.Errorf("%w: %d bytes into the tar: %s", ErrCorrupt, b.n, describe(err))
}

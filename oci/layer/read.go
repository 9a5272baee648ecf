package layer

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/tree"
)

// Sizes of the two pipes of a reading: 1 MiB of compressed and 4 MiB of
// uncompressed bytes under way.
const (
	inChunks, inChunk   = 8, 128 << 10
	outChunks, outChunk = 16, 256 << 10
)

// Read turns one layer blob (gzip of one or many members, zstd or plain, told
// apart by their first bytes) into a pack and changes.
//
// The pack gets the uncompressed tar as it came; where it is a file, or has one
// (pack.Writer), runs of zeros become holes, and its position or Offset is not
// kept. File extents lie in packID. The blob is read to its very end unless the
// call fails, so that digests taken on the way are complete.
//
// ErrCorrupt and ErrTooLarge are returned for what the blob is to blame for.
func Read(ctx context.Context, blob io.Reader, packID tree.PackID, pack io.Writer, lim Limits) (tree.Changes, Info, error) {
	cs, info, err := read(ctx, blob, packID, pack, lim, false)
	if err != nil {
		return nil, Info{}, fmt.Errorf("read layer: %w", err)
	}
	return cs, info, nil
}

// Extract reads an archive for ADD, also bzip2 and xz. The paths of the changes
// are those inside the archive; hard links must find their target in it, and
// names of whiteouts are refused.
//
// ErrNotArchive is returned for a file that is none, by its contents and not
// its name, before anything was written to pack; some of r is consumed then.
func Extract(ctx context.Context, r io.Reader, packID tree.PackID, pack io.Writer, lim Limits) (tree.Changes, Info, error) {
	cs, info, err := read(ctx, r, packID, pack, lim, true)
	if errors.Is(err, ErrNotArchive) {
		return nil, Info{}, ErrNotArchive
	}
	if err != nil {
		return nil, Info{}, fmt.Errorf("extract archive: %w", err)
	}
	return cs, info, nil
}

// reading is one call of Read or Extract: a goroutine that reads the blob, one
// that decompresses, one that hashes the tar, one that writes the pack and one
// that parses.
type reading struct {
	lim    Limits
	adding bool
	in     *pipe        // compressed
	out    *pipe        // uncompressed
	taken  atomic.Int64 // compressed bytes that the decompressor has asked for
	outSum hash.Hash
	size   int64
	// The decompressor and the parser each have their own.
	streamNotes, tarNotes notes
}

// Consumers of the uncompressed stream.
const (
	toHash = iota
	toPack
	toParser
	consumers
)

func read(ctx context.Context, blob io.Reader, packID tree.PackID, pack io.Writer, lim Limits, adding bool) (tree.Changes, Info, error) {
	out, err := newSink(pack)
	if err != nil {
		return nil, Info{}, err
	}
	r := &reading{
		lim:    lim.withDefaults(),
		adding: adding,
		in:     newPipe(inChunks, inChunk, 1),
		out:    newPipe(outChunks, outChunk, consumers),
		outSum: sha256.New(),
	}
	var cs tree.Changes
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.feed(ctx, blob) })
	g.Go(func() error { return r.inflate(ctx) })
	g.Go(func() error {
		return r.out.each(ctx, toHash, func(b []byte) error {
			r.outSum.Write(b)
			return nil
		})
	})
	g.Go(func() error {
		if err := r.out.each(ctx, toPack, out.write); err != nil {
			return err
		}
		return out.close()
	})
	g.Go(func() error {
		var err error
		cs, err = r.parse(ctx, packID)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, Info{}, err
	}
	return cs, Info{
		DiffID:  digest(r.outSum),
		TarSize: out.size,
		Size:    r.size,
		Notes:   append(r.streamNotes.done(), r.tarNotes.done()...),
	}, nil
}

func digest(h hash.Hash) tree.Digest {
	return tree.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// feed reads the blob to its end.
func (r *reading) feed(ctx context.Context, blob io.Reader) error {
	for {
		c, err := r.in.get(ctx)
		if err != nil {
			return err
		}
		var end bool
		c.n, end, err = readFull(blob, c.b)
		r.size += int64(c.n)
		r.in.put(c)
		if err != nil {
			return err
		}
		if end {
			r.in.close()
			return nil
		}
	}
}

// readFull fills p as far as src goes; end may come with the last bytes. Only
// io.EOF itself is the end: an error that wraps it is of a stream cut short.
func readFull(src io.Reader, p []byte) (n int, end bool, err error) {
	for empty := 0; n < len(p); {
		k, err := src.Read(p[n:])
		n += k
		switch {
		case err == io.EOF:
			return n, true, nil
		case err != nil:
			return n, false, err
		case k > 0:
			empty = 0
		default:
			if empty++; empty > 100 {
				return n, false, io.ErrNoProgress
			}
		}
	}
	return n, false, nil
}

// compressed is the decompressor's view of the blob.
type compressed struct {
	r    *reading
	next func() (*chunk, error)
	cur  *chunk
	off  int
}

func (c *compressed) Read(p []byte) (int, error) {
	for c.cur == nil || c.off == c.cur.n {
		c.r.in.release(c.cur)
		c.cur, c.off = nil, 0
		next, err := c.next()
		if err != nil {
			return 0, err
		}
		if next == nil {
			return 0, io.EOF
		}
		c.cur = next
	}
	n := copy(p, c.cur.b[c.off:c.cur.n])
	c.off += n
	c.r.taken.Add(int64(n))
	return n, nil
}

// inflate decompresses into the second pipe, within the limits.
func (r *reading) inflate(ctx context.Context) error {
	// The zstd decoder reads ahead in goroutines: ended before it is closed.
	srcCtx, cancel := context.WithCancel(ctx)
	src := bufio.NewReaderSize(&compressed{r: r, next: func() (*chunk, error) { return r.in.take(srcCtx, 0) }}, 64<<10)
	d, err := newDecompressor(src, &r.streamNotes, r.adding)
	if err != nil {
		cancel()
		return r.streamError(ctx, 0, err)
	}
	defer d.close()
	defer cancel()
	var total int64
	for {
		c, err := r.out.get(ctx)
		if err != nil {
			return err
		}
		var end bool
		c.n, end, err = readFull(d, c.b)
		if r.adding && total == 0 && !startsTar(c.b[:c.n]) && ctx.Err() == nil {
			return ErrNotArchive
		}
		total += int64(c.n)
		if err != nil {
			return r.streamError(ctx, total, err)
		}
		if taken := r.taken.Load(); total > r.lim.MaxSize && total/r.lim.MaxRatio > taken {
			return fmt.Errorf("%w: more than %d bytes come out of %d", ErrTooLarge, total, taken)
		}
		r.out.put(c)
		if end {
			r.out.close()
			return nil
		}
	}
}

// streamError blames the blob for what the decompressor says, unless the call
// has ended for another reason.
func (r *reading) streamError(ctx context.Context, total int64, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.adding && total == 0 {
		return ErrNotArchive
	}
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	if errors.Is(err, errWindow) {
		return fmt.Errorf("%w: its zstd window exceeds %d bytes", ErrTooLarge, int64(maxWindow))
	}
	return fmt.Errorf("%w: %d bytes into the tar: %s", ErrCorrupt, total, describe(err))
}

// startsTar reports whether b starts with a header of a tar, which is how docker
// tells an archive.
func startsTar(b []byte) bool {
	return len(b) >= blockSize && block(b[:blockSize]).ok()
}

// parse reads the entries out of the second pipe.
func (r *reading) parse(ctx context.Context, packID tree.PackID) (tree.Changes, error) {
	var held *chunk
	a := &archive{pack: packID, notes: &r.tarNotes, next: func() ([]byte, error) {
		r.out.release(held)
		var err error
		held, err = r.out.take(ctx, toParser)
		if err != nil {
			return nil, err
		}
		if held == nil {
			return nil, io.EOF
		}
		return held.b[:held.n], nil
	}}
	ix := newIndex(&r.tarNotes, r.lim, r.adding)
	if err := ix.readAll(a); err != nil {
		return nil, err
	}
	return ix.changes()
}

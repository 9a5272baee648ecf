package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/tree"
)

// OCI media types of layers.
const (
	mediaGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
	mediaTar  = "application/vnd.oci.image.layer.v1.tar"
)

const (
	gzipLevel = 6
	zstdLevel = 3
	// gzipBlock is compressed on its own, after the end of the block before it:
	// its size, and not the number of cores, decides what comes out.
	gzipBlock = 1 << 20
	// maxGzipBlocks bounds what is under way on machines with many cores.
	maxGzipBlocks = 8
)

// Sizes of the pipe between the tar and its hash and compression.
const sealChunks, sealChunk = 8, 256 << 10

// Seal writes cs as a deterministic tar, compressed, to blob: the same input
// gives the same bytes, whatever the number of cores. Memory does not grow with
// the files.
//
// Names of trouble and what nobody could unpack are errors (LAWS 21, 24), and so
// are contents shorter or longer than their node says. When it fails, blob holds
// a part that is worth nothing.
func Seal(ctx context.Context, blob io.Writer, cs tree.Changes, c Contents, o Options) (Sealed, error) {
	out := &blobWriter{w: blob, sum: sha256.New()}
	z, media, err := newCompressor(out, o)
	if err != nil {
		return Sealed{}, err
	}
	p := newPipe(sealChunks, sealChunk, 3)
	diffID := sha256.New()
	sums := newFileSums()
	g, ctx := errgroup.WithContext(ctx)
	w := &pipeWriter{p: p, get: func() (*chunk, error) { return p.get(ctx) }}
	t := newTarWriter(w, c, o)
	t.file = func(n *tree.Node, spans []span) { sums.expect(w.size, n, spans) }
	g.Go(func() error {
		if err := t.all(ctx, cs); err != nil {
			return err
		}
		w.close()
		return nil
	})
	g.Go(func() error {
		return p.each(ctx, 0, func(b []byte) error {
			diffID.Write(b)
			return nil
		})
	})
	g.Go(func() error { return compress(ctx, p, z, out) })
	g.Go(func() error { return p.each(ctx, 2, sums.take) })
	if err := g.Wait(); err != nil {
		return Sealed{}, fmt.Errorf("seal layer: %w", err)
	}
	return Sealed{
		DiffID: digest(diffID), Digest: digest(out.sum),
		Size: out.size, TarSize: w.size, MediaType: media, Notes: t.notes.done(),
		Changes: sums.changes(cs),
	}, nil
}

// compress is the second consumer of the tar.
func compress(ctx context.Context, p *pipe, z io.WriteCloser, out *blobWriter) error {
	err := p.each(ctx, 1, func(b []byte) error {
		if _, err := z.Write(b); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		return out.failed()
	})
	if err != nil {
		out.stop(err)
	}
	// Closed in any case: it has goroutines.
	if cerr := z.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("compress: %w", cerr)
	}
	if err == nil {
		err = out.failed()
	}
	return err
}

func newCompressor(w io.Writer, o Options) (io.WriteCloser, string, error) {
	switch o.Compression {
	case "", "gzip":
		z, err := newGzip(w, o.Level)
		return z, mediaGzip, err
	case "zstd":
		level := o.Level
		if level == 0 {
			level = zstdLevel
		}
		if level < 1 || level > 22 {
			return nil, "", fmt.Errorf("seal layer: zstd has levels 1 to 22, not %d", level)
		}
		// The concurrency is fixed, so that nothing can depend on the machine.
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(2))
		if err != nil {
			return nil, "", fmt.Errorf("seal layer: %w", err)
		}
		return z, mediaZstd, nil
	case "uncompressed":
		return plainWriter{w}, mediaTar, nil
	}
	return nil, "", fmt.Errorf("seal layer: unknown compression %q", o.Compression)
}

// newGzip returns a writer of one gzip member (LAWS 28) whose header has neither
// time nor name, and no operating system.
func newGzip(w io.Writer, level int) (io.WriteCloser, error) {
	if level == 0 {
		level = gzipLevel
	}
	if level < 1 || level > 9 {
		return nil, fmt.Errorf("seal layer: gzip has levels 1 to 9, not %d", level)
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, fmt.Errorf("seal layer: %w", err)
	}
	if err := z.SetConcurrency(gzipBlock, min(runtime.GOMAXPROCS(0), maxGzipBlocks)); err != nil {
		return nil, fmt.Errorf("seal layer: %w", err)
	}
	z.ModTime = time.Unix(0, 0) // pgzip writes the zero Time as a number, not as 0
	return z, nil
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// blobWriter hashes and counts what goes into the blob. It never fails towards
// the compressor, whose goroutines would stay behind: failed tells.
type blobWriter struct {
	w    io.Writer
	sum  hash.Hash
	size int64

	mu  sync.Mutex
	err error
}

func (b *blobWriter) Write(p []byte) (int, error) {
	if b.failed() == nil {
		b.sum.Write(p)
		b.size += int64(len(p))
		if _, err := b.w.Write(p); err != nil {
			b.stop(fmt.Errorf("write blob: %w", err))
		}
	}
	return len(p), nil
}

func (b *blobWriter) stop(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
}

func (b *blobWriter) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// pipeWriter cuts a stream into the chunks of a pipe.
type pipeWriter struct {
	p    *pipe
	get  func() (*chunk, error)
	cur  *chunk
	size int64
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if w.cur == nil {
			c, err := w.get()
			if err != nil {
				return len(b) - len(rest), err
			}
			c.n = 0
			w.cur = c
		}
		k := copy(w.cur.b[w.cur.n:], rest)
		w.cur.n += k
		w.size += int64(k)
		rest = rest[k:]
		if w.cur.n == len(w.cur.b) {
			w.p.put(w.cur)
			w.cur = nil
		}
	}
	return len(b), nil
}

func (w *pipeWriter) close() {
	if w.cur != nil {
		w.p.put(w.cur)
	}
	w.p.close()
}

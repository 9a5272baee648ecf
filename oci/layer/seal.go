package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/tree"
)

// OCI media types of layers.
const (
	mediaGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
	mediaTar  = "application/vnd.oci.image.layer.v1.tar"
)

// Sizes of the pipe between the tar and its hashes.
const sealChunks, sealChunk = 8, 256 << 10

// Consumers of the tar.
const (
	tarSum = iota
	tarFiles
	tarBlob // of a layer that is not compressed
)

// Seal writes cs as a deterministic tar, compressed, to blob: the same input
// gives the same bytes, whatever the number of cores and whatever Frames there
// are. Memory does not grow with the files. Each file is read once to be hashed,
// and a large one of which there are no frames again to be compressed.
//
// Names of trouble and what nobody could unpack are errors (LAWS 21, 24), and so
// are contents shorter or longer than their node says, and ErrFrames. When it
// fails, blob holds a part that is worth nothing.
//
// A blob with a method Digest() tree.Digest, of all that was written to it, is
// not hashed again.
func Seal(ctx context.Context, blob io.Writer, cs tree.Changes, c Contents, o Options) (Sealed, error) {
	s := newSealing(blob, c, o)
	if err := s.seal(ctx, cs); err != nil {
		return Sealed{}, fmt.Errorf("seal layer: %w", err)
	}
	return s.sealed(cs), nil
}

func newSealing(blob io.Writer, c Contents, o Options) *sealing {
	return &sealing{o: o, contents: c, out: newBlobWriter(blob), tarSum: sha256.New(), sums: newFileSums()}
}

func (s *sealing) seal(ctx context.Context, cs tree.Changes) error {
	var err error
	if s.codec, s.media, err = codecOf(s.o); err != nil {
		return err
	}
	return s.run(ctx, cs)
}

func (s *sealing) sealed(cs tree.Changes) Sealed {
	return Sealed{
		DiffID: digest(s.tarSum), Digest: s.out.digest(), Size: s.out.size, TarSize: s.tarSize,
		MediaType: s.media, Annotations: s.annotations, Notes: s.notes,
		Frames: s.z.placed, Stats: s.z.stats, Changes: s.sums.changes(cs),
	}
}

// codecOf returns how a layer is compressed, nil for not at all.
func codecOf(o Options) (*frameCodec, string, error) {
	switch o.Compression {
	case "", "gzip":
		c, err := newGzipCodec(o.Level)
		return c, mediaGzip, err
	case "zstd":
		c, err := newZstdCodec(o.Level)
		return c, mediaZstd, err
	case "estargz":
		c, err := newStargzCodec(o.Level)
		return c, mediaGzip, err
	case "zstd:chunked":
		c, err := newChunkedCodec(o.Level)
		return c, mediaZstd, err
	case "uncompressed":
		return nil, mediaTar, nil
	}
	return nil, "", fmt.Errorf("unknown compression %q", o.Compression)
}

// sealing is one call of Seal: a goroutine that writes the tar, one that hashes
// it, one that hashes its files, and those of the compression.
type sealing struct {
	o        Options
	codec    *frameCodec
	media    string
	contents Contents
	stream   io.Reader // the tar itself, instead of changes
	out      *blobWriter

	tarSum  hash.Hash
	tarCRC  uint32
	tarSize int64
	sums    *fileSums
	notes   []string
	z       compression

	toc         *toc // of a seekable layer
	annotations map[string]string
}

func (s *sealing) run(ctx context.Context, cs tree.Changes) error {
	consumers := tarBlob
	if s.codec == nil {
		consumers++
	}
	p := newPipe(sealChunks, sealChunk, consumers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return p.each(ctx, tarSum, func(b []byte) error {
			s.tarSum.Write(b)
			s.tarCRC = crc32.Update(s.tarCRC, crc32.IEEETable, b)
			return nil
		})
	})
	g.Go(func() error { return p.each(ctx, tarFiles, s.sums.take) })
	w := &pipeWriter{p: p, get: func() (*chunk, error) { return p.get(ctx) }}
	if s.codec == nil {
		g.Go(func() error { return p.each(ctx, tarBlob, s.out.all) })
		g.Go(func() error { return s.plain(ctx, w, cs) })
		return g.Wait()
	}
	if s.o.Workers == nil {
		s.o.Workers = NewWorkers()
	}
	defer s.o.Workers.begin()()
	if s.codec.finish != nil {
		s.toc = newTOC(s.codec.zstd)
	}
	s.z = compression{codec: s.codec, w: s.o.Workers, contents: s.contents, frames: s.o.Frames, out: s.out, toc: s.toc}
	runs := make(chan *run, maxRuns)
	g.Go(func() error { return s.cut(ctx, w, cs, runs) })
	g.Go(func() error { return s.z.do(ctx, runs) })
	err := g.Wait()
	for left := true; left; { // of a Seal that failed
		select {
		case r := <-runs:
			if left = r != nil; left && r.group != nil {
				s.codec.release(s.o.Workers, r.group)
			}
		default:
			left = false
		}
	}
	if err == nil && (s.z.size != s.tarSize || s.z.crc != s.tarCRC) {
		err = ErrFrames
	}
	if err == nil && s.toc != nil {
		var enc encoder
		if enc, err = s.codec.encoder(); err == nil {
			err = s.codec.finish(s, enc)
		}
	}
	return err
}

// cut writes the tar into the pipe and cuts it into runs.
func (s *sealing) cut(ctx context.Context, w *pipeWriter, cs tree.Changes, runs chan *run) error {
	c := &cutter{codec: s.codec, w: s.o.Workers, out: w, sums: s.sums, runs: runs, ctx: ctx}
	defer c.abandon()
	t := newTarWriter(c, s.contents, s.o)
	t.entry, t.file = c.entry, c.file
	if s.toc != nil {
		c.toc, t.wrote, t.dense, t.open = s.toc, s.toc.add, true, !s.codec.zstd
	}
	if err := s.tar(ctx, t, cs); err != nil {
		return err
	}
	s.tarSize, s.notes = w.size, t.notes.done()
	return c.close()
}

// plain writes the tar into the pipe.
func (s *sealing) plain(ctx context.Context, w *pipeWriter, cs tree.Changes) error {
	t := newTarWriter(w, s.contents, s.o)
	t.file = func(n, _ *tree.Node, spans []span) error {
		s.sums.expect(w.size, n, spans, nil)
		return nil
	}
	if err := s.tar(ctx, t, cs); err != nil {
		return err
	}
	s.tarSize, s.notes = w.size, t.notes.done()
	w.flush()
	w.p.close()
	return nil
}

// tar writes the changes, or copies the tar that there is already.
func (s *sealing) tar(ctx context.Context, t *tarWriter, cs tree.Changes) error {
	if s.stream == nil {
		return t.all(ctx, cs)
	}
	if _, err := io.CopyBuffer(t.w, s.stream, make([]byte, sealChunk)); err != nil {
		return err
	}
	return nil
}

// blobWriter counts what goes into the blob, and hashes it unless that does.
type blobWriter struct {
	w    io.Writer
	own  interface{ Digest() tree.Digest }
	sum  hash.Hash
	size int64
}

func newBlobWriter(w io.Writer) *blobWriter {
	b := &blobWriter{w: w}
	if own, ok := w.(interface{ Digest() tree.Digest }); ok {
		b.own = own
	} else {
		b.sum = sha256.New()
	}
	return b
}

func (b *blobWriter) Write(p []byte) (int, error) {
	if b.sum != nil {
		b.sum.Write(p)
	}
	n, err := b.w.Write(p)
	b.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	return n, nil
}

func (b *blobWriter) all(p []byte) error {
	_, err := b.Write(p)
	return err
}

func (b *blobWriter) digest() tree.Digest {
	if b.own != nil {
		return b.own.Digest()
	}
	return digest(b.sum)
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
			w.flush()
		}
	}
	return len(b), nil
}

// flush lets the consumers have all that was written.
func (w *pipeWriter) flush() {
	if w.cur != nil {
		w.p.put(w.cur)
		w.cur = nil
	}
}

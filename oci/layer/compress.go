package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/tree"
)

// ErrFrames is returned by Seal when the layer that came out is not the one that
// was to be written although every frame seemed sound: something that was reused,
// or a pack, changed. Sealing again without Frames tells which.
var ErrFrames = errors.New("frames do not fit the contents")

// job is one frame to make.
type job struct {
	size  int64
	group []byte     // its bytes, or
	node  *tree.Node // where they are,
	off   int64      // from here
	run   *run       // of a file
	sum   bool       // the digest of its bytes is wanted
	key   FrameKey
	keyed bool

	done   chan struct{} // closed when what follows stands
	out    []byte        // a buffer, counted in Workers.results
	crc    uint32
	mark   uint64 // frameSum of out, of one that is keyed
	reused bool
	ahead  bool // and was made for this layer
	digest tree.Digest
}

// compression turns runs into the bytes of a blob: one goroutine hands out jobs,
// workers do them, one goroutine writes what comes out in order.
type compression struct {
	codec    *frameCodec
	w        *Workers
	contents Contents
	frames   Frames // nil: none
	out      *blobWriter
	toc      *toc // of a seekable layer

	crc    uint32 // of the tar, put together from that of the frames
	size   int64
	placed []Frame
	undone *job // that the writer waited for when all was given up
	stats  Stats
}

// do compresses all runs.
func (c *compression) do(ctx context.Context, runs <-chan *run) error {
	ordered := make(chan *job, mostMemory/c.codec.block)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ordered)
		return c.dispatch(ctx, g, runs, ordered)
	})
	g.Go(func() error { return c.write(ctx, ordered) })
	err := g.Wait()
	// What was not written gives its buffers back.
	for j := range ordered {
		c.written(j)
	}
	if c.undone != nil {
		c.written(c.undone)
	}
	return err
}

// written ends the use of a job's result.
func (c *compression) written(j *job) {
	c.w.recycle(j.out)
	c.w.results.Release(c.codec.block)
}

// dispatch hands out jobs in the order of the tar. A job has a place in memory for
// its result before a worker begins, so the first that is not written yet is
// always done or being done.
func (c *compression) dispatch(ctx context.Context, g *errgroup.Group, runs <-chan *run, ordered chan<- *job) error {
	for {
		r, err := receive(ctx, runs)
		if r == nil || err != nil {
			return err
		}
		if r.node != nil {
			if _, err := receive(ctx, r.ready); err != nil {
				return err
			}
		}
		for _, j := range c.codec.parts(r) {
			if c.w.results.Acquire(ctx, c.codec.block) != nil {
				c.giveBack(j)
				return context.Cause(ctx)
			}
			ordered <- j // there is room: it has memory
			w, err := receive(ctx, c.w.idle)
			if err != nil {
				c.giveBack(j)
				return err
			}
			g.Go(func() error {
				defer func() { c.w.idle <- w }()
				defer c.giveBack(j)
				return c.work(w, j)
			})
		}
	}
}

// giveBack ends the use of the bytes of a group.
func (c *compression) giveBack(j *job) {
	if j.group != nil {
		c.codec.release(c.w, j.group)
		j.group = nil
	}
}

// work makes the frame of a job, or finds it.
func (c *compression) work(w *worker, j *job) error {
	j.out = c.w.buffer(c.codec.most())
	reused := c.reuse(j)
	if reused && !j.sum {
		close(j.done)
		return nil
	}
	in, err := c.bytes(w, j)
	if err != nil {
		return err
	}
	if j.sum {
		sum := sha256.Sum256(in)
		j.digest = digestOf(sum[:])
	}
	if reused {
		close(j.done)
		return nil
	}
	enc, err := w.encoder(c.codec)
	if err != nil {
		return err
	}
	j.crc = crc32.ChecksumIEEE(in)
	if j.out, err = enc.frame(j.out[:0], in); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if j.keyed {
		j.mark = frameSum(j.out)
	}
	close(j.done)
	return nil
}

// reuse takes the frame from an earlier layer, if it is there and sound.
func (c *compression) reuse(j *job) bool {
	if !j.keyed || c.frames == nil {
		return false
	}
	f, out, ok := c.frames.Frame(j.key, j.out[:0])
	if !ok || f.Size != j.size || int64(len(out)) != f.Len || frameSum(out) != f.Sum {
		return false
	}
	j.out, j.crc, j.mark, j.reused, j.ahead = out, f.CRC, f.Sum, true, f.Ahead
	return true
}

// bytes returns what a job is to compress.
func (c *compression) bytes(w *worker, j *job) ([]byte, error) {
	if j.group != nil {
		return j.group, nil
	}
	if int64(cap(w.block)) < j.size {
		w.block = make([]byte, c.codec.block)
	}
	b := w.block[:j.size]
	part := partOf(j.node, j.off, j.size)
	r, err := c.contents.Open(&part)
	if err != nil {
		return nil, fmt.Errorf("open contents: %w", err)
	}
	_, err = io.ReadFull(r, b)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read contents: %w", err)
	}
	return b, nil
}

// partOf returns a file that is size bytes of n from off.
func partOf(n *tree.Node, off, size int64) tree.Node {
	p := n.Attrs()
	p.Size, p.Digest, p.Extents = size, "", nil
	for _, x := range n.Extents {
		if off >= x.Len {
			off -= x.Len
			continue
		}
		k := min(size, x.Len-off)
		if k == 0 {
			break
		}
		if x.Pack != "" {
			x.Off += off
		}
		x.Len = k
		p.Extents = append(p.Extents, x)
		off, size = 0, size-k
	}
	return p
}

// encoder returns the worker's encoder for a codec.
func (w *worker) encoder(c *frameCodec) (encoder, error) {
	if id := fmt.Sprint(c.name, c.level); w.codec != id {
		enc, err := c.encoder()
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		w.enc, w.codec = enc, id
	}
	return w.enc, nil
}

// write puts the frames into the blob, in order.
func (c *compression) write(ctx context.Context, ordered <-chan *job) error {
	if _, err := c.out.Write(c.codec.head); err != nil {
		return err
	}
	for {
		j, err := receive(ctx, ordered)
		if err != nil {
			return err
		}
		if j == nil {
			break
		}
		if _, err := receive(ctx, j.done); err != nil {
			c.undone = j // a worker may still be at it
			return err
		}
		err = c.frame(j)
		c.written(j)
		if err != nil {
			return err
		}
	}
	_, err := c.out.Write(c.codec.tail(c.crc, c.size))
	return err
}

func (c *compression) frame(j *job) error {
	var before, after []byte
	if c.codec.wrap != nil {
		before, after = c.codec.wrap(j.crc, j.size)
	}
	start := c.out.size
	if j.keyed {
		c.placed = append(c.placed, Frame{
			Key: j.key, Off: start + int64(len(before)), Len: int64(len(j.out)), Size: j.size, CRC: j.crc, Sum: j.mark,
		})
	}
	c.stats.Frames++
	if !j.keyed {
		c.stats.Small++
	}
	c.stats.Bytes += j.size
	switch {
	case j.ahead:
		c.stats.Ahead++
		c.stats.AheadBytes += j.size
	case j.reused:
		c.stats.Reused++
		c.stats.ReusedBytes += j.size
	}
	c.crc, c.size = crcCombine(c.crc, j.crc, j.size), c.size+j.size
	for _, b := range [][]byte{before, j.out, after} {
		if len(b) == 0 {
			continue
		}
		if _, err := c.out.Write(b); err != nil {
			return err
		}
	}
	if c.toc != nil && j.run != nil {
		c.toc.chunk(j.run, tocChunk{off: start, end: c.out.size, size: j.size, digest: j.digest})
	}
	return nil
}

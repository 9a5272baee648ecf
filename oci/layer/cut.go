package layer

import (
	"context"
	"crypto/sha256"
	"hash/crc32"

	"github.com/fbuild/fbuild/tree"
)

// run is a piece of a tar that becomes one frame, or one for each block: the
// bytes between large files (group), or a large file (node).
type run struct {
	group []byte // a buffer, counted in Workers.groups

	node  *tree.Node // what is stored of the file, holes that are not stored left out
	seek  bool       // its blocks have digests, too
	ready chan struct{}
	// digest of the file stands when ready is closed; "" where the file is sparse,
	// whose frames have no key.
	digest tree.Digest
}

// maxRuns bounds how many runs the tar is ahead of the compression. They hold no
// bytes of large files: these are read a second time when nobody has their frames.
const maxRuns = 1 << 10

// cutter is the writer of a tar that cuts it into runs. Where it cuts depends on
// the tar alone. A group ends before a large file; at the first entry whose name
// says so when it is large enough, so that a change moves only the cuts near it;
// and when its buffer is full.
type cutter struct {
	codec *frameCodec
	w     *Workers
	out   *pipeWriter // everything goes there, too
	sums  *fileSums
	runs  chan *run

	toc   *toc // of a seekable layer
	group []byte
	left  int64 // bytes of a large file still to come
	// ctx is of one Seal.
	ctx context.Context //nolint:containedctx // an io.Writer has no other way to it
}

func (c *cutter) Write(b []byte) (int, error) {
	if n, err := c.out.Write(b); err != nil {
		return n, err
	}
	n := len(b)
	skip := min(c.left, int64(len(b)))
	c.left -= skip
	if err := c.split(b[:skip], b[skip:]); err != nil {
		return 0, err
	}
	for b = b[skip:]; len(b) > 0; {
		if c.group == nil {
			if err := c.buffer(); err != nil {
				return 0, err
			}
		}
		k := min(len(b), int(c.codec.block)-len(c.group))
		c.group, b = append(c.group, b[:k]...), b[k:]
		if int64(len(c.group)) == c.codec.block {
			if err := c.cut(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// split keeps what is needed to make the tar again.
func (c *cutter) split(file, rest []byte) error {
	if c.toc == nil || c.toc.split == nil {
		return nil
	}
	c.toc.split.content(file)
	if len(rest) == 0 {
		return nil
	}
	return c.toc.split.between(rest)
}

// buffer gets a buffer for the next group. Whoever is to give one back may wait
// for what lies in the pipe.
func (c *cutter) buffer() error {
	if !c.w.groups.TryAcquire(c.codec.block) {
		c.out.flush()
		if err := c.w.groups.Acquire(c.ctx, c.codec.block); err != nil {
			return context.Cause(c.ctx)
		}
	}
	c.group = c.w.buffer(c.codec.most())
	return nil
}

// release ends the use of a group's buffer.
func (c *frameCodec) release(w *Workers, group []byte) {
	w.recycle(group)
	w.groups.Release(c.block)
}

// cut ends the group.
func (c *cutter) cut() error {
	if len(c.group) == 0 {
		return nil
	}
	r := &run{group: c.group}
	c.group = nil
	return c.push(r)
}

func (c *cutter) push(r *run) error {
	select {
	case c.runs <- r:
		return nil
	default:
		c.out.flush()
		return send(c.ctx, c.runs, r)
	}
}

// entry says that the header of path comes next.
func (c *cutter) entry(path string) error {
	if int64(len(c.group)) >= c.codec.least && crc32.ChecksumIEEE([]byte(path))%32 == 0 {
		return c.cut()
	}
	return nil
}

// file says that the bytes of n come next: stored, which is n or what of it is
// not left out, in the given spans.
func (c *cutter) file(n, stored *tree.Node, spans []span) error {
	if stored.Size < c.codec.large || stored.Extents == nil {
		c.sums.expect(c.out.size, n, spans, nil)
		return nil
	}
	if err := c.cut(); err != nil {
		return err
	}
	r := &run{seek: c.toc != nil, node: stored, ready: make(chan struct{})}
	switch {
	case n != stored:
		c.sums.expect(c.out.size, n, spans, nil)
		close(r.ready)
	case n.Digest != "":
		r.digest = n.Digest
		close(r.ready)
	default:
		c.sums.expect(c.out.size, n, spans, func(d tree.Digest) {
			r.digest = d
			close(r.ready)
		})
	}
	if c.toc != nil {
		c.toc.file(r)
	}
	c.left = stored.Size
	return c.push(r)
}

// close ends the tar.
func (c *cutter) close() error {
	c.out.flush()
	if err := c.cut(); err != nil {
		return err
	}
	close(c.runs)
	c.out.p.close()
	return nil
}

// abandon gives the buffer of a group back that nobody will compress.
func (c *cutter) abandon() {
	if c.group != nil {
		c.codec.release(c.w, c.group)
		c.group = nil
	}
}

// keyed is the size from which a group is looked for and remembered; a smaller one
// is compressed sooner.
const keyed = 16 << 10

// parts returns the frames to make of a run, without their bytes.
func (c *frameCodec) parts(r *run) []*job {
	if r.node == nil {
		j := &job{size: int64(len(r.group)), group: r.group, done: make(chan struct{})}
		if len(r.group) >= keyed {
			sum := sha256.Sum256(r.group)
			j.key, j.keyed = c.frameKey(runGroup, digestOf(sum[:]), 0), true
		}
		return []*job{j}
	}
	jobs := make([]*job, 0, (r.node.Size+c.block-1)/c.block)
	for off := int64(0); off < r.node.Size; off += c.block {
		j := &job{size: min(c.block, r.node.Size-off), node: r.node, off: off, run: r, done: make(chan struct{})}
		j.sum = r.seek && r.node.Size > c.block
		if r.digest != "" && r.node.Size >= keyed {
			j.key, j.keyed = c.frameKey(runFile, r.digest, off/c.block), true
		}
		jobs = append(jobs, j)
	}
	return jobs
}

package build

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

const (
	// nearChunks is how far apart chunks may lie that are fetched with one request.
	nearChunks = 64 << 10
	// largestFetch bounds one request.
	largestFetch = 8 << 20
	// parallelFetches is how many requests for one layer are under way.
	parallelFetches = 4
	// smallChunk is what is held in memory until it is verified; what is larger is in a file.
	smallChunk = 1 << 20
)

// LazyError says that contents of a base could not be fetched when a step read them.
type LazyError struct {
	Layer string // digest
	Ref   string // where the layer is
	Err   error
}

// Error names the layer and where it is.
func (e *LazyError) Error() string {
	return fmt.Sprintf("fetch contents of layer %s of %s: %v", e.Layer, e.Ref, e.Err)
}

// Unwrap returns the cause.
func (e *LazyError) Unwrap() error { return e.Err }

// False reports whether something else came than the table of contents promises.
func (e *LazyError) False() bool {
	return errors.Is(e.Err, layer.ErrCorrupt) || errors.Is(e.Err, oci.ErrDigest)
}

// lazyLayer fetches the contents of one layer.
type lazyLayer struct {
	b      *builder
	l      *fsLayer
	id     tree.PackID
	file   *pack.Lazy
	chunks []layer.Chunk // by Off
	forget func()

	mu     sync.Mutex
	coming map[int]chan struct{} // chunks that are being fetched
	blob   *os.File              // all of it, where the registry gives no parts
	bytes  int64                 // fetched
}

// fill is the layer's pack.Filler. What a step has made is sealed though another failed.
func (z *lazyLayer) fill(_ tree.PackID, off, n int64) error {
	return z.fillUntil(z.b.sealCtx, off, n)
}

func (z *lazyLayer) fillUntil(ctx context.Context, off, n int64) error {
	err := z.get(ctx, z.chunksOf(off, n))
	if err != nil && ctx.Err() == nil {
		err = z.failed(err)
	}
	return err
}

// fillRecorder gets bytes that a command waits for: as long as the steps go on.
func (b *builder) fillRecorder(id tree.PackID, off, n int64) error {
	b.lazies.mu.Lock()
	k := slices.IndexFunc(b.lazies.list, func(z *lazyLayer) bool { return z.id == id })
	var z *lazyLayer
	if k >= 0 {
		z = b.lazies.list[k]
	}
	b.lazies.mu.Unlock()
	if z != nil {
		return z.fillUntil(b.stepCtx, off, n)
	}
	_, err := b.store.Packs().At(id, off, n)
	return err
}

// chunksOf are the chunks of n bytes at off of the pack.
func (z *lazyLayer) chunksOf(off, n int64) (list []int) {
	k := sort.Search(len(z.chunks), func(k int) bool { return z.chunks[k].Off+z.chunks[k].Size > off })
	for ; k < len(z.chunks) && z.chunks[k].Off < off+n; k++ {
		list = append(list, k)
	}
	return list
}

// failed keeps the first failure for the build's message.
func (z *lazyLayer) failed(err error) error {
	where := z.l.src.Repo
	if where == "" {
		where = "the base image"
	}
	err = &LazyError{Layer: z.l.desc.Digest.String(), Ref: where, Err: err}
	z.b.lazies.mu.Lock()
	defer z.b.lazies.mu.Unlock()
	if z.b.lazies.err == nil {
		z.b.lazies.err = err
	}
	return err
}

// get makes chunks be here. What somebody else fetches already it waits for.
func (z *lazyLayer) get(ctx context.Context, want []int) error {
	for {
		if err := z.b.lazyFailure(); err != nil {
			return err // nobody waits for the same once more
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		mine, wait, err := z.claim(want)
		if err != nil {
			return err
		}
		if len(mine) > 0 {
			if err := z.fetch(ctx, mine); err != nil {
				return err
			}
		}
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// claim returns those chunks that are missing and nobody fetches, which are the caller's
// now, and what to wait for if others are.
func (z *lazyLayer) claim(want []int) (mine []int, wait <-chan struct{}, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	mine, wait, err = z.missing(want)
	for _, k := range mine {
		z.coming[k] = make(chan struct{})
	}
	return mine, wait, err
}

// missing are those chunks that are not here; of those that somebody fetches there is only
// what to wait for. The caller holds mu.
func (z *lazyLayer) missing(want []int) (list []int, wait <-chan struct{}, err error) {
	for _, k := range want {
		here, err := z.here(k)
		if err != nil {
			return nil, nil, err
		}
		if here {
			continue
		}
		if ch := z.coming[k]; ch != nil {
			wait = ch
			continue
		}
		list = append(list, k)
	}
	return list, wait, nil
}

// here reports whether the bytes of a chunk are in the pack.
func (z *lazyLayer) here(k int) (bool, error) { return z.file.Here(z.chunks[k].Off, z.chunks[k].Size) }

// fetch gets chunks that are the caller's.
func (z *lazyLayer) fetch(ctx context.Context, list []int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	for _, part := range z.parts(list) {
		g.Go(func() error {
			defer z.arrived(part)
			return z.fetchRange(ctx, part)
		})
	}
	return g.Wait()
}

// arrived wakes those who wait for chunks, whether these came or not.
func (z *lazyLayer) arrived(list []int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, k := range list {
		close(z.coming[k])
		delete(z.coming, k)
	}
}

// parts divides chunks into those that are fetched with one request: which lie near each
// other in the blob.
func (z *lazyLayer) parts(list []int) [][]int {
	slices.SortFunc(list, func(a, b int) int { return cmp.Compare(z.chunks[a].Blob, z.chunks[b].Blob) })
	var out [][]int
	for len(list) > 0 {
		n := 1
		first := &z.chunks[list[0]]
		for ; n < len(list); n++ {
			last, next := &z.chunks[list[n-1]], &z.chunks[list[n]]
			if next.Blob < last.End || next.Blob > last.End+nearChunks || next.End-first.Blob > largestFetch {
				break
			}
		}
		out, list = append(out, list[:n]), list[n:]
	}
	return out
}

// sweep gets many chunks in the order of the blob. Nobody who needs one of them waits for
// more than the request that it is in.
func (z *lazyLayer) sweep(ctx context.Context, list []int) error {
	var missing []int
	for _, k := range list {
		here, err := z.here(k)
		if err != nil {
			return err
		}
		if !here {
			missing = append(missing, k)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	for _, part := range z.parts(missing) {
		g.Go(func() error { return z.get(ctx, part) })
	}
	return g.Wait()
}

// fetchRange gets chunks that follow each other in the blob, from elsewhere where a
// mirror's were false.
func (z *lazyLayer) fetchRange(ctx context.Context, list []int) error {
	for {
		err := z.fetchRangeOnce(ctx, list)
		if !oci.OtherCopy(err) {
			return err
		}
		z.b.warn("layer %s: %v: its contents are fetched from elsewhere", shortID(z.l.desc.Digest), err)
	}
}

func (z *lazyLayer) fetchRangeOnce(ctx context.Context, list []int) error {
	at, end := z.chunks[list[0]].Blob, z.chunks[list[len(list)-1]].End
	body, err := z.open(ctx, at, end-at)
	if err != nil {
		return err
	}
	in := &faultReader{r: body}
	for _, k := range list {
		c := &z.chunks[k]
		if _, err = io.CopyN(io.Discard, in, c.Blob-at); err != nil {
			break
		}
		part := &io.LimitedReader{R: in, N: c.End - c.Blob}
		if err = z.take(c, part); err != nil {
			break
		}
		if _, err = io.Copy(io.Discard, part); err != nil {
			break
		}
		if err = z.file.Mark(c.Off, c.Size); err != nil {
			break
		}
		at = c.End
	}
	if in.err != nil { // not what the decompressor made of it
		err = in.err
	} else if errors.Is(err, layer.ErrCorrupt) {
		err = oci.Distrust(body, err)
	}
	z.show(in.n)
	return errors.Join(err, body.Close())
}

// take puts a chunk into the pack. Until it is verified it is elsewhere: another process
// may have filled and marked its place meanwhile.
func (z *lazyLayer) take(c *layer.Chunk, r io.Reader) error {
	if c.Size <= smallChunk {
		var buf bytes.Buffer
		buf.Grow(int(c.Size))
		if err := c.Read(r, &buf); err != nil {
			return err
		}
		_, err := z.file.WriteAt(buf.Bytes(), c.Off)
		return err
	}
	f, err := os.CreateTemp(z.b.temp, "chunk-")
	if err != nil {
		return fmt.Errorf("keep chunk: %w", err)
	}
	defer func() { _ = f.Close() }() // nobody needs it any more
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("keep chunk: %w", err)
	}
	if err := c.Read(r, f); err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(z.file, c.Off), io.NewSectionReader(f, 0, c.Size))
	return err
}

// right reports whether the bytes of a chunk are in the pack.
func (z *lazyLayer) right(c *layer.Chunk) bool {
	return c.Check(io.NewSectionReader(z.file, c.Off, c.Size)) == nil
}

// faultReader remembers why reading ended early.
type faultReader struct {
	r   io.Reader
	n   int64
	err error
}

func (f *faultReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// open opens a part of the blob: from the store where that has it, else from the
// registry, and where that gives no parts from the store once all of it was fetched.
func (z *lazyLayer) open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	z.mu.Lock()
	blob := z.blob
	z.mu.Unlock()
	if blob == nil {
		r, err := z.l.src.Range(ctx, off, n)
		if err == nil || !errors.Is(err, oci.ErrNoRanges) {
			return r, err
		}
		if blob, err = z.whole(ctx); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(io.NewSectionReader(blob, off, n)), nil
}

// whole fetches the blob, which is verified by its digest then.
func (z *lazyLayer) whole(ctx context.Context) (*os.File, error) {
	unlock, err := z.b.store.Lock(ctx, "blob-"+z.l.desc.Digest.Hex)
	if err != nil {
		return nil, err
	}
	defer unlock()
	z.b.warn("the registry gives no parts of layer %s: it is fetched as a whole", shortID(z.l.desc.Digest))
	if err := z.l.ensureBlob(ctx, z.b); err != nil {
		return nil, err
	}
	f, err := z.b.store.OpenBlob(tree.Digest(z.l.desc.Digest.String()))
	if err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.blob != nil {
		_ = f.Close() // another one was first
		return z.blob, nil
	}
	z.blob = f
	return f, nil
}

// show tells what was fetched.
func (z *lazyLayer) show(n int64) {
	z.mu.Lock()
	z.bytes += n
	done := z.bytes
	z.mu.Unlock()
	s := &z.b.lazies
	s.mu.Lock()
	if s.step == nil {
		s.step = z.b.opts.Progress.Step("[internal] fetch contents of the base as they are read")
		s.step.Start()
	}
	step := s.step
	s.mu.Unlock()
	step.Status(shortID(z.l.desc.Digest), done, z.l.desc.Size, false)
}

// complete fetches everything that is missing.
func (z *lazyLayer) complete(ctx context.Context) error {
	if whole, err := z.file.Whole(); whole || err != nil {
		return err
	}
	if err := z.sweep(ctx, z.all()); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return z.failed(err)
	}
	return z.file.Finish()
}

// all are the chunks of the layer.
func (z *lazyLayer) all() []int {
	list := make([]int, len(z.chunks))
	for k := range list {
		list[k] = k
	}
	return list
}

// finish makes the pack a whole one if nothing is missing, and closes what was opened.
func (z *lazyLayer) finish() error {
	if z.blob != nil {
		defer func() { _ = z.blob.Close() }() // only read
	}
	whole, err := z.file.Whole()
	if whole || err != nil {
		return err
	}
	for k := range z.chunks {
		here, err := z.here(k)
		if !here || err != nil {
			return err
		}
	}
	return z.file.Finish()
}

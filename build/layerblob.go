package build

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/tree"
)

// blobReader reads a blob that is in the store, or fetches it and writes it there.
type blobReader struct {
	io.Reader
	src  io.Closer
	want tree.Digest
	w    *cache.BlobWriter // nil where the store has the blob
	got  *countReader
}

// Close ends the reading.
func (r *blobReader) Close() error { return r.src.Close() }

// abandon throws away what was written, unless it was kept.
func (r *blobReader) abandon() {
	if r.w != nil {
		r.w.Abort()
	}
}

// verify is called at the end of the stream, and reads on to that of the blob.
func (r *blobReader) verify() error {
	if r.w == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, r.Reader); err != nil {
		return err
	}
	if err := r.w.Verify(r.want); err != nil {
		return err
	}
	r.got.end()
	return nil
}

// keep takes what was written out of the reader's hands.
func (r *blobReader) keep() writtenBlob {
	k := writtenBlob{r.w, r.want}
	r.w = nil
	return k
}

// writtenBlob is a verified blob that has no name yet.
type writtenBlob struct {
	w    *cache.BlobWriter // nil where the store has it already
	want tree.Digest
}

func (k writtenBlob) store() error {
	if k.w == nil {
		return nil
	}
	_, _, err := k.w.Commit(k.want)
	return err
}

// openBlob opens the layer's compressed stream; show shows the fetching.
func (l *fsLayer) openBlob(ctx context.Context, b *builder, show *pull) (*blobReader, error) {
	if f, err := b.store.OpenBlob(tree.Digest(l.desc.Digest.String())); err == nil {
		return &blobReader{Reader: f, src: f}, nil
	}
	if l.src == nil {
		return nil, fmt.Errorf("blob %s is not in the store any more: build with --no-cache", l.desc.Digest)
	}
	rc, err := l.src.Open(ctx)
	if err != nil {
		return nil, err
	}
	w, err := b.store.CreateBlob()
	if err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	counted := &countReader{r: rc, id: shortID(l.desc.Digest), total: l.desc.Size, pull: show}
	w.Pass()
	return &blobReader{Reader: io.TeeReader(counted, w), src: rc, want: tree.Digest(l.desc.Digest.String()), w: w, got: counted}, nil
}

// storing says that a blob is about to get its name, which waits for the disk; the caller
// calls done then.
func (f *family) storing(d v1.Hash) (done func()) {
	ch := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arriving[d] = ch
	return func() { close(ch) }
}

// hasBlob asks the store, once a blob that is being stored has its name.
func (b *builder) hasBlob(ctx context.Context, d v1.Hash) bool {
	b.family.mu.Lock()
	ch := b.family.arriving[d]
	b.family.mu.Unlock()
	if ch != nil {
		select {
		case <-ch:
		case <-ctx.Done():
			return false
		}
	}
	return b.store.HasBlob(tree.Digest(d.String()))
}

// countReader shows how far a transfer is.
type countReader struct {
	r           io.Reader
	id          string
	pull        *pull
	done, total int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	c.pull.status(c.id, c.done, c.total, false)
	return n, err
}

func (c *countReader) end() { c.pull.status(c.id, c.done, c.total, true) }

func shortID(h v1.Hash) string { return h.Algorithm + ":" + h.Hex[:min(12, len(h.Hex))] }

package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// kindDiffID is the kind of records that say, under a blob's digest, what the digest of
// its tar is: who pulls an image again need not decompress it again.
const kindDiffID = "diffid"

// fetch stores one layer's blob, whose tar must have the digest that the image's config
// gives. Of several processes one fetches it, a build among them.
func fetch(ctx context.Context, s *cache.Store, l oci.Layer, progress Progress) error {
	unlock, err := s.Lock(ctx, "layer-"+l.DiffID.Hex())
	if err != nil {
		return err
	}
	defer unlock()
	for {
		err := fetchOnce(ctx, s, l, progress)
		if !oci.OtherCopy(err) {
			return err
		}
		if progress != nil {
			progress.Warn(err.Error() + ": it is fetched from elsewhere")
		}
	}
}

func fetchOnce(ctx context.Context, s *cache.Store, l oci.Layer, progress Progress) error {
	blob := tree.Digest(l.Desc.Digest.String())
	if s.HasBlob(blob) {
		if rec, err := s.Record(kindDiffID, string(blob)); err == nil {
			return checkDiffID(l, tree.Digest(rec.Value))
		}
		f, err := s.OpenBlob(blob)
		if err != nil {
			return err
		}
		got, err := layer.DiffID(ctx, f, layer.Limits{})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return keepDiffID(s, l, got)
	}
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	got, err := store(ctx, s, r, l, progress)
	if errors.Is(err, layer.ErrCorrupt) || errors.Is(err, layer.ErrTooLarge) {
		err = oci.Verdict(ctx, r, err)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	return keepDiffID(s, l, got)
}

// store writes the blob and finds out what its tar is, at once.
func store(ctx context.Context, s *cache.Store, r io.Reader, l oci.Layer, progress Progress) (diffID tree.Digest, err error) {
	g, ctx := errgroup.WithContext(ctx)
	pr, pw := io.Pipe()
	g.Go(func() (err error) {
		diffID, err = layer.DiffID(ctx, pr, layer.Limits{})
		_ = pr.CloseWithError(err) // it has no errors
		return err
	})
	g.Go(func() error {
		_, err := s.PutBlob(io.TeeReader(&counter{r: r, l: l, progress: progress}, pw), tree.Digest(l.Desc.Digest.String()))
		_ = pw.CloseWithError(err) // it has no errors
		return err
	})
	return diffID, g.Wait()
}

// keepDiffID checks what was found out about a layer and remembers it where it is right:
// bytes that the store had may be damaged, and what they give is nothing to remember.
func keepDiffID(s *cache.Store, l oci.Layer, got tree.Digest) error {
	if err := checkDiffID(l, got); err != nil {
		return err
	}
	return s.PutNote(kindDiffID, l.Desc.Digest.String(), cache.Record{Value: []byte(got)})
}

func checkDiffID(l oci.Layer, got tree.Digest) error {
	if got != l.DiffID {
		return fmt.Errorf("%w: its contents are %s, the image's config says %s", oci.ErrDigest, got, l.DiffID)
	}
	return nil
}

// counter tells how far a layer is.
type counter struct {
	r        io.Reader
	n        int64
	l        oci.Layer
	progress Progress
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.progress != nil {
		c.progress.Status(c.l.Desc.Digest.String(), c.n, c.l.Desc.Size, false)
	}
	return n, err
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
)

// parallelLayers is how many layers are fetched at once.
const parallelLayers = 4

// Progress is told how far a layer is, and what went otherwise than it should.
type Progress interface {
	// Status says that current of total bytes are here.
	Status(digest string, current, total int64, done bool)
	Warn(text string)
}

// Pull fetches an image by its full name and gives it that name. What the store has
// is not fetched. A name with a digest is kept as it is.
func Pull(ctx context.Context, s *cache.Store, r *oci.Remote, full string, p oci.Platform, progress Progress) (*Image, error) {
	found, err := r.Resolve(ctx, full, p)
	if err != nil {
		return nil, err
	}
	if found.Mismatch != nil {
		return nil, found.Mismatch
	}
	img := &Image{Built: found.Built()}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	err = add(gctx, s, &img.Built, func(ctx context.Context, l oci.Layer) error {
		g.Go(func() error {
			id, size := l.Desc.Digest.String(), l.Desc.Size
			err := fetch(ctx, s, l, progress)
			if err == nil {
				progress.Status(id, size, size, true)
			}
			return err
		})
		return nil
	})
	if err := errors.Join(g.Wait(), err); err != nil {
		return nil, fmt.Errorf("pull %s: %w", full, err)
	}
	if err := s.Tag(full, img.Desc); err != nil {
		return nil, err
	}
	img.Names = []string{full}
	return img, nil
}

// Load stores every image of an archive, and returns them with the names that they
// had there. An image without a name gets none, and is found by its ID until it is
// removed or pruned.
func Load(ctx context.Context, s *cache.Store, file string, p oci.Platform) ([]*Image, error) {
	list, err := oci.ListArchive(ctx, file)
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, entry := range list {
		found, err := entry.Open(ctx, p)
		if err != nil {
			return nil, err
		}
		img := &Image{Built: found.Built()}
		err = add(ctx, s, &img.Built, func(ctx context.Context, l oci.Layer) error { return fetch(ctx, s, l, nil) })
		if err == nil {
			err = keep(s, img)
		}
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", file, err)
		}
		for _, n := range entry.Names {
			full, err := Name(n)
			if err == nil {
				err = s.Tag(full, img.Desc)
			}
			if err != nil {
				return nil, fmt.Errorf("load %s: %w", file, err)
			}
			if !slices.Contains(img.Names, full) {
				img.Names = append(img.Names, full)
			}
		}
		out = append(out, img)
	}
	return out, nil
}

// Spool writes a stream to a file, since archives are read at offsets. The caller
// removes it.
func Spool(s *cache.Store, r io.Reader) (name string, err error) {
	dir, err := s.TempDir("load-")
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, "archive-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read archive: %w", err)
	}
	return f.Name(), nil
}

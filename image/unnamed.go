package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

// All returns the images of the store, the youngest first: also those that have no name,
// which a build made or an archive had.
func All(ctx context.Context, s *cache.Store) ([]*Image, error) {
	list, err := List(ctx, s)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, img := range list {
		img.parts(known)
	}
	var keys, single []string
	for key, rec := range s.Records(cache.KindImage) {
		switch {
		case !isImage(key, rec):
		case isIndex(key, rec):
			keys = append(keys, key)
		default:
			single = append(single, key)
		}
	}
	for _, key := range append(keys, single...) { // an index first: it has its images
		if known["sha256:"+key] {
			continue
		}
		img, err := unnamed(ctx, s, key)
		if errors.Is(err, cache.ErrNotFound) || errors.Is(err, oci.ErrNotFound) {
			continue // it was pushed without being whole here, or is going
		}
		if err != nil {
			return nil, damaged("sha256:"+key, err)
		}
		img.parts(known)
		list = append(list, img)
	}
	slices.SortStableFunc(list, byAge)
	return list, nil
}

// parts adds the ID of the image, and those of an index's images.
func (i *Image) parts(ids map[string]bool) {
	ids[i.ID()] = true
	for _, one := range i.Whole().Images() {
		ids[one.Manifest.Config.Digest.String()] = true
	}
}

// isIndex says whether the record of an image is of one for several platforms: its key is
// the digest of the index.
func isIndex(key string, rec cache.Record) bool { return rec.Blobs[0].Hex() == key }

// isImage tells the record of an image from others of its kind.
func isImage(key string, rec cache.Record) bool {
	var id string
	return json.Unmarshal(rec.Value, &id) == nil && id == "sha256:"+key && len(rec.Blobs) > 0
}

// unnamed opens an image by the record of its config.
func unnamed(ctx context.Context, s *cache.Store, key string) (*Image, error) {
	rec, err := s.Record(cache.KindImage, key) // which it now stays for
	if err != nil {
		return nil, err
	}
	for _, d := range rec.Blobs {
		if !s.HasBlob(d) {
			return nil, fmt.Errorf("blob %s: %w", d, cache.ErrNotFound)
		}
	}
	h, err := v1.NewHash(string(rec.Blobs[0]))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cache.ErrNotFound, err)
	}
	desc := v1.Descriptor{Digest: h}
	if isIndex(key, rec) {
		desc.MediaType = types.OCIImageIndex
	}
	return open(ctx, s, desc)
}

// keep makes an image be found by its ID.
func keep(s *cache.Store, img *Image) error {
	id, err := json.Marshal(img.ID())
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	rec := cache.Record{Value: id}
	for _, d := range append([]v1.Descriptor{img.Desc, img.Manifest.Config}, img.Manifest.Layers...) {
		rec.Blobs = append(rec.Blobs, tree.Digest(d.Digest.String()))
	}
	return s.PutRecord(cache.KindImage, img.Manifest.Config.Digest.Hex, rec)
}

// Forget makes an image that has no name any more be found by its ID no longer. It
// reports whether nothing has that ID now.
func Forget(ctx context.Context, s *cache.Store, img *Image) (gone bool, err error) {
	named, err := s.Images()
	if err != nil {
		return false, err
	}
	held := map[v1.Hash]bool{}
	for _, n := range named {
		other, err := open(ctx, s, n.Desc)
		if err != nil {
			continue // it is damaged, and holds nothing
		}
		if other.ID() == img.ID() {
			return false, nil
		}
		for _, one := range other.Whole().Images() {
			held[one.Manifest.Config.Digest] = true
		}
	}
	for _, one := range img.Whole().Images() {
		if h := one.Manifest.Config.Digest; !held[h] {
			if err := s.DeleteRecord(cache.KindImage, h.Hex); err != nil {
				return false, err
			}
		}
	}
	if img.Index != nil {
		return true, s.DeleteRecord(cache.KindImage, img.Index.Desc.Digest.Hex)
	}
	return !held[img.Manifest.Config.Digest], nil
}

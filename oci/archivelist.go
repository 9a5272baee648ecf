package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Archived is an image of an archive.
type Archived struct {
	Names []string // as the archive has them
	// Open reads the image as OpenArchive does, without opening the archive again.
	Open func(ctx context.Context, p Platform) (*Image, error)

	choose string // what OpenArchive takes for it
}

// maxArchived bounds the images of one archive.
const maxArchived = 1000

// ListArchive lists the images of a file that OpenArchive reads. One image for
// several platforms is one.
func ListArchive(ctx context.Context, file string) ([]Archived, error) {
	a, err := openTar(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", file, err)
	}
	list, err := a.images()
	if err == nil && len(list) > maxArchived {
		err = fmt.Errorf("%w: %d images, at most %d are read", ErrTooLarge, len(list), maxArchived)
	}
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", file, err)
	}
	for i := range list {
		list[i].Open = func(ctx context.Context, p Platform) (*Image, error) { return a.image(ctx, file, list[i].choose, p) }
	}
	return list, nil
}

func (a *tarFile) images() ([]Archived, error) {
	if _, ok := a.entries[indexFile]; ok {
		raw, err := a.read(indexFile, maxManifest)
		if err != nil {
			return nil, err
		}
		idx, err := parseIndex(raw)
		if err != nil {
			return nil, err
		}
		return indexed(idx), nil
	}
	raw, err := a.read(dockerManifest, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("%w: neither %s nor %s in it", ErrInvalid, indexFile, dockerManifest)
	}
	var list []saved
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%w: parse %s: %w", ErrInvalid, dockerManifest, err)
	}
	var out []Archived
	for _, s := range list {
		e := Archived{Names: s.RepoTags}
		switch {
		case len(s.RepoTags) > 0:
			e.choose = s.RepoTags[0]
		case len(list) > 1:
			return nil, fmt.Errorf("%w: one of %d images has no name", ErrInvalid, len(list))
		}
		out = append(out, e)
	}
	return out, nil
}

// indexed lists the images of an index by their manifests.
func indexed(idx *v1.IndexManifest) []Archived {
	var out []Archived
	at := map[v1.Hash]int{}
	for _, d := range idx.Manifests {
		if isAttestation(d) {
			continue
		}
		i, ok := at[d.Digest]
		if !ok {
			i = len(out)
			at[d.Digest] = i
			out = append(out, Archived{choose: d.Digest.String()})
		}
		n := d.Annotations[imageNameKey]
		if n == "" {
			n = d.Annotations[refNameKey] // a tag alone is no name
			if ref, err := ParseRef(n); err != nil || FullName(ref) != n {
				continue
			}
		}
		if !slices.Contains(out[i].Names, n) {
			out[i].Names = append(out[i].Names, n)
		}
	}
	return out
}

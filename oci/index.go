package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Writable is what can be written and sent under a name: a *Built, or an *Index of
// several.
type Writable interface {
	// Root describes what the name leads to: the manifest, or the index.
	Root() v1.Descriptor
	// Images are the image, or those of the index in its order.
	Images() []*Built
	rawRoot() []byte
}

// Root is the descriptor of the image's manifest.
func (b *Built) Root() v1.Descriptor { return b.Desc }

// Images is the image itself.
func (b *Built) Images() []*Built { return []*Built{b} }

func (b *Built) rawRoot() []byte { return b.RawManifest }

// Index is one image for several platforms, ready to be written.
type Index struct {
	Desc     v1.Descriptor // of the index
	Manifest *v1.IndexManifest
	Raw      []byte
	images   []*Built
}

// Root is the descriptor of the index.
func (x *Index) Root() v1.Descriptor { return x.Desc }

// Images are those of the index, in its order.
func (x *Index) Images() []*Built { return x.images }

func (x *Index) rawRoot() []byte { return x.Raw }

// IndexOptions choose what an index says beside its images.
type IndexOptions struct {
	Annotations map[string]string // of the index
	// Entries are annotations of the images' descriptors in it, by their place; it may be
	// shorter.
	Entries []map[string]string
	// DockerMediaTypes writes docker's manifest list.
	DockerMediaTypes bool
}

// AssembleIndex joins images, each for a platform of its own, under one digest.
func AssembleIndex(images []*Built, o IndexOptions) (*Index, error) {
	if len(images) == 0 {
		return nil, errors.New("assemble index: it has no image")
	}
	m := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: o.Annotations}
	if o.DockerMediaTypes {
		m.MediaType = types.DockerManifestList
	}
	seen := map[string]bool{}
	for i, b := range images {
		d := b.Desc
		if d.Platform == nil {
			return nil, fmt.Errorf("assemble index: image %d has no platform", i+1)
		}
		p := Normalize(*d.Platform)
		if seen[p.String()] {
			return nil, fmt.Errorf("assemble index: two images for %s", p)
		}
		seen[p.String()] = true
		d.Annotations = nil
		if i < len(o.Entries) {
			d.Annotations = maps.Clone(o.Entries[i])
		}
		m.Manifests = append(m.Manifests, d)
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("assemble index: %w", err)
	}
	return &Index{Desc: describe(raw, m.MediaType), Manifest: m, Raw: raw, images: images}, nil
}

// For is the image for a platform: what suits it best, else the first.
func (x *Index) For(p Platform) *Built {
	best, bestRank := x.images[0], -1
	for _, b := range x.images {
		if r := rank(p, *b.Desc.Platform); r >= 0 && (bestRank < 0 || r < bestRank) {
			best, bestRank = b, r
		}
	}
	return best
}

// OpenIndex reads the index that a digest names in the OCI layout at path, with all its
// images. Layers are read when they are opened.
func OpenIndex(ctx context.Context, path, digest string) (*Index, error) {
	l := layoutAt(path, digest)
	x, err := l.whole(ctx, digest)
	if err != nil {
		return nil, l.fail(err)
	}
	return x, nil
}

// maxPlatforms bounds the images of an index that is read whole.
const maxPlatforms = 64

func (l *layoutReader) whole(ctx context.Context, digest string) (*Index, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, fmt.Errorf("%w: bad digest %q", ErrRef, digest)
	}
	size, err := l.size(h)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", h, err)
	}
	raw, err := l.open.read(ctx, v1.Descriptor{Digest: h, Size: size}, maxManifest, "index")
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: parse index: %w", ErrInvalid, err)
	}
	if len(m.Manifests) > maxPlatforms {
		return nil, fmt.Errorf("%w: an index of %d images", ErrTooLarge, len(m.Manifests))
	}
	x := &Index{Desc: describe(raw, m.MediaType), Manifest: m, Raw: raw}
	for _, d := range m.Manifests {
		if d.Platform == nil || isAttestation(d) || d.MediaType.IsIndex() {
			return nil, fmt.Errorf("%w: the index has an entry that is no image for a platform", ErrUnsupported)
		}
		raw, err := l.open.read(ctx, d, maxManifest, "manifest")
		if err != nil {
			return nil, err
		}
		img, err := l.single(ctx, raw, d)
		if err != nil {
			return nil, err
		}
		b := img.Built()
		b.Desc.Platform = d.Platform
		x.images = append(x.images, &b)
	}
	if len(x.images) == 0 {
		return nil, fmt.Errorf("%w: an index without an image", ErrInvalid)
	}
	return x, nil
}

// Built is an image that was found, ready to be written somewhere else.
func (img *Image) Built() Built {
	b := Built{
		Desc: img.Desc, Manifest: img.Manifest, RawManifest: img.RawManifest,
		Config: img.Config, RawConfig: img.RawConfig, Layers: img.Layers,
	}
	if b.Desc.Platform == nil {
		p := configPlatform(img.Config)
		b.Desc.Platform = &p
	}
	return b
}

// contents are the blobs of all images, each once.
func contents(w Writable) []blob {
	var out []blob
	seen := map[v1.Hash]bool{}
	for _, b := range w.Images() {
		for _, bl := range b.blobs() {
			if !seen[bl.desc.Digest] {
				seen[bl.desc.Digest] = true
				out = append(out, bl)
			}
		}
	}
	return out
}

// manifests are those of all images and last, where it is none of these, the root.
func manifests(w Writable) []rawManifest {
	var out []rawManifest
	for _, b := range w.Images() {
		out = append(out, rawManifest{b.Desc, b.RawManifest})
	}
	if root := w.Root(); root.Digest != out[len(out)-1].desc.Digest {
		out = append(out, rawManifest{root, w.rawRoot()})
	}
	return out
}

// rawManifest is a manifest or an index.
type rawManifest struct {
	desc v1.Descriptor
	raw  []byte
}

// layoutBlobs are all that a layout holds of it.
func layoutBlobs(w Writable) []blob {
	out := contents(w)
	for _, m := range manifests(w) {
		out = append(out, memoryBlob(m.desc, m.raw))
	}
	return out
}

// Size is about how many bytes an archive has.
func Size(w Writable) int64 {
	var n int64
	for _, b := range layoutBlobs(w) {
		n += b.desc.Size
	}
	return n
}

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/tree"
)

const (
	maxNesting     = 4   // indexes within indexes
	maxUnknown     = 16  // entries of an index without a platform whose config is asked
	maxLayerCount  = 512 // docker runs at most 127
	padHistory     = "fbuild.base.v0"
	mediaTypeLimit = 128 // characters of a media type that an error repeats
)

// Image is a base image: manifest and config are read and verified, layers are
// not touched.
type Image struct {
	Desc        v1.Descriptor // of the manifest
	Manifest    *v1.Manifest
	RawManifest []byte
	// Config has exactly one history entry per layer that is not marked empty:
	// where the image has fewer or more, entries are added or marked.
	Config    *v1.ConfigFile
	RawConfig []byte
	Layers    []Layer
	Ref       string // where it was found, for people
	// StartInterval is the health check's, which v1.HealthConfig lacks.
	StartInterval time.Duration
	// Mismatch is set where the image is a single manifest for another
	// operating system or architecture than asked for; docker warns and goes on.
	Mismatch *PlatformError
}

// Layer is one layer of an image.
type Layer struct {
	Desc   v1.Descriptor
	DiffID tree.Digest
	// Open streams the compressed blob; the caller closes it. Digest and size
	// are verified at the end: a mismatch is ErrDigest from Read, not io.EOF.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Range streams n bytes at off of the blob, which nothing has verified; the caller
	// closes it. It returns ErrNoRanges where only the whole blob can be had; nil is
	// where that is known.
	Range func(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// Repo is the repository that has the blob ("docker.io/library/alpine"), ""
	// for none. A push to the same registry mounts the blob from there.
	Repo string
}

// source is a place that holds images.
type source struct {
	ref  string // for errors
	repo string // of a registry
	open opener // blobs and manifests by descriptor
	part ranger // of blobs; nil for none
	// label puts the place into an error, ref where it is nil.
	label func(err error) error
}

// fail labels an error that leaves this package. A *PlatformError has its own.
func (s *source) fail(err error) error {
	var pe *PlatformError
	switch {
	case errors.As(err, &pe):
		return err
	case s.label != nil:
		return s.label(err)
	}
	return fmt.Errorf("%s: %w", s.ref, err)
}

// openLayer opens a layer whose errors say where it is from.
func (s *source) openLayer(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r, err := s.open.verified(ctx, d)
	if err != nil {
		return nil, s.fail(fmt.Errorf("layer %s: %w", d.Digest, err))
	}
	return &labelled{r, s}, nil
}

// openPart opens some bytes of a layer.
func (s *source) openPart(ctx context.Context, d v1.Descriptor, off, n int64) (io.ReadCloser, error) {
	r, err := s.part(ctx, d, off, n)
	if err != nil {
		return nil, s.fail(fmt.Errorf("layer %s: %w", d.Digest, err))
	}
	return &labelled{r, s}, nil
}

type labelled struct {
	io.ReadCloser
	s *source
}

func (l *labelled) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = l.s.fail(err)
	}
	return n, err
}

// document is what a manifest of any kind may hold.
type document struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	Config        json.RawMessage `json:"config"`
	Layers        json.RawMessage `json:"layers"`
	FSLayers      json.RawMessage `json:"fsLayers"`
	Manifests     json.RawMessage `json:"manifests"`
}

// kind returns the media type of a manifest by its contents, which must be
// those of one kind only: a document that is an index to one reader and an image
// to another is refused.
func kind(raw []byte, declared types.MediaType) (types.MediaType, error) {
	var doc document
	if err := CheckJSON(raw); err != nil {
		return "", fmt.Errorf("manifest: %w", err)
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", fmt.Errorf("%w: parse manifest: %w", ErrInvalid, err)
	}
	mt := doc.MediaType
	if mt == "" {
		mt = declared
	}
	isIndex, isImage := doc.Manifests != nil, doc.Config != nil || doc.Layers != nil
	switch {
	case doc.SchemaVersion == 1 || mt.IsSchema1() || doc.FSLayers != nil:
		return "", fmt.Errorf("image manifest schema 1: %w: push the image again with a current tool", ErrUnsupported)
	case isIndex && isImage:
		return "", fmt.Errorf("%w: manifest is an index and an image at once", ErrInvalid)
	case isIndex && (mt.IsIndex() || !mt.IsImage()):
		if !mt.IsIndex() {
			mt = types.OCIImageIndex
		}
		return mt, nil
	case isImage && (mt.IsImage() || !mt.IsIndex()):
		if !mt.IsImage() {
			mt = types.OCIManifestSchema1
		}
		return mt, nil
	}
	return "", fmt.Errorf("%w: manifest of type %q is neither index nor image", ErrInvalid, shorten(string(mt), mediaTypeLimit))
}

func shorten(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return strings.TrimSpace(s)
}

// image follows a manifest, through indexes, to the image for platform p.
func (s *source) image(ctx context.Context, raw []byte, desc v1.Descriptor, p Platform, depth int) (*Image, error) {
	mt, err := kind(raw, desc.MediaType)
	if err != nil {
		return nil, err
	}
	desc.MediaType = mt
	if mt.IsIndex() {
		return s.index(ctx, raw, p, depth)
	}
	img, err := s.single(ctx, raw, desc)
	if err != nil {
		return nil, err
	}
	have, want := Normalize(configPlatform(img.Config)), Normalize(p)
	if depth == 0 && have.OS != "" && (have.OS != want.OS || have.Architecture != want.Architecture) {
		img.Mismatch = &PlatformError{Ref: s.ref, Want: p, Available: []Platform{configPlatform(img.Config)}}
	}
	return img, nil
}

func configPlatform(c *v1.ConfigFile) Platform {
	return Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion}
}

// index chooses an index's best entry for p.
func (s *source) index(ctx context.Context, raw []byte, p Platform, depth int) (*Image, error) {
	if depth >= maxNesting {
		return nil, fmt.Errorf("%w: indexes are nested more than %d deep", ErrInvalid, maxNesting)
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: parse index: %w", ErrInvalid, err)
	}
	return s.choose(ctx, idx.Manifests, p, depth)
}

func (s *source) choose(ctx context.Context, list []v1.Descriptor, p Platform, depth int) (*Image, error) {
	best, bestRank := -1, -1
	var unknown []v1.Descriptor
	missing := &PlatformError{Ref: s.ref, Want: p}
	for i, d := range list {
		switch {
		case isAttestation(d):
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			unknown = append(unknown, d)
		default:
			missing.Available = append(missing.Available, *d.Platform)
			if r := rank(p, *d.Platform); r >= 0 && (best < 0 || r < bestRank) {
				best, bestRank = i, r
			}
		}
	}
	if best >= 0 {
		raw, err := s.open.read(ctx, list[best], maxManifest, "manifest")
		if err != nil {
			return nil, err
		}
		return s.image(ctx, raw, list[best], p, depth+1)
	}
	return s.chooseByConfig(ctx, unknown, p, depth, missing)
}

// chooseByConfig looks into the images of an index that do not say what they
// are for.
func (s *source) chooseByConfig(ctx context.Context, list []v1.Descriptor, p Platform, depth int, missing *PlatformError) (*Image, error) {
	if len(list) > maxUnknown {
		return nil, fmt.Errorf("%w: an index of %d entries without a platform", ErrInvalid, len(list))
	}
	var best *Image
	bestRank := -1
	for _, d := range list {
		raw, err := s.open.read(ctx, d, maxManifest, "manifest")
		if err != nil {
			return nil, err
		}
		img, err := s.image(ctx, raw, d, p, depth+1)
		if err != nil {
			if len(list) == 1 {
				return nil, err
			}
			continue
		}
		have := configPlatform(img.Config)
		missing.Available = append(missing.Available, have)
		if r := rank(p, have); r >= 0 && (best == nil || r < bestRank) {
			best, bestRank = img, r
		}
	}
	if best == nil {
		return nil, missing
	}
	return best, nil
}

// single reads the config of an image manifest and joins both.
func (s *source) single(ctx context.Context, raw []byte, desc v1.Descriptor) (*Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: parse manifest: %w", ErrInvalid, err)
	}
	if mt := m.Config.MediaType; !mt.IsConfig() {
		return nil, fmt.Errorf("%w: a config of type %q is no image but another artifact", ErrUnsupported, shorten(string(mt), mediaTypeLimit))
	}
	for i := range m.Layers {
		if err := checkLayer(m.Layers[i]); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		m.Layers[i].Data = nil
	}
	rawConfig, err := s.open.read(ctx, m.Config, maxConfig, "config")
	if err != nil {
		return nil, err
	}
	if err := CheckJSON(rawConfig); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, fmt.Errorf("%w: parse config: %w", ErrInvalid, err)
	}
	if len(m.Layers) > maxLayerCount {
		return nil, fmt.Errorf("%w: %d layers", ErrTooLarge, len(m.Layers))
	}
	if got, want := len(cfg.RootFS.DiffIDs), len(m.Layers); got != want {
		return nil, fmt.Errorf("%w: config lists %d layers, manifest %d", ErrInvalid, got, want)
	}
	alignHistory(cfg)
	img := &Image{
		Desc: desc, Manifest: m, RawManifest: raw, Config: cfg, RawConfig: rawConfig, Ref: s.ref,
		StartInterval: startInterval(rawConfig),
	}
	img.Desc.Platform, img.Desc.Annotations, img.Desc.Data = nil, nil, nil
	for i, d := range m.Layers {
		if cfg.RootFS.DiffIDs[i].Hex == "" {
			return nil, fmt.Errorf("%w: layer %d has no diff id", ErrInvalid, i+1)
		}
		l := Layer{
			Desc: d, DiffID: tree.Digest(cfg.RootFS.DiffIDs[i].String()), Repo: s.repo,
			Open: func(ctx context.Context) (io.ReadCloser, error) { return s.openLayer(ctx, d) },
		}
		if s.part != nil {
			l.Range = func(ctx context.Context, off, n int64) (io.ReadCloser, error) { return s.openPart(ctx, d, off, n) }
		}
		img.Layers = append(img.Layers, l)
	}
	return img, nil
}

// checkLayer refuses what cannot be read as a layer.
func checkLayer(d v1.Descriptor) error {
	if err := checkDescriptor(d); err != nil {
		return err
	}
	if !d.MediaType.IsDistributable() || d.MediaType == types.OCIUncompressedRestrictedLayer {
		return fmt.Errorf("%w: non-distributable layer %s lies outside the registry", ErrUnsupported, d.Digest)
	}
	if _, ok := layerTypes[d.MediaType]; !ok {
		return fmt.Errorf("%w: layer of type %q", ErrUnsupported, shorten(string(d.MediaType), mediaTypeLimit))
	}
	return nil
}

// alignHistory makes the entries with a layer as many as the layers, as
// BuildKit does: missing ones are added, of too many the first become empty.
func alignHistory(c *v1.ConfigFile) {
	full := 0
	for _, h := range c.History {
		if !h.EmptyLayer {
			full++
		}
	}
	for i := range c.History {
		if full > len(c.RootFS.DiffIDs) && !c.History[i].EmptyLayer {
			c.History[i].EmptyLayer = true
			full--
		}
	}
	for ; full < len(c.RootFS.DiffIDs); full++ {
		c.History = append(c.History, v1.History{Created: c.Created, Comment: padHistory})
	}
}

func startInterval(rawConfig []byte) time.Duration {
	var c struct {
		Config struct {
			Healthcheck struct{ StartInterval time.Duration }
		} `json:"config"`
	}
	if json.Unmarshal(rawConfig, &c) != nil {
		return 0 // the config parsed before; a strange interval is none
	}
	return c.Config.Healthcheck.StartInterval
}

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// LayoutArtifact is a manifest of any kind in an OCI layout, under a tag or a
// digest.
type LayoutArtifact struct {
	dir, name string
}

// OpenLayoutArtifact returns what a tag or digest of a layout stands for. Nothing is
// read yet, and the layout need not exist.
func OpenLayoutArtifact(dir, tagOrDigest string) *LayoutArtifact {
	return &LayoutArtifact{dir: dir, name: tagOrDigest}
}

// String is the directory and the name.
func (a *LayoutArtifact) String() string {
	if a.name == defaultTag {
		return a.dir
	}
	return a.dir + ":" + a.name
}

// Repo is "": a layout is in no registry.
func (a *LayoutArtifact) Repo() string { return "" }

// Manifest reads the manifest; one that is not there is ErrNotFound.
func (a *LayoutArtifact) Manifest(ctx context.Context) ([]byte, v1.Descriptor, error) {
	idx, err := readLayoutIndex(a.dir)
	if err != nil {
		return nil, v1.Descriptor{}, fmt.Errorf("read OCI layout %s: %w", a.dir, err)
	}
	for _, d := range idx.Manifests {
		if d.Annotations[refNameKey] == a.name || d.Digest.String() == a.name {
			raw, err := layoutOpener(a.dir).read(ctx, d, maxManifest, "manifest")
			d.Annotations = nil
			return raw, d, err
		}
	}
	if h, err := v1.NewHash(a.name); err == nil { // one that has no name any more
		return a.ManifestOf(ctx, h)
	}
	return nil, v1.Descriptor{}, fmt.Errorf("%s: %w", a, ErrNotFound)
}

// ManifestOf reads another manifest of the layout, by digest.
func (a *LayoutArtifact) ManifestOf(ctx context.Context, h v1.Hash) ([]byte, v1.Descriptor, error) {
	size, err := layoutBlobSize(a.dir, h)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	d := v1.Descriptor{Digest: h, Size: size}
	raw, err := layoutOpener(a.dir).read(ctx, d, maxManifest, "manifest")
	return raw, d, err
}

// Open streams a blob; digest and size are verified at the end of the stream.
func (a *LayoutArtifact) Open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return layoutOpener(a.dir).verified(ctx, d)
}

// Lock makes the layout where it is missing and keeps other writers away until
// unlock is called.
func (a *LayoutArtifact) Lock(ctx context.Context) (unlock func() error, err error) {
	w := layoutWriter{dir: a.dir}
	if err := w.mkdirAll(filepath.Join(a.dir, "blobs", "sha256")); err != nil {
		return nil, fmt.Errorf("make OCI layout: %w", err)
	}
	return lockDir(ctx, a.dir)
}

// Add makes sure that the layout has a blob. One that is there is read: a damaged
// one is replaced.
func (a *LayoutArtifact) Add(ctx context.Context, b Blob, progress func(Status)) error {
	w := layoutWriter{dir: a.dir}
	if err := w.blob(ctx, b.verified()); err != nil {
		return errors.Join(fmt.Errorf("write OCI layout %s: blob %s: %w", a.dir, b.Desc.Digest, err), w.undo())
	}
	if progress != nil {
		progress(Status{State: Pushed, Current: b.Desc.Size, Total: b.Desc.Size})
	}
	return nil
}

// Publish makes raw the manifest of the tag. What the one before it needed and
// nothing in the layout needs any more is removed.
func (a *LayoutArtifact) Publish(ctx context.Context, raw []byte, mt types.MediaType) error {
	if err := a.publish(ctx, raw, mt); err != nil {
		return fmt.Errorf("write OCI layout %s: %w", a.dir, err)
	}
	return nil
}

func (a *LayoutArtifact) publish(ctx context.Context, raw []byte, mt types.MediaType) error {
	idx, err := readLayoutIndex(a.dir)
	if err != nil {
		return err
	}
	var old []v1.Descriptor
	for _, d := range idx.Manifests {
		if d.Annotations[refNameKey] == a.name {
			old = append(old, d)
		}
	}
	d := describe(raw, mt)
	w := layoutWriter{dir: a.dir}
	if err := w.blob(ctx, memoryBlob(d, raw)); err != nil {
		return err
	}
	d.Annotations = map[string]string{refNameKey: a.name}
	if err := w.index(idx, []v1.Descriptor{d}); err != nil {
		return err
	}
	return a.sweep(ctx, old, idx.Manifests)
}

// sweep removes the blobs that old leads to and now does not.
func (a *LayoutArtifact) sweep(ctx context.Context, old, now []v1.Descriptor) error {
	keep, gone := map[v1.Hash]bool{}, map[v1.Hash]bool{}
	if !a.reach(ctx, now, keep, 0) {
		return nil // something there cannot be understood: nothing is removed
	}
	a.reach(ctx, old, gone, 0)
	for h := range gone {
		if keep[h] {
			continue
		}
		if err := os.Remove(filepath.Join(a.dir, blobPath(h))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old blob: %w", err)
		}
	}
	return nil
}

// reach marks everything that manifests lead to; false where one cannot be read.
func (a *LayoutArtifact) reach(ctx context.Context, list []v1.Descriptor, seen map[v1.Hash]bool, depth int) bool {
	for _, d := range list {
		if checkDescriptor(d) != nil || depth > maxNesting {
			return false
		}
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		// The entries of the layout's own index are manifests whatever they say.
		if depth > 0 && !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		raw, err := layoutOpener(a.dir).read(ctx, d, maxManifest, "manifest")
		if err != nil {
			return false
		}
		var doc struct {
			Config    *v1.Descriptor  `json:"config"`
			Layers    []v1.Descriptor `json:"layers"`
			Manifests []v1.Descriptor `json:"manifests"`
		}
		if json.Unmarshal(raw, &doc) != nil {
			return false
		}
		if doc.Config != nil {
			seen[doc.Config.Digest] = true
		}
		for _, l := range doc.Layers {
			seen[l.Digest] = true
		}
		if !a.reach(ctx, doc.Manifests, seen, depth+1) {
			return false
		}
	}
	return true
}

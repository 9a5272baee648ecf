package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// blob is one file of an image as it is written.
type blob struct {
	desc v1.Descriptor
	open func(ctx context.Context) (io.ReadCloser, error)
	repo string // as in Layer
}

// blobs returns what an image consists of, each digest once: layers bottom
// first, then the config.
func (b *Built) blobs() []blob {
	var out []blob
	seen := map[v1.Hash]bool{}
	for i, l := range b.Layers {
		if d := b.Manifest.Layers[i]; !seen[d.Digest] {
			seen[d.Digest] = true
			out = append(out, Blob{d, l.Open, l.Repo}.verified())
		}
	}
	return append(out, memoryBlob(b.Manifest.Config, b.RawConfig))
}

func memoryBlob(d v1.Descriptor, raw []byte) blob {
	return blob{desc: d, open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}}
}

// entries returns descriptors for the index of a layout, one for each name, annotated
// as BuildKit does.
func entries(root v1.Descriptor, names []string) ([]v1.Descriptor, error) {
	if len(names) == 0 {
		return []v1.Descriptor{root}, nil
	}
	var out []v1.Descriptor
	for _, n := range names {
		tag, err := parseTag(n)
		if err != nil {
			return nil, err
		}
		d := root
		d.Annotations = map[string]string{imageNameKey: FullName(tag), refNameKey: tag.TagStr()}
		maps.Copy(d.Annotations, root.Annotations)
		out = append(out, d)
	}
	return out, nil
}

// parseTag parses the name that an image is to have.
func parseTag(n string) (name.Tag, error) {
	ref, err := ParseRef(n)
	if err != nil {
		return name.Tag{}, err
	}
	tag, ok := ref.(name.Tag)
	if !ok {
		return name.Tag{}, fmt.Errorf("image name %q: %w: a digest is no name for a new image", n, ErrRef)
	}
	return tag, nil
}

// WriteLayout adds an image to the OCI layout at dir, which is made where it is
// missing; entries of other names stay. index.json is replaced last: until then
// the layout is as it was. A failed write removes what it made.
func WriteLayout(ctx context.Context, dir string, names []string, img Writable) error {
	list, err := entries(img.Root(), names)
	if err != nil {
		return err
	}
	w := &layoutWriter{dir: dir}
	if err := w.write(ctx, list, img); err != nil {
		return fmt.Errorf("write OCI layout %s: %w", dir, err)
	}
	return nil
}

func (w *layoutWriter) write(ctx context.Context, entries []v1.Descriptor, img Writable) (err error) {
	unlock := func() error { return nil }
	defer func() {
		if err != nil {
			err = errors.Join(err, w.undo())
		}
		err = errors.Join(err, unlock())
	}()
	if err := w.mkdirAll(filepath.Join(w.dir, "blobs", "sha256")); err != nil {
		return err
	}
	held, err := lockDir(ctx, w.dir)
	if err != nil {
		return err
	}
	unlock = held
	idx, err := readLayoutIndex(w.dir)
	if err != nil {
		return err
	}
	for _, bl := range layoutBlobs(img) {
		if err := w.blob(ctx, bl); err != nil {
			return err
		}
	}
	return w.index(idx, entries)
}

// index adds entries to the layout's index and replaces it: what they lead to is there.
func (w *layoutWriter) index(idx *v1.IndexManifest, entries []v1.Descriptor) error {
	if err := w.file(layoutFile, []byte(layoutVersion)); err != nil {
		return err
	}
	raw, err := json.Marshal(mergeIndex(idx, entries))
	if err != nil {
		return err
	}
	return w.file(indexFile, raw)
}

// readLayoutIndex returns the index of an existing layout or an empty one.
func readLayoutIndex(dir string) (*v1.IndexManifest, error) {
	f, size, err := openRegular(filepath.Join(dir, indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{}, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := readSmall(f, size, maxManifest, indexFile)
	if err != nil {
		return nil, err
	}
	return parseIndex(raw)
}

// mergeIndex replaces the entries that have the new ones' names, and an unnamed
// one of the same digest.
func mergeIndex(idx *v1.IndexManifest, entries []v1.Descriptor) *v1.IndexManifest {
	idx.SchemaVersion, idx.MediaType = 2, types.OCIImageIndex
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(old v1.Descriptor) bool {
		return slices.ContainsFunc(entries, func(d v1.Descriptor) bool {
			if !hasName(d) || !hasName(old) {
				return old.Digest == d.Digest && !hasName(old)
			}
			return sameName(old, d)
		})
	})
	idx.Manifests = append(idx.Manifests, entries...)
	return idx
}

// sameName compares whole names, or tags where an entry has no more.
func sameName(old, d v1.Descriptor) bool {
	if n := old.Annotations[imageNameKey]; n != "" {
		return n == d.Annotations[imageNameKey]
	}
	n := old.Annotations[refNameKey]
	return n == d.Annotations[refNameKey] || n == d.Annotations[imageNameKey]
}

// layoutWriter remembers what it made.
type layoutWriter struct {
	dir  string
	made []string
}

func (w *layoutWriter) mkdirAll(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := w.mkdirAll(parent); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o755) //nolint:gosec // an image is for whoever the umask lets read it
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		w.made = append(w.made, dir)
	}
	return err
}

// undo removes what was made, the last first; what others use meanwhile stays.
func (w *layoutWriter) undo() error {
	var errs []error
	for _, name := range slices.Backward(w.made) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *layoutWriter) blob(ctx context.Context, b blob) error {
	path := filepath.Join(w.dir, blobPath(b.desc.Digest))
	if intact(ctx, w.dir, b.desc) {
		return nil
	}
	if err := w.mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	r, err := b.open(ctx)
	if err != nil {
		return err
	}
	err = w.replace(path, ctxReader{ctx, r})
	return errors.Join(err, r.Close())
}

// intact reports whether a blob is there already and is what its name says. One
// that was damaged is written again.
func intact(ctx context.Context, dir string, d v1.Descriptor) bool {
	r, err := layoutOpener(dir).verified(ctx, d)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, ctxReader{ctx, r})
	return errors.Join(err, r.Close()) == nil
}

// file writes a small file unless it holds that already.
func (w *layoutWriter) file(name string, data []byte) error {
	path := filepath.Join(w.dir, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return w.replace(path, bytes.NewReader(data))
}

// replace writes a file beside path, syncs it and gives it its name.
func (w *layoutWriter) replace(path string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, statErr := os.Lstat(path)
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		w.made = append(w.made, path)
	}
	return nil
}

const (
	// lockWait is the pause between two tries to lock a layout.
	lockWait = 20 * time.Millisecond
	// tempPrefix is what the names of files begin with that have none yet, and tempAge is
	// when nobody writes them any more: where locks do nothing, others may.
	tempPrefix = ".fbuild-"
	tempAge    = time.Hour
)

// sweepTemps removes what a killed writer left. The layout is locked.
func sweepTemps(dir string) {
	for _, d := range []string{dir, filepath.Join(dir, "blobs", "sha256")} {
		entries, _ := os.ReadDir(d) // what cannot be listed stays
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), tempPrefix) || !e.Type().IsRegular() {
				continue
			}
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
				_ = os.Remove(filepath.Join(d, e.Name())) // it is only in the way
			}
		}
	}
}

// lockDir keeps two writers of a layout from losing each other's entries.
func lockDir(ctx context.Context, dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock OCI layout: %w", err)
	}
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP):
			sweepTemps(dir)
			return d.Close, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(fmt.Errorf("lock OCI layout: %w", err), d.Close())
		}
		select {
		case <-time.After(lockWait):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), d.Close())
		}
	}
}

// Saved is an image of an archive with its names there.
type Saved struct {
	Image Writable
	Names []string
}

// WriteArchive writes an image as the tar of an OCI layout that `docker load`
// understands too. The bytes depend on the image and its names only.
func WriteArchive(ctx context.Context, w io.Writer, names []string, img Writable) error {
	if err := writeArchive(ctx, w, []Saved{{img, names}}, false); err != nil {
		return fmt.Errorf("write OCI archive: %w", err)
	}
	return nil
}

// WriteDockerArchive writes images for `docker load`, `podman load` and
// `ctr image import`: the tar of WriteArchive with docker save's file of names.
// Layers go in as they are.
func WriteDockerArchive(ctx context.Context, w io.Writer, list ...Saved) error {
	if err := writeArchive(ctx, w, list, true); err != nil {
		return fmt.Errorf("write docker archive: %w", err)
	}
	return nil
}

func writeArchive(ctx context.Context, w io.Writer, list []Saved, docker bool) error {
	var named []v1.Descriptor
	var saves []saved
	repos := map[string]map[string]string{}
	blobs := map[v1.Hash]blob{}
	for _, s := range list {
		own, err := entries(s.Image.Root(), s.Names)
		if err != nil {
			return err
		}
		named = append(named, own...)
		if b, ok := s.Image.(*Built); ok { // docker's own files have no place for an index
			saves = append(saves, b.dockerSave(own))
			b.dockerRepositories(own, repos)
		}
		for _, b := range layoutBlobs(s.Image) {
			blobs[b.desc.Digest] = b
		}
	}
	tw := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	for _, h := range slices.SortedFunc(maps.Keys(blobs), func(a, b v1.Hash) int { return strings.Compare(a.Hex, b.Hex) }) {
		if err := tarBlob(ctx, tw, blobPath(h), blobs[h]); err != nil {
			return err
		}
	}
	type small struct {
		name string
		data any
	}
	smalls := []small{{indexFile, mergeIndex(&v1.IndexManifest{}, named)}}
	if len(saves) > 0 {
		smalls = append(smalls, small{dockerManifest, saves})
	}
	smalls = append(smalls, small{layoutFile, json.RawMessage(layoutVersion)})
	if docker && len(saves) > 0 {
		smalls = append(smalls, small{dockerRepositories, repos})
	}
	for _, f := range smalls {
		data, err := json.Marshal(f.data)
		if err == nil {
			err = tarBlob(ctx, tw, f.name, memoryBlob(v1.Descriptor{Size: int64(len(data))}, data))
		}
		if err != nil {
			return err
		}
	}
	return tw.Close()
}

func tarBlob(ctx context.Context, tw *tar.Writer, name string, b blob) error {
	r, err := b.open(ctx)
	if err != nil {
		return err
	}
	err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: b.desc.Size, Mode: 0o644, ModTime: time.Unix(0, 0)})
	if err == nil {
		_, err = io.Copy(tw, ctxReader{ctx, r})
	}
	return errors.Join(err, r.Close())
}

// dockerSave is the image's entry of the manifest.json that `docker load` reads.
func (b *Built) dockerSave(entries []v1.Descriptor) saved {
	s := saved{Config: blobPath(b.Manifest.Config.Digest), RepoTags: []string{}, Layers: []string{}}
	for _, d := range entries {
		if n := d.Annotations[imageNameKey]; n != "" {
			s.RepoTags = append(s.RepoTags, n)
		}
	}
	for _, d := range b.Manifest.Layers {
		s.Layers = append(s.Layers, blobPath(d.Digest))
	}
	return s
}

// dockerRepositories adds to docker save's oldest file of names, name -> tag -> the
// last layer: what still lists the names of an archive reads it.
func (b *Built) dockerRepositories(entries []v1.Descriptor, repos map[string]map[string]string) {
	for _, d := range entries {
		name, tag := cutTag(d.Annotations[imageNameKey])
		if n := len(b.Manifest.Layers); name != "" && n > 0 {
			if repos[name] == nil {
				repos[name] = map[string]string{}
			}
			repos[name][tag] = b.Manifest.Layers[n-1].Digest.Hex
		}
	}
}

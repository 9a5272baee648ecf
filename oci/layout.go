package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

const (
	layoutFile    = "oci-layout"
	indexFile     = "index.json"
	layoutVersion = `{"imageLayoutVersion":"1.0.0"}`
	// refNameKey holds a tag, imageNameKey the whole name (containerd, BuildKit).
	refNameKey   = "org.opencontainers.image.ref.name"
	imageNameKey = "io.containerd.image.name"
)

// OpenLayout reads the image that a tag, a whole name or a digest means in an
// OCI layout directory; "" is the only one, the one called latest, or the
// platforms of one image. Layers are read when they are opened.
func OpenLayout(ctx context.Context, path, tagOrDigest string, p Platform) (*Image, error) {
	return openIndexed(ctx, layoutAt(path, tagOrDigest), tagOrDigest, p)
}

func layoutAt(path, tagOrDigest string) *layoutReader {
	ref := "oci-layout://" + path
	switch {
	case strings.Contains(tagOrDigest, ":") && isDigest(tagOrDigest):
		ref += "@" + tagOrDigest
	case tagOrDigest != "":
		ref += ":" + tagOrDigest
	}
	read := func(name string, limit int64) ([]byte, error) {
		f, size, err := openRegular(filepath.Join(path, name))
		if err != nil {
			return nil, err
		}
		return readSmall(f, size, limit, name)
	}
	size := func(h v1.Hash) (int64, error) { return layoutBlobSize(path, h) }
	return &layoutReader{source{ref: ref, open: layoutOpener(path)}, read, size}
}

// layoutOpener opens the blobs of a layout directory.
func layoutOpener(dir string) opener {
	return func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		f, _, err := openRegular(filepath.Join(dir, blobPath(d.Digest)))
		return f, err
	}
}

func layoutBlobSize(dir string, h v1.Hash) (int64, error) {
	f, size, err := openRegular(filepath.Join(dir, blobPath(h)))
	if err != nil {
		return 0, err
	}
	return size, f.Close()
}

// Open reads the image from the layout: a directory, or an archive of one.
func (l LayoutRef) Open(ctx context.Context, p Platform) (*Image, error) {
	st, err := os.Stat(l.Path)
	if err != nil {
		return nil, fmt.Errorf("open image layout: %w", err)
	}
	if st.IsDir() {
		return OpenLayout(ctx, l.Path, l.Name, p)
	}
	return OpenArchive(ctx, l.Path, l.Name, p)
}

// layoutReader is a layout in a directory or an archive.
type layoutReader struct {
	source
	read func(name string, limit int64) ([]byte, error)
	size func(h v1.Hash) (int64, error)
}

func openIndexed(ctx context.Context, l *layoutReader, name string, p Platform) (*Image, error) {
	img, err := l.resolve(ctx, name, p)
	if err != nil {
		return nil, l.fail(err)
	}
	return img, nil
}

func (l *layoutReader) resolve(ctx context.Context, name string, p Platform) (*Image, error) {
	idx, err := l.index()
	if err != nil {
		return nil, err
	}
	list, err := l.find(idx, name)
	if err != nil {
		return nil, err
	}
	if len(list) > 1 {
		return l.choose(ctx, list, p, 0)
	}
	raw, err := l.open.read(ctx, list[0], maxManifest, "manifest")
	if err != nil {
		return nil, err
	}
	return l.image(ctx, raw, list[0], p, 0)
}

func (l *layoutReader) index() (*v1.IndexManifest, error) {
	raw, err := l.read(indexFile, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no OCI layout (no %s)", ErrNotFound, indexFile)
	}
	if err != nil {
		return nil, err
	}
	return parseIndex(raw)
}

func parseIndex(raw []byte) (*v1.IndexManifest, error) {
	if err := CheckJSON(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: parse %s: %w", ErrInvalid, indexFile, err)
	}
	for _, d := range idx.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, fmt.Errorf("%s: %w", indexFile, err)
		}
	}
	return idx, nil
}

// find returns the entry that name means, or several that are one image for
// several platforms.
func (l *layoutReader) find(idx *v1.IndexManifest, name string) ([]v1.Descriptor, error) {
	if isDigest(name) {
		return l.findDigest(idx, name)
	}
	list := slices.DeleteFunc(slices.Clone(idx.Manifests), isAttestation)
	want := name
	if want == "" && len(list) != 1 {
		want = defaultTag
	}
	var found []v1.Descriptor
	for _, d := range list {
		if want == "" || named(d, want) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 0 && name == "" && len(list) > 0 && !slices.ContainsFunc(list, hasName):
		found = list
	case len(found) == 0:
		return nil, fmt.Errorf("%w: it holds %s", ErrNotFound, describeNames(list))
	}
	// Several names of one manifest are one entry.
	seen := map[v1.Hash]bool{}
	found = slices.DeleteFunc(found, func(d v1.Descriptor) bool {
		defer func() { seen[d.Digest] = true }()
		return seen[d.Digest]
	})
	if len(found) > 1 && slices.ContainsFunc(found, func(d v1.Descriptor) bool { return d.Platform == nil }) {
		return nil, fmt.Errorf("%w: %d images, choose one by tag or digest: %s", ErrInvalid, len(found), describeNames(found))
	}
	return found, nil
}

// findDigest accepts every manifest that the layout has a blob of, listed or not.
func (l *layoutReader) findDigest(idx *v1.IndexManifest, name string) ([]v1.Descriptor, error) {
	h, err := v1.NewHash(name)
	if err != nil {
		return nil, fmt.Errorf("%w: bad digest %q", ErrRef, name)
	}
	for _, d := range idx.Manifests {
		if d.Digest == h {
			return []v1.Descriptor{d}, nil
		}
	}
	size, err := l.size(h)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", h, err)
	}
	return []v1.Descriptor{{Digest: h, Size: size}}, nil
}

func isDigest(s string) bool {
	_, err := v1.NewHash(s)
	return err == nil
}

func hasName(d v1.Descriptor) bool {
	return d.Annotations[refNameKey] != "" || d.Annotations[imageNameKey] != ""
}

// named reports whether an entry is called name: a tag, or a whole name.
func named(d v1.Descriptor, name string) bool {
	full := ""
	if ref, err := ParseRef(name); err == nil {
		full = FullName(ref)
	}
	for _, key := range []string{refNameKey, imageNameKey} {
		v := d.Annotations[key]
		if v == "" {
			continue
		}
		_, tag := cutTag(v)
		if v == name || v == full || tag == name {
			return true
		}
	}
	return false
}

func describeNames(list []v1.Descriptor) string {
	const limit = 10
	var names []string
	for _, d := range list {
		n := d.Annotations[imageNameKey]
		if n == "" {
			n = d.Annotations[refNameKey]
		}
		if n == "" {
			n = d.Digest.String()
		}
		names = append(names, shorten(n, mediaTypeLimit))
	}
	if len(names) > limit {
		names = append(names[:limit], fmt.Sprintf("and %d more", len(names)-limit))
	}
	if len(names) == 0 {
		return "no image"
	}
	return strings.Join(names, ", ")
}

// blobPath is where a layout keeps a blob. The digest was parsed: it holds no
// separator.
func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// openRegular opens a file that must be a regular one: a fifo or a device in a
// layout does not stop the build.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalid, path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// readSmall reads and closes a file of at most limit bytes.
func readSmall(f io.ReadCloser, size, limit int64, name string) ([]byte, error) {
	if size > limit {
		return nil, errors.Join(fmt.Errorf("%s: %w: %d bytes, at most %d are read", name, ErrTooLarge, size, limit), f.Close())
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return b, errors.Join(err, f.Close())
}

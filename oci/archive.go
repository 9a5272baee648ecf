package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

const (
	maxArchiveEntries = 100_000
	maxArchiveLinks   = 8       // symlinks followed in a docker save archive
	gunzipFree        = 1 << 30 // bytes that any gzip archive may become
	gunzipRatio       = 200     // and how many times its size beyond that
	dockerManifest    = "manifest.json"
	// dockerRepositories is written for docker and never read.
	dockerRepositories = "repositories"
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// OpenArchive reads an image from a tar file: an OCI layout (BuildKit, skopeo,
// docker save since 25) or docker save's older form, plain or compressed with
// gzip. tagOrDigest chooses as in OpenLayout. A plain archive is read at
// offsets; of a compressed one a plain copy without a name lies in the
// temporary directory while the Image is in use.
func OpenArchive(ctx context.Context, file, tagOrDigest string, p Platform) (*Image, error) {
	a, err := openTar(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", file, err)
	}
	return a.image(ctx, file, tagOrDigest, p)
}

// image reads one image of the archive called file.
func (a *tarFile) image(ctx context.Context, file, tagOrDigest string, p Platform) (*Image, error) {
	src := source{ref: "archive " + file}
	if tagOrDigest != "" {
		src.ref += " (" + tagOrDigest + ")"
	}
	if _, ok := a.entries[indexFile]; ok {
		src.open = func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
			r, _, err := a.open(blobPath(d.Digest))
			return r, err
		}
		return openIndexed(ctx, &layoutReader{src, a.read, a.size}, tagOrDigest, p)
	}
	if _, ok := a.entries[dockerManifest]; ok {
		img, err := openDockerSave(ctx, a, src, tagOrDigest, p)
		if err != nil {
			return nil, src.fail(err)
		}
		return img, nil
	}
	return nil, fmt.Errorf("%s: %w: neither %s nor %s in it", src.ref, ErrInvalid, indexFile, dockerManifest)
}

// tarFile is an archive with the places of its entries.
type tarFile struct {
	// use hands a reader of the archive to the caller, who closes it.
	use     func() (io.ReaderAt, func() error, error)
	entries map[string]tarEntry
}

type tarEntry struct {
	off, size int64
	link      string // the entry meant instead, "" for a file
}

func openTar(ctx context.Context, file string) (*tarFile, error) {
	f, _, err := openRegular(file)
	if err != nil {
		return nil, err
	}
	magic := make([]byte, len(gzipMagic))
	n, err := f.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	a := &tarFile{entries: map[string]tarEntry{}}
	if n == len(magic) && string(magic) == string(gzipMagic) {
		plain, err := gunzip(ctx, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		// The garbage collector closes plain, and the space is free again, when
		// nobody holds the Image any more.
		a.use = func() (io.ReaderAt, func() error, error) { return plain, func() error { return nil }, nil }
		err = a.scan(ctx, plain)
		return a, err
	}
	a.use = func() (io.ReaderAt, func() error, error) {
		f, _, err := openRegular(file)
		if err != nil {
			return nil, nil, err
		}
		return f, f.Close, nil
	}
	err = a.scan(ctx, f)
	return a, errors.Join(err, f.Close())
}

// gunzip writes the plain bytes of f to a file without a name.
func gunzip(ctx context.Context, f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	limit := gunzipFree + gunzipRatio*info.Size()
	zr, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	out, err := os.CreateTemp("", "fbuild-archive-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(out.Name())
	if err == nil {
		var n int64
		n, err = io.Copy(out, io.LimitReader(ctxReader{ctx, zr}, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("%w: more than %d bytes from %d compressed ones", ErrTooLarge, limit, info.Size())
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("decompress: %w", err), out.Close())
	}
	_, err = out.Seek(0, io.SeekStart)
	return out, err
}

// ctxReader ends when its context does.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // Read has no parameter for it
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// scan notes where the entries' bytes lie; the last entry of a name wins.
func (a *tarFile) scan(ctx context.Context, f io.ReadSeeker) error {
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w: not a readable tar: %w", ErrInvalid, err)
		}
		if len(a.entries) >= maxArchiveEntries {
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, maxArchiveEntries)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			off, err := f.Seek(0, io.SeekCurrent) // the tar reader reads whole headers and no further
			if err != nil {
				return err
			}
			a.entries[name] = tarEntry{off: off, size: h.Size}
		case tar.TypeSymlink:
			a.entries[name] = tarEntry{link: path.Clean("/" + path.Join(path.Dir(name), h.Linkname))[1:]} //nolint:gosec // a name inside the archive: nothing is extracted
		case tar.TypeLink:
			a.entries[name] = tarEntry{link: path.Clean("/" + h.Linkname)[1:]}
		}
	}
}

func (a *tarFile) entry(name string) (tarEntry, error) {
	want := name
	for range maxArchiveLinks {
		e, ok := a.entries[name]
		if !ok {
			return e, fmt.Errorf("%w: %s is not in the archive", ErrNotFound, shorten(want, mediaTypeLimit))
		}
		if e.link == "" {
			return e, nil
		}
		name = e.link
	}
	return tarEntry{}, fmt.Errorf("%w: too many links at %s", ErrInvalid, shorten(want, mediaTypeLimit))
}

// section is one entry of an archive, open.
type section struct {
	*io.SectionReader
	close func() error
}

func (s section) Close() error { return s.close() }

func (a *tarFile) open(name string) (io.ReadCloser, int64, error) {
	e, err := a.entry(name)
	if err != nil {
		return nil, 0, err
	}
	r, done, err := a.use()
	if err != nil {
		return nil, 0, err
	}
	return section{io.NewSectionReader(r, e.off, e.size), done}, e.size, nil
}

func (a *tarFile) read(name string, limit int64) ([]byte, error) {
	r, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	return readSmall(r, size, limit, name)
}

func (a *tarFile) size(h v1.Hash) (int64, error) {
	e, err := a.entry(blobPath(h))
	return e.size, err
}

// saved is an entry of docker save's manifest.json.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openDockerSave makes a docker schema 2 manifest for an archive that has none.
func openDockerSave(ctx context.Context, a *tarFile, src source, name string, p Platform) (*Image, error) {
	raw, err := a.read(dockerManifest, maxManifest)
	if err != nil {
		return nil, err
	}
	var list []saved
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%w: parse %s: %w", ErrInvalid, dockerManifest, err)
	}
	s, err := findSaved(list, name)
	if err != nil {
		return nil, err
	}
	rawConfig, err := a.read(path.Clean(s.Config), maxConfig)
	if err != nil {
		return nil, err
	}
	var cfg v1.ConfigFile
	if err := json.Unmarshal(rawConfig, &cfg); err != nil {
		return nil, fmt.Errorf("%w: parse config: %w", ErrInvalid, err)
	}
	if len(cfg.RootFS.DiffIDs) != len(s.Layers) || len(s.Layers) > maxLayerCount {
		return nil, fmt.Errorf("%w: config lists %d layers, %s %d", ErrInvalid, len(cfg.RootFS.DiffIDs), dockerManifest, len(s.Layers))
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
		Config: describe(rawConfig, types.DockerConfigJSON), Layers: []v1.Descriptor{},
	}
	names := map[v1.Hash]string{m.Config.Digest: path.Clean(s.Config)}
	for i, l := range s.Layers {
		d, err := describeSaved(ctx, a, path.Clean(l), cfg.RootFS.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		m.Layers = append(m.Layers, d)
		names[d.Digest] = path.Clean(l)
	}
	src.open = func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		r, _, err := a.open(names[d.Digest])
		return r, err
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return src.image(ctx, manifest, describe(manifest, m.MediaType), p, 0)
}

func findSaved(list []saved, name string) (saved, error) {
	var tags []string
	for _, s := range list {
		tags = append(tags, s.RepoTags...)
	}
	if name == "" && len(list) == 1 {
		return list[0], nil
	}
	if name == "" {
		name = defaultTag
	}
	full := ""
	if ref, err := ParseRef(name); err == nil {
		full = FullName(ref)
	}
	var found []saved
	for _, s := range list {
		if slices.ContainsFunc(s.RepoTags, func(t string) bool {
			ref, err := ParseRef(t)
			return t == name || err == nil && (FullName(ref) == full || ref.Identifier() == name)
		}) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return saved{}, fmt.Errorf("%w: it holds %s", ErrNotFound, shorten(strings.Join(tags, ", "), 1000))
	}
	return saved{}, fmt.Errorf("%w: %d images, choose one by its name: %s", ErrInvalid, len(found), shorten(strings.Join(tags, ", "), 1000))
}

// describeSaved finds out what a layer of docker save is. A plain tar's digest
// is its diff id; a compressed one has to be read.
func describeSaved(ctx context.Context, a *tarFile, name string, diffID v1.Hash) (v1.Descriptor, error) {
	r, size, err := a.open(name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	br := bufio.NewReader(ctxReader{ctx, r})
	magic, err := br.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return v1.Descriptor{}, errors.Join(err, r.Close())
	}
	d := v1.Descriptor{MediaType: types.DockerUncompressedLayer, Size: size, Digest: diffID}
	switch {
	case strings.HasPrefix(string(magic), string(gzipMagic)):
		d.MediaType = types.DockerLayer
	case string(magic) == string(zstdMagic):
		d.MediaType = dockerZstd
	default:
		return d, r.Close()
	}
	h := sha256.New()
	_, err = io.Copy(h, br)
	d.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return d, errors.Join(err, r.Close())
}

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/internal/s3"
	"github.com/fbuild/fbuild/oci"
)

// cachePlace is where a shared cache lies: a manifest under a name, and blobs.
type cachePlace interface {
	String() string
	// Repo is the repository of a registry, "" for none.
	Repo() string
	// Manifest returns what the name stands for; oci.ErrNotFound where there is none.
	Manifest(ctx context.Context) ([]byte, v1.Descriptor, error)
	// ManifestOf returns another manifest, by digest.
	ManifestOf(ctx context.Context, h v1.Hash) ([]byte, v1.Descriptor, error)
	// Open streams a blob that is verified at its end. The caller closes it.
	Open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	// Add makes sure that a blob is there. It may be called at once.
	Add(ctx context.Context, b oci.Blob, progress func(oci.Status)) error
	// Publish gives a manifest the name, after its blobs.
	Publish(ctx context.Context, raw []byte, mt types.MediaType) error
}

// locker is a place that lets one writer in at a time.
type locker interface {
	Lock(ctx context.Context) (unlock func() error, err error)
}

// bucketPlace is a shared cache in a bucket: manifests by name and blobs by digest, as
// BuildKit names them.
type bucketPlace struct {
	b                *s3.Bucket
	names            []string
	manifests, blobs string
	touch            time.Duration
	lies             *lies // what the build found out about the buckets it reads
}

// lies are the objects of buckets that do not hold what their names say: a place that
// does not look into what it has keeps them for ever, unless they are written again.
type lies struct {
	mu   sync.Mutex // guards keys
	keys map[string]bool
}

func (l *lies) add(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys == nil {
		l.keys = map[string]bool{}
	}
	l.keys[key] = true
}

func (l *lies) has(key string) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[key]
}

// lieReader notes an object that is not what its digest says.
type lieReader struct {
	io.ReadCloser
	lies *lies
	key  string
}

func (r *lieReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if errors.Is(err, oci.ErrDigest) {
		r.lies.add(r.key)
	}
	return n, err
}

func (p *bucketPlace) String() string { return p.b.String() + "/" + p.manifests + p.names[0] }

// Repo is "": a bucket is no registry.
func (p *bucketPlace) Repo() string { return "" }

// fail gives an error of the bucket the sentinel that all places have.
func (p *bucketPlace) fail(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, s3.ErrNotFound):
		return fmt.Errorf("bucket %s: %w: %w", p.b, oci.ErrNotFound, err)
	}
	return fmt.Errorf("bucket %s: %w", p.b, err)
}

// Manifest returns the first of the names that is there.
func (p *bucketPlace) Manifest(ctx context.Context) ([]byte, v1.Descriptor, error) {
	var first error
	for _, n := range p.names {
		raw, err := p.read(ctx, p.manifests+n)
		if err == nil {
			return raw, describeBytes(raw, ""), nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, s3.ErrNotFound) {
			break
		}
	}
	return nil, v1.Descriptor{}, p.fail(first)
}

// ManifestOf is for indexes of images, which no bucket holds.
func (p *bucketPlace) ManifestOf(context.Context, v1.Hash) ([]byte, v1.Descriptor, error) {
	return nil, v1.Descriptor{}, p.fail(s3.ErrNotFound)
}

func (p *bucketPlace) read(ctx context.Context, key string) ([]byte, error) {
	r, _, err := p.b.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxSharedManifest+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if len(raw) > maxSharedManifest {
		return nil, fmt.Errorf("read %s: more than %d bytes", key, maxSharedManifest)
	}
	return raw, nil
}

// Open streams a blob; digest and size are verified at the end of the stream.
func (p *bucketPlace) Open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r, err := oci.Verified(ctx, d, func(ctx context.Context) (io.ReadCloser, error) {
		r, _, err := p.b.Get(ctx, p.blobs+d.Digest.String())
		return r, err
	})
	if err == nil && p.lies != nil {
		r = &lieReader{r, p.lies, p.object(d)}
	}
	return r, p.fail(err)
}

// object names a blob among those of all buckets.
func (p *bucketPlace) object(d v1.Descriptor) string {
	return p.b.String() + "/" + p.blobs + d.Digest.String()
}

// Add sends a blob that is not there, or was found to be false. One that is there gets a
// new time now and then, so that a rule of the bucket can remove what is old.
func (p *bucketPlace) Add(ctx context.Context, b oci.Blob, progress func(oci.Status)) error {
	key := p.blobs + b.Desc.Digest.String()
	info, err := p.b.Head(ctx, key)
	state := oci.Exists
	switch {
	case err == nil && info.Size == b.Desc.Size && !p.lies.has(p.object(b.Desc)):
		if !info.Modified.IsZero() && time.Since(info.Modified) > p.touch {
			if err := p.b.Touch(ctx, key); err != nil && !unsupported(err) {
				return p.fail(err)
			}
		}
	case err == nil || errors.Is(err, s3.ErrNotFound) || errors.Is(err, s3.ErrDenied):
		// S3 denies what is missing to who may not list.
		state = oci.Pushed
		err := p.b.Upload(ctx, key, b.Desc.Size, func() (io.ReadCloser, error) { return oci.Verified(ctx, b.Desc, b.Open) })
		if err != nil {
			return p.fail(err)
		}
	default:
		return p.fail(err)
	}
	if progress != nil {
		progress(oci.Status{State: state, Current: b.Desc.Size, Total: b.Desc.Size})
	}
	return nil
}

// unsupported reports whether a server does not know a request at all.
func unsupported(err error) bool {
	var e *s3.Error
	return errors.As(err, &e) && (e.Status == http.StatusNotImplemented || e.Status == http.StatusMethodNotAllowed)
}

// Publish writes the manifest under every name.
func (p *bucketPlace) Publish(ctx context.Context, raw []byte, _ types.MediaType) error {
	for _, n := range p.names {
		if err := p.b.Put(ctx, p.manifests+n, raw); err != nil {
			return p.fail(err)
		}
	}
	return nil
}

// describeBytes returns the descriptor of bytes in memory.
func describeBytes(raw []byte, mt types.MediaType) v1.Descriptor {
	h, size, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil { // of a reader that has no errors
		return v1.Descriptor{}
	}
	return v1.Descriptor{MediaType: mt, Size: size, Digest: h}
}

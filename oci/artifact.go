package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Blob is bytes by digest, on their way to where an artifact lies.
type Blob struct {
	Desc v1.Descriptor
	// Open streams the bytes; the caller closes it. They are verified on the way.
	Open func(ctx context.Context) (io.ReadCloser, error)
	Repo string // as in Layer
}

// MemoryBlob is a blob of bytes in memory.
func MemoryBlob(raw []byte, mt types.MediaType) Blob {
	b := memoryBlob(describe(raw, mt), raw)
	return Blob{Desc: b.desc, Open: b.open}
}

// Verified opens a stream whose reader ends with ErrDigest unless digest and size are
// those of d.
func Verified(ctx context.Context, d v1.Descriptor, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	return opener(func(ctx context.Context, _ v1.Descriptor) (io.ReadCloser, error) { return open(ctx) }).verified(ctx, d)
}

// verified is the blob as it is written: who reads it gets ErrDigest where it is not
// what Desc says.
func (b Blob) verified() blob {
	return blob{b.Desc, func(ctx context.Context) (io.ReadCloser, error) { return Verified(ctx, b.Desc, b.Open) }, b.Repo}
}

// RemoteArtifact is a manifest of any kind in a registry, and the blobs of its
// repository.
type RemoteArtifact struct {
	r   *Remote
	ref name.Reference
}

// Artifact returns what a name of a registry stands for. It sends nothing yet.
func (r *Remote) Artifact(ref string) (*RemoteArtifact, error) {
	parsed, err := ParseRef(ref)
	if err != nil {
		return nil, err
	}
	return &RemoteArtifact{r, parsed}, nil
}

// String is the whole name.
func (a *RemoteArtifact) String() string { return FullName(a.ref) }

// Repo is the repository, as in Layer.
func (a *RemoteArtifact) Repo() string { return repoName(a.ref.Context()) }

// Manifest reads the manifest, which may be of any kind; one that is not there is
// ErrNotFound.
func (a *RemoteArtifact) Manifest(ctx context.Context) ([]byte, v1.Descriptor, error) {
	return a.manifest(ctx, a.ref.Identifier())
}

// ManifestOf reads another manifest of the repository, by digest.
func (a *RemoteArtifact) ManifestOf(ctx context.Context, h v1.Hash) ([]byte, v1.Descriptor, error) {
	return a.manifest(ctx, h.String())
}

func (a *RemoteArtifact) manifest(ctx context.Context, id string) ([]byte, v1.Descriptor, error) {
	s, err := a.r.session(ctx, a.ref.Context(), []string{a.ref.Scope(transport.PullScope)})
	if err != nil {
		return nil, v1.Descriptor{}, remoteError("pull", a.ref, err)
	}
	raw, desc, err := s.manifest(ctx, id)
	if err != nil {
		return nil, v1.Descriptor{}, remoteError("pull", a.ref, err)
	}
	return raw, desc, nil
}

// Open streams a blob; digest and size are verified at the end of the stream.
func (a *RemoteArtifact) Open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	src := &source{open: a.r.blobOpener(a.ref.Context()), label: func(err error) error { return remoteError("pull", a.ref, err) }}
	r, err := src.open.verified(ctx, d)
	if err != nil {
		return nil, src.fail(fmt.Errorf("blob %s: %w", d.Digest, err))
	}
	return &labelled{r, src}, nil
}

// blobOpener opens blobs of a repository, whatever their media type says.
func (r *Remote) blobOpener(repo name.Repository) opener {
	return func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		s, err := r.session(ctx, repo, []string{repo.Scope(transport.PullScope)})
		if err != nil {
			return nil, err
		}
		return s.open(ctx, "blobs", d)
	}
}

// Add makes sure that the repository has a blob: it is left alone, mounted from
// another repository of the registry, or sent.
func (a *RemoteArtifact) Add(ctx context.Context, b Blob, progress func(Status)) error {
	p := &pusher{target: &pushTarget{repo: a.ref.Context()}, report: func(s Status) {
		if progress != nil {
			progress(s)
		}
	}}
	own := b.verified()
	scopes := []string{a.ref.Scope(transport.PushScope)}
	if from, ok := p.mountFrom(own); ok {
		scopes = append(scopes, from.Scope(transport.PullScope))
	}
	var err error
	if p.s, err = a.r.session(ctx, a.ref.Context(), scopes); err == nil {
		err = p.blob(ctx, own)
	}
	if err != nil {
		return remoteError("push", a.ref, fmt.Errorf("blob %s: %w", b.Desc.Digest, err))
	}
	return nil
}

// Publish makes raw the manifest of the name.
func (a *RemoteArtifact) Publish(ctx context.Context, raw []byte, mt types.MediaType) error {
	tag, ok := a.ref.(name.Tag)
	if !ok {
		return fmt.Errorf("%s: %w: a digest is no name for something new", a, ErrRef)
	}
	s, err := a.r.session(ctx, tag.Context(), []string{tag.Scope(transport.PushScope)})
	if err == nil {
		p := &pusher{s: s, report: func(Status) {}}
		err = p.manifest(ctx, tag.TagStr(), rawManifest{describe(raw, mt), raw})
	}
	if err != nil {
		return remoteError("push", a.ref, err)
	}
	return nil
}

// Refused reports whether the registry answered and did not want what was sent, as
// one does whose manifest names a blob that is gone.
func Refused(err error) bool {
	var se *statusError
	return errors.As(err, &se) && (se.code == http.StatusBadRequest || se.code == http.StatusNotFound)
}

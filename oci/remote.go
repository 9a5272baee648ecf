package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/tree"
)

// acceptManifests is what we understand, and schema 1 to refuse it with words.
var acceptManifests = strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.DockerManifestSchema2),
	string(types.DockerManifestSchema1Signed),
}, ",")

// RemoteOptions say how registries are talked to.
type RemoteOptions struct {
	// Insecure are the hosts (with their port, as in an image name) whose
	// certificate is not checked and that may be asked over plain HTTP.
	Insecure  []string
	UserAgent string // "fbuild" where empty
	// ConfigDir holds docker's config.json, or is a file like it; "" is
	// $DOCKER_CONFIG, else ~/.docker, else podman's files.
	ConfigDir string
	// Mirrors are asked for manifests and blobs before the registry itself, in their
	// order; MirrorsOnly asks nobody else. Nothing is pushed to them.
	Mirrors     []Mirror
	MirrorsOnly bool
	// Certificates are those of single registries. Without one for a registry CertDirs
	// are looked into; nil is where docker and podman look.
	Certificates []Certificate
	CertDirs     []string
}

// Remote talks to registries. It keeps connections and tokens for its life.
type Remote struct {
	opts  RemoteOptions
	pace  pace
	plain http.RoundTripper // checks certificates
	lax   http.RoundTripper // does not

	mu       sync.Mutex // guards what follows, never held during a request
	sessions map[string]*sessionSlot
	bad      map[badCopy]bool
	own      map[string]http.RoundTripper // of registries with certificates
}

// sessionSlot makes one goroutine log in and the others wait for it.
type sessionSlot struct {
	sem chan struct{} // holds one token while nobody works on the slot
	s   *session
}

// NewRemote returns a client. It sends nothing yet.
func NewRemote(o RemoteOptions) *Remote {
	if o.CertDirs == nil {
		o.CertDirs = certDirs()
	}
	if o.UserAgent == "" {
		o.UserAgent = "fbuild"
	}
	return &Remote{
		opts: o, pace: defaultPace, plain: newTransport(false), lax: newTransport(true),
		sessions: map[string]*sessionSlot{}, own: map[string]http.RoundTripper{}, bad: map[badCopy]bool{},
	}
}

// Close ends idle connections. No request may be under way.
func (r *Remote) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range append([]http.RoundTripper{r.plain, r.lax}, slices.Collect(maps.Values(r.own))...) {
		if t, ok := t.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}

// insecure reports whether a registry may be asked without a checked
// certificate, or without TLS: where asked, or this machine, as docker has it, unless
// the caller named the authority that its certificate must be of.
func (r *Remote) insecure(host string) bool {
	if slices.Contains(r.opts.Insecure, host) {
		return true
	}
	named := slices.ContainsFunc(r.opts.Certificates, func(c Certificate) bool { return c.Host == host && c.CA != "" })
	return isLoopback(host) && !named
}

// session returns a client that is logged in for the scopes.
func (r *Remote) session(ctx context.Context, repo name.Repository, scopes []string) (*session, error) {
	key := repo.Name() + " " + strings.Join(scopes, " ")
	r.mu.Lock()
	slot := r.sessions[key]
	if slot == nil {
		slot = &sessionSlot{sem: make(chan struct{}, 1)}
		slot.sem <- struct{}{}
		r.sessions[key] = slot
	}
	r.mu.Unlock()
	select {
	case <-slot.sem:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { slot.sem <- struct{}{} }()
	if slot.s != nil {
		return slot.s, nil
	}
	creds, err := r.credentials(ctx, repo)
	if err != nil {
		return nil, err
	}
	s := &session{repo: repo, pace: r.pace, secrets: creds.secrets}
	opts := []name.Option{}
	insecure := r.insecure(repo.RegistryStr())
	if insecure {
		opts = append(opts, name.Insecure)
	}
	base, err := r.transport(repo.RegistryStr())
	if err != nil {
		return nil, err
	}
	reg, err := name.NewRegistry(repo.RegistryStr(), opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRef, err)
	}
	inner := transport.NewUserAgent(&guard{inner: base, plainHTTP: insecure}, r.opts.UserAgent)
	err = s.retry(ctx, func() error {
		ctx, stop := s.deadline(ctx, s.pace.answer)
		defer stop()
		t, err := transport.NewWithContext(ctx, reg, creds.auth, inner, scopes)
		if err != nil {
			return s.cause(ctx, err)
		}
		s.client = &http.Client{Transport: t}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slot.s = s
	return s, nil
}

// Resolve reads manifest and config of the image for platform p. An index
// without a match is a *PlatformError; see Image.Mismatch for a single manifest.
func (r *Remote) Resolve(ctx context.Context, ref string, p Platform) (*Image, error) {
	parsed, err := ParseRef(ref)
	if err != nil {
		return nil, err
	}
	places, err := r.places(parsed)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, at := range places {
		src := &source{
			ref: FullName(parsed), repo: repoName(at.Context()), open: r.anywhere(places), part: r.rangesAnywhere(places),
			label: func(err error) error { return remoteError("pull", at, err) },
		}
		img, err := r.resolve(ctx, src, at, p)
		if err == nil {
			return img, nil
		}
		errs = append(errs, src.fail(err))
		if ctx.Err() != nil || errors.Is(err, ErrPlatform) {
			break // no other place knows better
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

func (r *Remote) resolve(ctx context.Context, src *source, ref name.Reference, p Platform) (*Image, error) {
	s, err := r.session(ctx, ref.Context(), []string{ref.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	raw, desc, err := s.manifest(ctx, ref.Identifier())
	if err != nil {
		return nil, err
	}
	return src.image(ctx, raw, desc, p, 0)
}

// Head asks for the digest of a tag, or whether a digest is there.
func (r *Remote) Head(ctx context.Context, ref string) (tree.Digest, error) {
	parsed, err := ParseRef(ref)
	if err != nil {
		return "", err
	}
	repo := parsed.Context()
	s, err := r.session(ctx, repo, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return "", remoteError("pull", parsed, err)
	}
	h, err := s.head(ctx, parsed.Identifier())
	if err != nil {
		return "", remoteError("pull", parsed, err)
	}
	return tree.Digest(h.String()), nil
}

// opener opens blobs, and manifests by their media type, of a repository.
func (r *Remote) opener(repo name.Repository) opener {
	return func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		s, err := r.session(ctx, repo, []string{repo.Scope(transport.PullScope)})
		if err != nil {
			return nil, err
		}
		kind := "blobs"
		if d.MediaType.IsImage() || d.MediaType.IsIndex() || d.MediaType.IsSchema1() {
			kind = "manifests"
		}
		return s.open(ctx, kind, d)
	}
}

func remoteError(op string, ref name.Reference, err error) error {
	host := ref.Context().RegistryStr()
	if host == hubLegacy {
		host = hubDomain
	}
	return &RemoteError{Op: op, Ref: FullName(ref), Host: host, Err: err}
}

// pace is how patient a client is.
type pace struct {
	answer time.Duration   // for the head of an answer
	commit time.Duration   // for the end of an upload
	idle   time.Duration   // for the next byte
	waits  []time.Duration // between tries
	most   time.Duration   // that a registry may ask us to wait
}

var defaultPace = pace{
	answer: time.Minute, commit: 10 * time.Minute, idle: time.Minute,
	waits: []time.Duration{500 * time.Millisecond, 2 * time.Second, 5 * time.Second}, most: 30 * time.Second,
}

package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"github.com/fbuild/fbuild/tree"
)

// maxUploads are the blobs of one image that are under way at once.
const maxUploads = 4

// PushState says what happened to a blob or a manifest.
type PushState int

// The states of a Status.
const (
	Pushing PushState = iota // Current of Total bytes are sent
	Pushed
	Exists  // the registry had it
	Mounted // from another repository of the registry
)

// Status is one step of a push.
type Status struct {
	Repo           string // "docker.io/library/app"
	Digest         tree.Digest
	Manifest       bool
	State          PushState
	Current, Total int64
}

// pushTarget is one repository with the tags that the image gets there.
type pushTarget struct {
	repo name.Repository
	tags []name.Tag
}

// Push sends an image under every name. What a repository has is not sent again,
// what another repository of the registry has is mounted; manifests go last.
// progress, if not nil, is called by one goroutine at a time.
func (r *Remote) Push(ctx context.Context, names []string, b *Built, progress func(Status)) (tree.Digest, error) {
	var targets []*pushTarget
	for _, n := range names {
		tag, err := parseTag(n)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(targets, func(t *pushTarget) bool { return t.repo.Name() == tag.Context().Name() })
		if i < 0 {
			targets, i = append(targets, &pushTarget{repo: tag.Context()}), len(targets)
		}
		targets[i].tags = append(targets[i].tags, tag)
	}
	var mu sync.Mutex
	for i, t := range targets {
		p := &pusher{built: b, target: t, others: targets[:i], report: func(s Status) {
			if progress != nil {
				mu.Lock()
				defer mu.Unlock()
				s.Repo = repoName(t.repo)
				progress(s)
			}
		}}
		if err := p.run(ctx, r); err != nil {
			return "", remoteError("push", t.tags[0], err)
		}
	}
	return b.Digest(), nil
}

// pusher sends one image to one repository.
type pusher struct {
	built  *Built
	target *pushTarget
	others []*pushTarget // that have the image already
	report func(Status)
	s      *session
}

func (p *pusher) run(ctx context.Context, r *Remote) error {
	repo := p.target.repo
	blobs := p.built.blobs()
	scopes := []string{repo.Scope(transport.PushScope)}
	for _, b := range blobs {
		if from, ok := p.mountFrom(b); ok && !slices.Contains(scopes, from.Scope(transport.PullScope)) {
			scopes = append(scopes, from.Scope(transport.PullScope))
		}
	}
	var err error
	if p.s, err = r.session(ctx, repo, scopes); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxUploads)
	for _, b := range blobs {
		g.Go(func() error {
			if err := p.blob(gctx, b); err != nil {
				return fmt.Errorf("blob %s: %w", b.desc.Digest, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, tag := range p.target.tags {
		if err := p.s.retry(ctx, func() error { return p.manifest(ctx, tag) }); err != nil {
			return fmt.Errorf("manifest %s: %w", tag.TagStr(), err)
		}
	}
	return nil
}

// mountFrom names another repository of the same registry that has the blob.
func (p *pusher) mountFrom(b blob) (name.Repository, bool) {
	repo := p.target.repo
	for _, o := range p.others {
		if o.repo.RegistryStr() == repo.RegistryStr() {
			return o.repo, true
		}
	}
	if b.repo == "" {
		return name.Repository{}, false
	}
	ref, err := ParseRef(b.repo)
	if err != nil {
		return name.Repository{}, false // a hint that says nothing
	}
	from := ref.Context()
	return from, from.RegistryStr() == repo.RegistryStr() && from.Name() != repo.Name()
}

func (p *pusher) status(d v1.Descriptor, state PushState, current int64) {
	p.report(Status{Digest: tree.Digest(d.Digest.String()), State: state, Current: current, Total: d.Size})
}

func (p *pusher) blob(ctx context.Context, b blob) error {
	return p.s.retry(ctx, func() error {
		exists, err := p.exists(ctx, b.desc.Digest)
		if err != nil {
			return err
		}
		if exists {
			p.status(b.desc, Exists, b.desc.Size)
			return nil
		}
		location, err := p.start(ctx, b)
		if err != nil {
			return err
		}
		if location == "" {
			p.status(b.desc, Mounted, b.desc.Size)
			return nil
		}
		if err := p.upload(ctx, location, b); err != nil {
			return err
		}
		p.status(b.desc, Pushed, b.desc.Size)
		return nil
	})
}

func (p *pusher) exists(ctx context.Context, h v1.Hash) (bool, error) {
	req, err := p.s.request(http.MethodHead, p.s.url("blobs", h.String()), nil)
	if err != nil {
		return false, err
	}
	resp, err := p.s.do(ctx, req, p.s.pace.answer, nil, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return false, err
	}
	return resp.StatusCode == http.StatusOK, resp.Body.Close()
}

// start begins an upload and returns where to send the bytes, or "" where the
// registry mounted the blob.
func (p *pusher) start(ctx context.Context, b blob) (location string, err error) {
	if from, ok := p.mountFrom(b); ok {
		q := url.Values{"mount": {b.desc.Digest.String()}, "from": {from.RepositoryStr()}}
		location, err := p.post(ctx, "?"+q.Encode(), http.StatusCreated, http.StatusAccepted)
		var se *statusError
		if err == nil || !errors.As(err, &se) || transient(err) {
			return location, err
		}
		// Refused: some registries answer a mount that they do not allow with an
		// error where an ordinary upload was to begin.
	}
	return p.post(ctx, "", http.StatusAccepted)
}

func (p *pusher) post(ctx context.Context, query string, ok ...int) (location string, err error) {
	req, err := p.s.request(http.MethodPost, p.s.url("blobs", "uploads/")+query, nil)
	if err != nil {
		return "", err
	}
	resp, err := p.s.do(ctx, req, p.s.pace.answer, nil, ok...)
	if err != nil {
		return "", err
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode == http.StatusCreated {
		return "", err
	}
	u, err := resp.Location()
	if err != nil {
		return "", &netError{ErrRegistry, "upload without a location", false}
	}
	return u.String(), nil
}

// upload sends a whole blob in one request.
func (p *pusher) upload(ctx context.Context, location string, b blob) error {
	u, err := url.Parse(location)
	if err != nil {
		return &netError{ErrRegistry, "bad upload location", false}
	}
	q := u.Query()
	q.Set("digest", b.desc.Digest.String())
	u.RawQuery = q.Encode()
	r, err := b.open(ctx)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	body := &upload{r: r, report: func(n int64) { p.status(b.desc, Pushing, n) }}
	req, err := p.s.request(http.MethodPut, u.String(), body)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	req.ContentLength = b.desc.Size
	if b.desc.Size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.s.do(ctx, req, p.s.pace.commit, body.setAlive, http.StatusCreated, http.StatusOK, http.StatusNoContent)
	cerr := body.Close()
	if serr := body.failure(); serr != nil {
		// Ours, not the registry's: what it answered is a consequence.
		return fmt.Errorf("read: %w", serr)
	}
	if err != nil {
		var ne *netError
		if errors.As(err, &ne) && !errors.Is(err, ErrTLS) {
			ne.transient = true // a new connection starts the blob anew
		}
		return err
	}
	return errors.Join(resp.Body.Close(), cerr)
}

func (p *pusher) manifest(ctx context.Context, tag name.Tag) error {
	d := p.built.Desc
	req, err := p.s.request(http.MethodPut, p.s.url("manifests", tag.TagStr()), bytes.NewReader(p.built.RawManifest))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", string(d.MediaType))
	resp, err := p.s.do(ctx, req, p.s.pace.commit, nil, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	if got, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil && got != d.Digest {
		return errors.Join(fmt.Errorf("%w: sent %s, the registry has %s", ErrDigest, d.Digest, got), resp.Body.Close())
	}
	p.report(Status{Digest: p.built.Digest(), Manifest: true, State: Pushed, Current: d.Size, Total: d.Size})
	return resp.Body.Close()
}

// upload is the body of a request. The transport may read and close it from
// goroutines of its own, even after the request has ended.
type upload struct {
	report func(n int64)

	mu     sync.Mutex // guards what follows
	r      io.ReadCloser
	alive  func()
	n      int64
	err    error
	closed bool
}

func (u *upload) setAlive(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.alive = f
}

// Read keeps an error of the source and puts the end of the wait off.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return 0, os.ErrClosed
	}
	n, err := u.r.Read(p)
	u.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		u.err = err
	}
	if u.alive != nil {
		u.alive()
	}
	if n > 0 {
		u.report(u.n)
	}
	return n, err
}

// Close closes the source once.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	return u.r.Close()
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

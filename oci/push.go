package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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

// Note is what the state adds to the name of a blob: " (exists)", " (mounted)", or nothing.
func (st Status) Note() string {
	switch st.State {
	case Exists:
		return " (exists)"
	case Mounted:
		return " (mounted)"
	case Pushing, Pushed:
	}
	return ""
}

// pushTarget is one repository with the tags that the image gets there.
type pushTarget struct {
	repo name.Repository
	tags []name.Reference // or its digest
}

// Push sends an image under every name, a tag or its digest. What a repository has is not sent again,
// what another repository of the registry has is mounted; manifests go last, and an
// index after those of its images, which have no tag.
// progress, if not nil, is called by one goroutine at a time.
func (r *Remote) Push(ctx context.Context, names []string, img Writable, progress func(Status)) (tree.Digest, error) {
	var targets []*pushTarget
	for _, n := range names {
		tag, err := pushName(n, img.Root().Digest)
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
		p := &pusher{img: img, target: t, others: targets[:i], report: func(s Status) {
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
	return tree.Digest(img.Root().Digest.String()), nil
}

// pushName parses a name to push to: the digest in one must be the image's.
func pushName(text string, h v1.Hash) (name.Reference, error) {
	ref, err := ParseRef(text)
	if d, ok := ref.(name.Digest); err == nil && ok && d.DigestStr() != h.String() {
		err = fmt.Errorf("image name %q: %w: the image's digest is %s", text, ErrRef, h)
	}
	return ref, err
}

// pusher sends one image to one repository.
type pusher struct {
	img    Writable
	target *pushTarget
	others []*pushTarget // that have the image already
	report func(Status)
	s      *session
}

func (p *pusher) run(ctx context.Context, r *Remote) error {
	repo := p.target.repo
	blobs := contents(p.img)
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
	missing, err := p.missing(ctx)
	if err != nil {
		return err
	}
	if len(missing) < len(p.target.tags) { // the registry has the image, and with it the blobs
		for _, b := range blobs {
			p.status(b.desc, Exists, b.desc.Size)
		}
		blobs = nil
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
	if len(missing) == 0 {
		return nil
	}
	list := manifests(p.img)
	root := list[len(list)-1]
	for _, m := range list[:len(list)-1] {
		if err := p.manifest(ctx, m.desc.Digest.String(), m); err != nil {
			return err
		}
	}
	for _, tag := range missing {
		if err := p.manifest(ctx, tag.Identifier(), root); err != nil {
			return err
		}
	}
	return nil
}

// missing are the tags that do not lead to the image yet. Whether a registry says so
// does not matter: it is then sent again.
func (p *pusher) missing(ctx context.Context) ([]name.Reference, error) {
	var out []name.Reference
	for _, tag := range p.target.tags {
		req, err := p.s.request(http.MethodHead, p.s.url("manifests", tag.Identifier()), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", string(p.img.Root().MediaType))
		resp, err := p.s.do(ctx, req, p.s.pace.answer, nil, http.StatusOK)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			out = append(out, tag)
			continue
		}
		if resp.Header.Get("Docker-Content-Digest") != p.img.Root().Digest.String() {
			out = append(out, tag)
		}
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
	}
	return out, nil
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
	up := &sending{p: p, b: b}
	defer up.stop()
	return up.retry(ctx, func() error {
		if up.location != "" {
			if gone, err := up.resume(ctx); !gone {
				return err
			}
		}
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
		return up.begin(ctx, location)
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

// manifest sends a manifest under a tag or its own digest.
func (p *pusher) manifest(ctx context.Context, id string, m rawManifest) error {
	if err := p.s.retry(ctx, func() error { return p.put(ctx, id, m) }); err != nil {
		return fmt.Errorf("manifest %s: %w", id, err)
	}
	return nil
}

func (p *pusher) put(ctx context.Context, id string, m rawManifest) error {
	req, err := p.s.request(http.MethodPut, p.s.url("manifests", id), bytes.NewReader(m.raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", string(m.desc.MediaType))
	resp, err := p.s.do(ctx, req, p.s.pace.commit, nil, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	if got, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil && got != m.desc.Digest {
		return errors.Join(fmt.Errorf("%w: sent %s, the registry has %s", ErrDigest, m.desc.Digest, got), resp.Body.Close())
	}
	p.report(Status{Digest: tree.Digest(m.desc.Digest.String()), Manifest: true, State: Pushed, Current: m.desc.Size, Total: m.desc.Size})
	return resp.Body.Close()
}

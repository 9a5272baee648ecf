package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// maxResumes is how often one blob is asked for again that does not get further by
	// resumeStep bytes each time.
	maxResumes = 8
	resumeStep = 1 << 20
)

var (
	errNoAnswer  = errors.New("no answer in time")
	errPlainHTTP = errors.New("plain HTTP is not allowed for this registry")
)

func newTransport(lax bool) http.RoundTripper {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: lax}, //nolint:gosec // loopback, or asked for by name
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		// A blob is what its digest says, compressed or not.
		DisableCompression: true,
	}
}

// guard lets plain HTTP pass only where it is allowed, redirects and token
// servers included.
type guard struct {
	inner     http.RoundTripper
	plainHTTP bool
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plainHTTP {
		return nil, errPlainHTTP
	}
	return g.inner.RoundTrip(req)
}

// session is a client of one repository, logged in.
type session struct {
	repo    name.Repository
	client  *http.Client
	pace    pace
	secrets []string
}

// retry tries again what failed for a passing reason. Its waits end with ctx.
func (s *session) retry(ctx context.Context, try func() error) error {
	for i := 0; ; i++ {
		err := try()
		if err == nil || i >= len(s.pace.waits) || !transient(err) {
			return err
		}
		if werr := s.wait(ctx, s.pace.waits[i], err); werr != nil {
			return werr
		}
	}
}

func (s *session) wait(ctx context.Context, d time.Duration, err error) error {
	if se, ok := errors.AsType[*statusError](err); ok {
		d = max(d, min(se.after, s.pace.most))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// deadline is a context that ends with errNoAnswer after d. The caller calls
// stop when nothing of the request is used any more.
func (s *session) deadline(ctx context.Context, d time.Duration) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(d, func() { cancel(errNoAnswer) })
	return ctx, func() { t.Stop(); cancel(context.Canceled) }
}

// watched is the body of an answer. Each Read may take at most idle.
type watched struct {
	io.ReadCloser
	s      *session
	ctx    context.Context //nolint:containedctx // Read has no parameter for it
	cancel context.CancelCauseFunc
	t      *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	w.t.Reset(w.s.pace.idle)
	n, err := w.ReadCloser.Read(p)
	w.t.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = w.s.cause(w.ctx, err)
	}
	return n, err
}

func (w *watched) Close() error {
	w.t.Stop()
	err := w.ReadCloser.Close()
	w.cancel(context.Canceled)
	return err
}

// do sends one request. An answer of another status than ok is a *statusError.
// The answer's head must come in time; alive, if not nil, is given a function
// that puts the end of that time off.
func (s *session) do(ctx context.Context, req *http.Request, limit time.Duration, alive func(func()), ok ...int) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(limit, func() { cancel(errNoAnswer) })
	if alive != nil {
		alive(func() { t.Reset(limit) })
	}
	resp, err := s.client.Do(req.WithContext(ctx))
	t.Stop()
	if err != nil {
		err = s.cause(ctx, err)
		cancel(context.Canceled)
		return nil, err
	}
	resp.Body = &watched{resp.Body, s, ctx, cancel, t}
	if slices.Contains(ok, resp.StatusCode) {
		return resp, nil
	}
	err = s.statusError(resp)
	return nil, errors.Join(err, resp.Body.Close())
}

func (s *session) url(kind, id string) string {
	u := url.URL{Scheme: "https", Host: s.repo.RegistryStr(), Path: "/v2/" + s.repo.RepositoryStr() + "/" + kind + "/" + id}
	return u.String()
}

func (s *session) request(method, address string, body io.Reader) (*http.Request, error) {
	// The context is put in by do.
	req, err := http.NewRequest(method, address, body) //nolint:noctx // see above
	if err != nil {
		return nil, &netError{ErrRegistry, "bad address from registry", false}
	}
	return req, nil
}

// manifest reads a manifest of any kind by tag or digest. By digest it is
// verified; by tag its digest is what came.
func (s *session) manifest(ctx context.Context, id string) (raw []byte, desc v1.Descriptor, err error) {
	err = s.retry(ctx, func() error {
		raw, desc, err = s.manifestOnce(ctx, id)
		return err
	})
	return raw, desc, err
}

func (s *session) manifestOnce(ctx context.Context, id string) ([]byte, v1.Descriptor, error) {
	var none v1.Descriptor
	req, err := s.request(http.MethodGet, s.url("manifests", id), nil)
	if err != nil {
		return nil, none, err
	}
	req.Header.Set("Accept", acceptManifests)
	resp, err := s.do(ctx, req, s.pace.answer, nil, http.StatusOK)
	if err != nil {
		return nil, none, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, none, err
	}
	if len(raw) > maxManifest {
		return nil, none, fmt.Errorf("manifest: %w: more than %d bytes", ErrTooLarge, maxManifest)
	}
	mt, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	desc := describe(raw, types.MediaType(strings.TrimSpace(mt)))
	want, err := v1.NewHash(id)
	if err != nil {
		return raw, desc, nil //nolint:nilerr // a tag promises no digest
	}
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	h.Write(raw)
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want.Hex {
		return nil, none, fmt.Errorf("manifest %s: %w: it is %s:%s", want, ErrDigest, want.Algorithm, got)
	}
	desc.Digest = want
	return raw, desc, nil
}

// head returns a manifest's digest, by reading it where the registry does not
// say.
func (s *session) head(ctx context.Context, id string) (v1.Hash, error) {
	var h v1.Hash
	err := s.retry(ctx, func() error {
		req, err := s.request(http.MethodHead, s.url("manifests", id), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", acceptManifests)
		resp, err := s.do(ctx, req, s.pace.answer, nil, http.StatusOK, http.StatusMethodNotAllowed)
		if err != nil {
			return err
		}
		// Without a digest h stays empty, and the manifest is read instead.
		h, err = v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
		if err != nil || resp.StatusCode != http.StatusOK {
			h = v1.Hash{}
		}
		return resp.Body.Close()
	})
	if err != nil || h.Hex != "" {
		return h, err
	}
	_, desc, err := s.manifest(ctx, id)
	return desc.Digest, err
}

// open streams a blob or manifest. A connection that breaks is taken up again
// where it ended.
func (s *session) open(ctx context.Context, kind string, d v1.Descriptor) (io.ReadCloser, error) {
	b := &resuming{again: func(off int64) (body io.ReadCloser, err error) {
		err = s.retry(ctx, func() error {
			body, err = s.openAt(ctx, s.url(kind, d.Digest.String()), off, d.Size)
			if se, ok := errors.AsType[*statusError](err); ok && off > 0 && se.code == http.StatusRequestedRangeNotSatisfiable {
				body, err = s.openAt(ctx, s.url(kind, d.Digest.String()), off, -1)
			}
			return err
		})
		return body, err
	}, wait: func(tries int, err error) error {
		return s.wait(ctx, s.pace.waits[min(tries, len(s.pace.waits)-1)], err)
	}}
	var err error
	b.body, err = b.again(0)
	return b, err
}

// openAt opens a blob of size bytes at off; a size of -1 asks for all of it and skips.
func (s *session) openAt(ctx context.Context, address string, off, size int64) (io.ReadCloser, error) {
	if off > 0 && off == size {
		return http.NoBody, nil // all came before the connection broke
	}
	req, err := s.request(http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", acceptManifests+",*/*")
	if off > 0 && size > 0 { // with an end, which some registries want
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, size-1))
	}
	resp, err := s.do(ctx, req, s.pace.answer, nil, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	skip := off
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", off)) {
			return nil, errors.Join(&netError{ErrRegistry, "answer with another range than asked for", false}, resp.Body.Close())
		}
		skip = 0
	}
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		return nil, errors.Join(s.cause(ctx, err), resp.Body.Close())
	}
	return resp.Body, nil
}

// resuming is a stream that goes on where a broken connection ended.
type resuming struct {
	off   int64
	tries int   // since it last got further
	from  int64 // where it was taken up
	body  io.ReadCloser
	again func(off int64) (io.ReadCloser, error)
	wait  func(tries int, err error) error
}

func (b *resuming) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.off += int64(n)
		if err == nil || n > 0 {
			return n, nil // an error comes again with the next Read
		}
		if b.off-b.from >= resumeStep {
			b.tries = 0
		}
		if !transient(err) || b.tries >= maxResumes {
			return 0, err
		}
		if err := b.wait(b.tries, err); err != nil {
			return 0, err
		}
		b.tries++
		b.from = b.off
		body, err := b.again(b.off)
		if err != nil {
			return 0, err
		}
		if err := b.body.Close(); err != nil && !transient(err) {
			return 0, errors.Join(err, body.Close())
		}
		b.body = body
	}
}

// Close ends the stream.
func (b *resuming) Close() error { return b.body.Close() }

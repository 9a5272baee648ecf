package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ErrNoRanges is returned by a place that gives whole blobs only.
var ErrNoRanges = errors.New("no part of a blob can be had here")

// ranger opens n bytes at off of a blob: what comes is not
// verified: a digest says nothing about a part.
type ranger func(ctx context.Context, d v1.Descriptor, off, n int64) (io.ReadCloser, error)

// rangesAnywhere asks one place after the other, but not those whose bytes of that blob
// were false before.
func (r *Remote) rangesAnywhere(places []name.Reference) ranger {
	return func(ctx context.Context, d v1.Descriptor, off, n int64) (io.ReadCloser, error) {
		var errs []error
		for i, p := range places {
			key := badCopy{FullName(p), d.Digest}
			last := i == len(places)-1
			if !last && r.isBad(key) {
				continue
			}
			body, err := r.openRange(ctx, p.Context(), d, off, n)
			if err == nil && !last {
				return &copyReader{body, r, key, ctx}, nil
			}
			if err == nil || ctx.Err() != nil {
				return body, err
			}
			errs = append(errs, err)
		}
		if len(errs) == 1 {
			return nil, errs[0]
		}
		return nil, errors.Join(errs...)
	}
}

func (r *Remote) openRange(ctx context.Context, repo name.Repository, d v1.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	if off < 0 || n <= 0 || off > d.Size-n {
		return nil, fmt.Errorf("%w: %d bytes at %d of a blob of %d", ErrInvalid, n, off, d.Size)
	}
	s, err := r.session(ctx, repo, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	again := func(done int64) (body io.ReadCloser, err error) {
		err = s.retry(ctx, func() error {
			body, err = s.rangeAt(ctx, s.url("blobs", d.Digest.String()), off+done, off+n, d.Size)
			return err
		})
		return body, err
	}
	b := &resuming{again: again, wait: func(tries int, err error) error {
		return s.wait(ctx, s.pace.waits[min(tries, len(s.pace.waits)-1)], err)
	}}
	if b.body, err = again(0); err != nil {
		return nil, err
	}
	return &exactly{b, n}, nil
}

// rangeAt asks for the bytes from off to end of a blob of so many.
func (s *session) rangeAt(ctx context.Context, address string, off, end, size int64) (io.ReadCloser, error) {
	if off == end { // all came before the connection broke
		return http.NoBody, nil
	}
	req, err := s.request(http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end-1))
	resp, err := s.do(ctx, req, s.pace.answer, nil, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return nil, errors.Join(ErrNoRanges, resp.Body.Close())
	}
	span, total, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes "), "/")
	if span != fmt.Sprintf("%d-%d", off, end-1) || total != "*" && total != strconv.FormatInt(size, 10) {
		return nil, errors.Join(&netError{ErrRegistry, "answer with another range than asked for", false}, resp.Body.Close())
	}
	return resp.Body, nil
}

// exactly ends a range where it has to, and not before.
type exactly struct {
	*resuming
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.resuming.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = fmt.Errorf("%w: a range that ends %d bytes early", ErrDigest, e.left)
	}
	return n, err
}

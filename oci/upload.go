package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
)

const (
	// wholeUpload is the largest blob that goes in one request that also names it: to
	// send it again costs less than to ask how far it came.
	wholeUpload = 4 << 20
	// firstPart and leastPart are the sizes of parts for registries, and proxies before
	// them, that refuse large requests (413): it is halved as long as they do.
	firstPart, leastPart = 64 << 20, 1 << 20
)

// sending is a blob on its way: what stays when a connection breaks.
type sending struct {
	p *pusher
	b blob

	location string // of an upload that can be taken up again; "" for none
	off      int64  // the registry has so much
	part     int64  // the largest request; 0: no limit
	best     int64  // the most that off was: whoever gets further may try again

	r  io.ReadCloser // of the blob, at pos; nil for none
	at int64
}

// retry tries again what failed for a passing reason; an upload that gets further, or
// has found that it needs smaller parts, does so as often as it takes.
func (s *sending) retry(ctx context.Context, try func() error) error {
	for i := 0; ; i++ {
		part := s.part
		err := try()
		if s.off > s.best {
			s.best, i = s.off, 0
		}
		if err != nil && s.part != part {
			i = -1
			continue
		}
		if err == nil || i >= len(s.p.s.pace.waits) || !transient(err) {
			return err
		}
		if werr := s.p.s.wait(ctx, s.p.s.pace.waits[i], err); werr != nil {
			return werr
		}
	}
}

// begin sends a blob to an upload that was just begun.
func (s *sending) begin(ctx context.Context, location string) error {
	if s.b.desc.Size > wholeUpload {
		s.location, s.off = location, 0
		return s.rest(ctx)
	}
	s.rewind()
	if err := s.send(ctx, http.MethodPut, s.named(location), s.b.desc.Size, http.StatusCreated, http.StatusOK, http.StatusNoContent); err != nil {
		return err
	}
	s.p.status(s.b.desc, Pushed, s.b.desc.Size)
	return nil
}

// resume asks how far a broken upload came and goes on there. gone says that the
// registry knows nothing of it any more, and the blob has to begin anew:
// distribution 2 throws an upload away whose last request broke.
func (s *sending) resume(ctx context.Context) (gone bool, err error) {
	req, err := s.p.s.request(http.MethodGet, s.location, nil)
	if err != nil {
		return false, err
	}
	resp, err := s.p.s.do(ctx, req, s.p.s.pace.answer, nil, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
	if err == nil {
		err = s.moved(resp, 0)
	}
	if err == nil {
		err = s.rest(ctx)
	}
	if _, refused := errors.AsType[*statusError](err); refused && !transient(err) && ctx.Err() == nil {
		s.location, s.off = "", 0
		return true, nil
	}
	return false, err
}

// rest sends what the registry lacks, and names the blob.
func (s *sending) rest(ctx context.Context) error {
	for s.off < s.b.desc.Size {
		n := s.b.desc.Size - s.off
		if s.part > 0 {
			n = min(n, s.part)
		}
		err := s.patch(ctx, n)
		if se, ok := errors.AsType[*statusError](err); ok && se.code == http.StatusRequestEntityTooLarge && s.smaller() {
			return &netError{ErrTooLarge, "refused for its size", true} // what was sent of it may count
		}
		if err != nil {
			return err
		}
	}
	req, err := s.p.s.request(http.MethodPut, s.named(s.location), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := s.p.s.do(ctx, req, s.p.s.pace.commit, nil, http.StatusCreated, http.StatusOK, http.StatusNoContent)
	if err != nil {
		return passingNow(err)
	}
	s.p.status(s.b.desc, Pushed, s.b.desc.Size)
	return resp.Body.Close()
}

// smaller makes the parts smaller; false where they are small enough.
func (s *sending) smaller() bool {
	switch {
	case s.part == 0:
		s.part = firstPart
	case s.part/2 >= leastPart:
		s.part /= 2
	default:
		return false
	}
	return true
}

// patch sends n bytes.
func (s *sending) patch(ctx context.Context, n int64) error {
	if s.at > s.off {
		s.rewind()
	}
	before := s.off
	return s.sendThen(ctx, http.MethodPatch, s.location, n, func(resp *http.Response) error {
		err := s.moved(resp, before+n)
		if err == nil && s.off <= before {
			err = &netError{ErrRegistry, "the upload does not get further", false}
		}
		return err
	}, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
}

// moved notes where an upload is now: what the registry says, or else off.
func (s *sending) moved(resp *http.Response, off int64) error {
	if u, err := resp.Location(); err == nil {
		s.location = u.String()
	}
	if _, last, ok := strings.Cut(resp.Header.Get("Range"), "-"); ok {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 || n >= s.b.desc.Size {
			return errors.Join(&netError{ErrRegistry, "upload with a bad range", false}, resp.Body.Close())
		}
		// An empty upload and one of a byte look alike: the byte is sent again.
		if off = n + 1; n == 0 {
			off = 0
		}
	}
	s.off = off
	return resp.Body.Close()
}

// named is the address that ends an upload.
func (s *sending) named(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return location
	}
	q := u.Query()
	q.Set("digest", s.b.desc.Digest.String())
	u.RawQuery = q.Encode()
	return u.String()
}

// rewind makes the blob be read from its start.
func (s *sending) rewind() {
	s.stop()
	s.r, s.at = nil, 0
}

// stop closes the blob.
func (s *sending) stop() {
	if s.r != nil {
		_ = s.r.Close() // it was only read
	}
}

// reader is the blob at s.off. What comes before is read as well: the digest of the
// whole is verified.
func (s *sending) reader(ctx context.Context) (io.Reader, error) {
	if s.r == nil {
		r, err := s.b.open(ctx)
		if err != nil {
			return nil, err
		}
		s.r, s.at = r, 0
	}
	if s.at < s.off {
		n, err := io.CopyN(io.Discard, s.r, s.off-s.at)
		s.at += n
		if err != nil {
			return nil, err
		}
	}
	return s.r, nil
}

func (s *sending) send(ctx context.Context, method, address string, n int64, ok ...int) error {
	return s.sendThen(ctx, method, address, n, func(resp *http.Response) error { return resp.Body.Close() }, ok...)
}

// sendThen sends the next n bytes of the blob in one request.
func (s *sending) sendThen(ctx context.Context, method, address string, n int64, then func(*http.Response) error, ok ...int) error {
	r, err := s.reader(ctx)
	if err != nil {
		s.rewind()
		return fmt.Errorf("read: %w", err)
	}
	base := s.at
	body := &upload{r: io.LimitReader(r, n), report: func(sent int64) { s.p.status(s.b.desc, Pushing, base+sent) }}
	if base+n == s.b.desc.Size {
		body.r = r // to its end, where the digest is verified
	}
	req, err := s.p.s.request(method, address, body)
	if err != nil {
		return err
	}
	req.ContentLength = n
	if n == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if method == http.MethodPatch && (base > 0 || base+n < s.b.desc.Size) {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", base, base+n-1))
	}
	resp, err := s.p.s.do(ctx, req, s.p.s.pace.commit, body.setAlive, ok...)
	s.at = base + body.end()
	if serr := body.failure(); serr != nil {
		// Ours, not the registry's: what it answered is a consequence.
		if err == nil {
			_ = resp.Body.Close()
		}
		s.rewind()
		return fmt.Errorf("read: %w", serr)
	}
	if err != nil {
		return passingNow(err)
	}
	return then(resp)
}

// passingNow makes a connection that broke a reason to try again.
func passingNow(err error) error {
	var ne *netError
	if errors.As(err, &ne) && !errors.Is(err, ErrTLS) {
		ne.transient = true
	}
	return err
}

// upload is the body of a request. The transport may read and close it from
// goroutines of its own, even after the request has ended.
type upload struct {
	report func(n int64)

	mu     sync.Mutex // guards what follows
	r      io.Reader
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

// Close ends the reading: the transport may close a body, and read from it, after its
// request has ended.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	return nil
}

// end stops the reading and returns how much was read.
func (u *upload) end() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	return u.n
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

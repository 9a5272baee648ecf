package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxResumes is how often the reading of one object is taken up again.
const maxResumes = 8

// Get streams an object and says how long it is, -1 where the server does not. A
// connection that breaks is taken up again where it ended, while the object is the same.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	resp, err := b.do(ctx, http.MethodGet, key, nil, nil, body{}, answerTime) //nolint:bodyclose // who reads closes it
	if err != nil {
		return nil, 0, err
	}
	r := &resuming{b: b, ctx: ctx, key: key, body: resp.Body, size: resp.ContentLength, tag: resp.Header.Get("ETag")}
	return r, resp.ContentLength, nil
}

// resuming is the body of an object, over several connections where one breaks.
type resuming struct {
	b         *Bucket
	ctx       context.Context //nolint:containedctx // Read has no parameter for it
	key, tag  string
	body      io.ReadCloser
	off, size int64
	tries     int
}

func (r *resuming) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.off += int64(n)
		switch {
		case n > 0:
			return n, nil // an error comes again with the next Read
		case err == nil || errors.Is(err, io.EOF) && (r.size < 0 || r.off == r.size):
			return 0, err
		case r.ctx.Err() != nil:
			return 0, context.Cause(r.ctx)
		case r.size < 0 || r.tag == "" || r.tries == maxResumes:
			return 0, fmt.Errorf("GET %s: %d bytes in: %w", r.key, r.off, early(err))
		}
		if err := r.again(); err != nil {
			return 0, err
		}
	}
}

// early is the end of a stream that is not one.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// again asks for the rest.
func (r *resuming) again() error {
	select {
	case <-time.After(r.b.pause << min(r.tries, 3)):
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	r.tries++
	_ = r.body.Close() // it broke
	r.body = http.NoBody
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", r.off, r.size-1)}, "If-Match": {r.tag}}
	resp, err := r.b.do(r.ctx, http.MethodGet, r.key, nil, h, body{}, answerTime) //nolint:bodyclose // who reads closes it
	if err != nil {
		return err
	}
	r.body = resp.Body
	if resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", r.off)) {
		return nil
	}
	return &Error{Op: "GET " + r.key, Text: "the connection broke, and the server does not send the rest alone"}
}

// Close ends the stream.
func (r *resuming) Close() error { return r.body.Close() }

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Mirror is another place for the images of a registry.
type Mirror struct {
	Host string // whose images: "docker.io"
	// At is where they are as well: a registry, or a registry and the beginning of its
	// repositories' names ("mirror.example/hub").
	At string
}

// ParseMirror reads HOST=AT, or AT alone for docker.io. Errors are ErrRef.
func ParseMirror(text string) (Mirror, error) {
	m := Mirror{Host: hubDomain, At: text}
	if host, at, ok := strings.Cut(text, "="); ok {
		m = Mirror{Host: host, At: at}
	}
	m.At = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(m.At, "https://"), "http://"), "/")
	if m.Host == hubLegacy {
		m.Host = hubDomain
	}
	at, path, _ := strings.Cut(m.At, "/")
	if !domainRE.MatchString(m.Host) || !domainRE.MatchString(at) || path != "" && !pathRE.MatchString(path) {
		return Mirror{}, fmt.Errorf("%w: mirror %q: want HOST=MIRROR, or the MIRROR of docker.io", ErrRef, text)
	}
	return m, nil
}

// places are the names under which an image is looked for, in order.
func (r *Remote) places(ref name.Reference) ([]name.Reference, error) {
	host, rest, _ := strings.Cut(repoName(ref.Context()), "/")
	var out []name.Reference
	for _, m := range r.opts.Mirrors {
		if m.Host != host {
			continue
		}
		sep := ":"
		if _, ok := ref.(name.Digest); ok {
			sep = "@"
		}
		at, err := ParseRef(m.At + "/" + rest + sep + ref.Identifier())
		if err != nil {
			return nil, fmt.Errorf("mirror %s of %s: %w", m.At, m.Host, err)
		}
		out = append(out, at)
	}
	if len(out) == 0 || !r.opts.MirrorsOnly {
		out = append(out, ref)
	}
	return out, nil
}

// anywhere opens blobs where one of the places has them: what a digest names is the
// same everywhere. A place whose bytes were false, or ended early, is not asked for that
// blob again while there are others.
func (r *Remote) anywhere(places []name.Reference) opener {
	return func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		var errs []error
		for i, p := range places {
			key := badCopy{FullName(p), d.Digest}
			last := i == len(places)-1
			if !last && r.isBad(key) {
				continue
			}
			open := r.opener(p.Context())
			if last {
				body, err := open(ctx, d)
				if err != nil {
					err = errors.Join(append(errs, err)...)
				}
				return body, err
			}
			body, err := open.verified(ctx, d)
			if err == nil {
				return &copyReader{body, r, key, ctx}, nil
			}
			if ctx.Err() != nil {
				return nil, err
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}
}

// badCopy is a blob in a place that does not have it as it should be.
type badCopy struct {
	place  string
	digest v1.Hash
}

func (r *Remote) isBad(c badCopy) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bad[c]
}

// copyError says that the bytes of one place are of no use, and that opening the blob
// again takes them from another.
type copyError struct {
	place string
	err   error
}

func (e *copyError) Error() string { return fmt.Sprintf("mirror %s: %v", e.place, e.err) }
func (e *copyError) Unwrap() error { return e.err }

// copyReader is a blob from a place that others can stand in for.
type copyReader struct {
	io.ReadCloser
	r   *Remote
	key badCopy
	ctx context.Context //nolint:containedctx // Read has no parameter for it
}

func (c *copyReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && c.ctx.Err() == nil {
		err = c.distrust(err)
	}
	return n, err
}

func (c *copyReader) distrust(err error) error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.bad[c.key] = true
	return &copyError{c.key.place, err}
}

// Distrust is what to make of err, which says that the bytes of body, a part of a layer,
// are false: where it is a mirror's, another place may have better ones (OtherCopy).
func Distrust(body io.Reader, err error) error {
	if l, ok := body.(*labelled); ok {
		body = l.ReadCloser
	}
	if c, ok := body.(*copyReader); ok && c.ctx.Err() == nil {
		return c.distrust(err)
	}
	return err
}

// OtherCopy reports whether an error of reading a layer is a mirror's: opening the layer
// again reads it from somewhere else.
func OtherCopy(err error) bool {
	_, ok := errors.AsType[*copyError](err)
	return ok
}

// Verdict is what to make of err, with which a decoder gave up on r, a layer that was
// opened: r is read to its end, since bytes that are not those of the digest are to
// blame first, and another place may have better ones (OtherCopy).
func Verdict(ctx context.Context, r io.Reader, err error) error {
	if _, rerr := io.Copy(io.Discard, ctxReader{ctx, r}); rerr != nil {
		return rerr
	}
	return err
}

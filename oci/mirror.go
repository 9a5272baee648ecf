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
// same everywhere.
func (r *Remote) anywhere(places []name.Reference) opener {
	return func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		var errs []error
		for _, p := range places {
			body, err := r.opener(p.Context())(ctx, d)
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

package oci

import (
	"errors"
	"fmt"
	"strings"
)

// The causes that callers tell apart; errors of this package wrap at most one.
var (
	ErrRef          = errors.New("invalid reference format")
	ErrNotFound     = errors.New("not found")
	ErrUnauthorized = errors.New("access denied")
	ErrUnreachable  = errors.New("registry unreachable")
	ErrTLS          = errors.New("TLS connection refused")
	ErrRateLimited  = errors.New("too many requests")
	ErrRegistry     = errors.New("registry error")
	ErrDigest       = errors.New("content does not match its digest")
	ErrPlatform     = errors.New("no match for platform")
	ErrTooLarge     = errors.New("too large")
	ErrUnsupported  = errors.New("not supported")
	ErrInvalid      = errors.New("invalid image")
)

// RemoteError is a request to a registry that did not succeed. Err wraps one of
// the sentinels, or the end of the context.
type RemoteError struct {
	Op   string // "pull" or "push"
	Ref  string // the image as docker writes it
	Host string // the registry, as `docker login` wants it
	Err  error
}

// Error names the image and the registry.
func (e *RemoteError) Error() string {
	return fmt.Sprintf("%s %s (registry %s): %v", e.Op, e.Ref, e.Host, e.Err)
}

// Unwrap returns the cause.
func (e *RemoteError) Unwrap() error { return e.Err }

// PlatformError is an image that exists, but not for the platform asked for.
type PlatformError struct {
	Ref       string
	Want      Platform
	Available []Platform
}

// Error lists what there is.
func (e *PlatformError) Error() string {
	have := make([]string, len(e.Available))
	for i, p := range e.Available {
		have[i] = p.String()
	}
	list := strings.Join(have, ", ")
	if list == "" {
		list = "none"
	}
	return fmt.Sprintf("%s: %v %s (available: %s)", e.Ref, ErrPlatform, e.Want, list)
}

// Is makes every PlatformError an ErrPlatform.
func (e *PlatformError) Is(target error) bool { return target == ErrPlatform }

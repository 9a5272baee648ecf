package oci

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	maxErrorBody = 16 << 10 // bytes read of an error answer
	maxErrorText = 300      // characters of it that are shown
)

// statusError is an answer that says no.
type statusError struct {
	code  int
	text  string
	after time.Duration // Retry-After
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%d %s", e.code, http.StatusText(e.code))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// Unwrap gives the sentinel of a status.
func (e *statusError) Unwrap() error {
	switch e.code {
	case http.StatusNotFound, http.StatusGone:
		return ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrUnauthorized
	case http.StatusTooManyRequests:
		return ErrRateLimited
	case http.StatusRequestEntityTooLarge:
		return ErrTooLarge
	}
	return ErrRegistry
}

// netError is a request that got no answer, as a text without secrets.
type netError struct {
	kind      error // sentinel
	text      string
	transient bool
}

func (e *netError) Error() string { return e.kind.Error() + ": " + e.text }
func (e *netError) Unwrap() error { return e.kind }

// transient reports whether another try may help.
func transient(err error) bool {
	if se, ok := errors.AsType[*statusError](err); ok {
		return se.code == http.StatusRequestTimeout || se.code == http.StatusTooManyRequests ||
			se.code >= 500 && se.code != http.StatusNotImplemented
	}
	var ne *netError
	return errors.As(err, &ne) && ne.transient
}

// statusError reads what an error answer says.
func (s *session) statusError(resp *http.Response) error {
	e := &statusError{code: resp.StatusCode}
	after := resp.Header.Get("Retry-After")
	if sec, err := strconv.Atoi(after); err == nil && sec > 0 {
		e.after = time.Duration(min(sec, 3600)) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		e.after = min(max(time.Until(at), 0), time.Hour)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var doc struct {
		Errors []transport.Diagnostic `json:"errors"`
	}
	if err == nil && json.Unmarshal(body, &doc) == nil {
		e.text = s.diagnostics(doc.Errors)
	}
	return e
}

func (s *session) diagnostics(list []transport.Diagnostic) string {
	var texts []string
	for _, d := range list {
		texts = append(texts, strings.Trim(string(d.Code)+": "+d.Message, ": "))
	}
	return shorten(scrub(strings.Join(texts, "; "), s.secrets), maxErrorText)
}

// cause turns an error of the transport into one of ours: a sentinel with a text
// that holds no URL with a query and no secret.
func (s *session) cause(ctx context.Context, err error) error {
	var te *transport.Error
	var se *statusError
	var ne *netError
	switch {
	case errors.As(err, &se), errors.As(err, &ne):
		return err
	case errors.Is(context.Cause(ctx), errNoAnswer):
		return &netError{ErrUnreachable, errNoAnswer.Error(), false}
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.As(err, &te):
		return &statusError{code: te.StatusCode, text: s.diagnostics(te.Errors)}
	case errors.Is(err, errPlainHTTP) && !isTLS(err):
		return &netError{ErrUnreachable, errPlainHTTP.Error(), false}
	}
	text := plainText(err)
	if !isNet(err) {
		// A foreign text's first line only: token servers' whole answers follow.
		text, _, _ = strings.Cut(err.Error(), "\n")
	}
	text = shorten(scrub(text, s.secrets), maxErrorText)
	if isTLS(err) {
		return &netError{ErrTLS, text, false}
	}
	if !isNet(err) {
		return &netError{ErrRegistry, stripQueries(text), false}
	}
	return &netError{ErrUnreachable, text, passing(err)}
}

// plainText is an error without the URLs that net/http puts around it.
func plainText(err error) string {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection ended early"
	}
	return stripQueries(err.Error())
}

// stripQueries cuts the query off every URL in a text: signed addresses of blob
// stores are secrets for their life.
func stripQueries(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if at := strings.IndexByte(w, '?'); at >= 0 && strings.Contains(w, "://") {
			words[i] = w[:at] + "?..."
		}
	}
	return strings.Join(words, " ")
}

func isTLS(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &alert)
}

func isNet(err error) bool {
	var ne net.Error
	var ue *url.Error
	for errors.As(err, &ue) { // itself a net.Error whatever it holds
		err = ue.Err
	}
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// passing reports whether a connection that was there broke. One that was
// refused, or a name that does not resolve, fails at once.
func passing(err error) bool {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.IsTemporary && !dns.IsNotFound
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

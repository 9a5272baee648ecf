package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"time"
)

// Defaults of HTTPOptions.
const (
	defaultMaxSize = 64 << 30
	defaultIdle    = 60 * time.Second
	maxRedirects   = 10
)

var errStalled = errors.New("the server sends nothing more")

// HTTPOptions say how a file is asked for. The zero value is good.
type HTTPOptions struct {
	// ETag and LastModified are those of the copy that the caller has: a server
	// that still has the same file sends nothing.
	ETag, LastModified string
	Checksum           Checksum
	// MaxSize bounds the file; 0 is 64 GiB.
	MaxSize int64
	// Idle is how long the server may send nothing; 0 is a minute.
	Idle time.Duration
	// UserAgent names the program.
	UserAgent string
	// Authorization returns the value of that header for a host, "" for none. It is
	// asked again at each redirect.
	Authorization func(host string) (string, error)
	// Progress is told how much has come and how much will, 0 where that is unknown.
	Progress func(current, total int64)
	// Transport makes the requests (nil: one that takes proxies from the environment).
	Transport http.RoundTripper
}

// File is what a server said about a file.
type File struct {
	NotModified  bool   // the caller's copy is still right; nothing was written
	ETag         string // "" for none
	LastModified string // as the server spells it, "" where it is none that can be read
	Size         int64
	// Racy says that the file was sent in the second of LastModified, or the one after:
	// it may have changed since, and the server would say that it had not. Many servers
	// make the ETag of that time as well.
	Racy bool
}

// settled is how much older than its answer a file must be, so that its time tells
// that it is the same (RFC 9110, 8.8.2.2; one second is the time's grain).
const settled = 2 * time.Second

// racy tells whether a server's answer came too soon after the file changed.
func (f *File) racy(date string) bool {
	changed, ok := f.ModTime()
	if !ok {
		return false
	}
	sent, err := http.ParseTime(date)
	return err != nil || sent.Sub(changed) < settled
}

// ModTime returns the time of LastModified; ok is false for none.
func (f *File) ModTime() (t time.Time, ok bool) {
	t, err := http.ParseTime(f.LastModified)
	return t, err == nil
}

// Get writes the file at the address to w. What stands in w after an error is of
// no use.
func Get(ctx context.Context, address string, w io.Writer, o HTTPOptions) (*File, error) {
	u, err := parseHTTP(address)
	if err != nil {
		return nil, err
	}
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.Idle <= 0 {
		o.Idle = defaultIdle
	}
	f, err := get(ctx, u, w, o)
	if err != nil {
		return nil, httpError(ctx, u, err)
	}
	return f, nil
}

// HTTPName returns how BuildKit calls the file at an address: by its path.
func HTTPName(address string) string {
	u, err := url.Parse(address)
	if err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" && base != ".." {
			return base
		}
	}
	return "__unnamed__"
}

// badUser is what may be a name and a password in an address that is none.
var badUser = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*://).*@`)

// Redact returns an address without its password, for people and logs.
func Redact(address string) string {
	u, err := url.Parse(address)
	if err != nil { // a password with a percent sign, say
		return badUser.ReplaceAllString(address, "${1}xxxxx@")
	}
	if u.User == nil {
		return address
	}
	if u.Scheme == "ssh" {
		return u.Redacted()
	}
	u.User = url.User("xxxxx") // a token may be given as the name
	return u.String()
}

func parseHTTP(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", withoutURL(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("fetch %s: not an http address", Redact(address))
	}
	return u, nil
}

// get does the request. The watch ends it when nothing comes for too long.
func get(ctx context.Context, u *url.URL, w io.Writer, o HTTPOptions) (_ *File, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(o.Idle, func() { cancel(errStalled) })
	defer watch.Stop()
	check, err := o.Checksum.verifier()
	if err != nil {
		return nil, err
	}
	resp, err := o.client(u).Do(o.request(ctx, u))
	if err != nil {
		return nil, firstCause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	f := &File{ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified")}
	if _, ok := f.ModTime(); !ok {
		f.LastModified = ""
	}
	switch {
	case resp.StatusCode == http.StatusNotModified && (o.ETag != "" || o.LastModified != ""):
		f.NotModified = true
		return f, nil
	case resp.StatusCode != http.StatusOK:
		return nil, &statusError{resp.StatusCode}
	case resp.ContentLength > o.MaxSize:
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, resp.ContentLength, o.MaxSize)
	}
	var dst io.Writer = writer{w}
	if check != nil {
		dst = io.MultiWriter(dst, check.hash)
	}
	b := &body{r: resp.Body, left: o.MaxSize, alive: func() { watch.Reset(o.Idle) }, total: max(0, resp.ContentLength), progress: o.Progress}
	f.Size, err = io.Copy(dst, b)
	if err != nil {
		return nil, firstCause(ctx, err)
	}
	f.Racy = f.racy(resp.Header.Get("Date"))
	return f, check.check()
}

func (o *HTTPOptions) client(u *url.URL) *http.Client {
	rt := o.Transport
	if rt == nil {
		rt = http.DefaultTransport
	}
	if o.Authorization != nil {
		rt = &authorizer{rt, o.Authorization, u.Scheme}
	}
	return &http.Client{
		Transport: rt,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return nil
		},
	}
}

func (o *HTTPOptions) request(ctx context.Context, u *url.URL) *http.Request {
	h := http.Header{}
	for name, v := range map[string]string{"If-None-Match": o.ETag, "If-Modified-Since": o.LastModified, "User-Agent": o.UserAgent} {
		if v != "" {
			h.Set(name, v)
		}
	}
	if o.ETag != "" { // an older date of the same file says nothing
		h.Del("If-Modified-Since")
	}
	r := &http.Request{Method: http.MethodGet, URL: u, Header: h, Host: u.Host}
	return r.WithContext(ctx)
}

// authorizer gives each host what is meant for it, but not in clear text where a
// redirect leads there from https.
type authorizer struct {
	next   http.RoundTripper
	of     func(host string) (string, error)
	scheme string // of the address that was asked for
}

func (a *authorizer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Authorization") == "" && (r.URL.Scheme == "https" || a.scheme == "http") {
		v, err := a.of(r.URL.Host)
		if err != nil {
			return nil, err
		}
		if v != "" {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", v)
		}
	}
	return a.next.RoundTrip(r)
}

// body is the answer's, bounded and counted.
type body struct {
	r        io.Reader
	left     int64
	alive    func()
	current  int64
	total    int64
	progress func(current, total int64)
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.alive()
	b.current += int64(n)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, b.current+b.left)
	}
	if b.progress != nil && n > 0 {
		b.progress(b.current, b.total)
	}
	return n, err
}

// writer tells the caller's errors from those of the server.
type writer struct{ w io.Writer }

func (w writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

type writeError struct{ err error }

func (e *writeError) Error() string { return "store it: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// statusError is an answer that is no file.
type statusError struct{ code int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the server answers %d %s", e.code, http.StatusText(e.code))
}

// firstCause prefers why the request was ended over that it was.
func firstCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// errBadAddress stands for what package url says of an address, which quotes it.
var errBadAddress = errors.New("not an address (special characters of a name or password are written as %25 for %, %40 for @)")

// withoutURL drops the address from an error of net/http: it stands before the
// error already, and here it could hold a password.
func withoutURL(err error) error {
	u, ok := errors.AsType[*url.Error](err)
	switch {
	case !ok:
		return err
	case u.Op == "parse":
		return errBadAddress
	}
	return u.Err
}

func httpError(ctx context.Context, u *url.URL, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &Error{Source: Redact(u.String()), Err: withoutURL(err)}
	status, _ := errors.AsType[*statusError](err)
	_, ours := errors.AsType[*writeError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case ours:
	case untrusted:
		e.Hint = "a certificate that nobody known has signed: add its authority to the system's, or name it in SSL_CERT_FILE"
	case status != nil && (status.code == http.StatusUnauthorized || status.code == http.StatusForbidden):
		e.Hint = "the server wants a password: give --secret id=HTTP_AUTH_TOKEN_" + u.Host + ",env=TOKEN"
	case status != nil && status.code == http.StatusNotFound:
		e.Hint = "is the address right?"
	case errors.Is(err, ErrChecksum):
		e.Hint = "the file is not the one that --checksum names: it was replaced at its source, or the checksum is of another version"
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.Err = fmt.Errorf("the connection was cut: %w", e.Err)
		e.Hint = "try again"
	case errors.Is(err, ErrTooLarge):
	case status == nil:
		e.Hint = "is the address right, and the network there? Proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
	}
	return e
}

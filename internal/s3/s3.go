// Package s3 reads and writes objects of a bucket that speaks Amazon's S3 protocol,
// as much of it as a cache needs: GET, HEAD, PUT, an upload in parts, and a copy of an
// object onto itself.
//
// Owns: Signature Version 4, where a bucket is, and what an answer means.
//
// Invariants:
//   - No error holds a key, a token or the query of a URL.
//   - Plain HTTP is spoken only where the address says so.
//   - Bodies are never kept in memory but for one part of an upload.
//
// Concurrency: a Bucket may be used by many goroutines at once.
//
// Fails when: the object is not there (ErrNotFound), the credentials do not reach it
// (ErrDenied), or the server does not answer or answers something else (a *Error).
package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What callers tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrDenied   = errors.New("access denied")
)

const (
	partSize     = 16 << 20         // of an upload in parts; S3 wants 5 MiB and at most 10,000 parts
	maxParts     = 10000            // of one object
	answerTime   = time.Minute      // for the head of an answer
	commitTime   = 10 * time.Minute // for the end of an upload
	idleTime     = time.Minute      // for the next bytes of a body
	maxErrorBody = 16 << 10
	tries        = 3
)

// Error is an answer that says no.
type Error struct {
	Op     string // "GET blobs/x"
	Status int    // of HTTP; 0 where there was no answer
	Code   string // S3's word for it
	Text   string
}

func (e *Error) Error() string {
	text := e.Text
	if e.Code != "" {
		text = strings.TrimSuffix(e.Code+": "+text, ": ")
	}
	if e.Status == 0 {
		return fmt.Sprintf("%s: %s", e.Op, text)
	}
	return strings.TrimSuffix(fmt.Sprintf("%s: %d %s: %s", e.Op, e.Status, http.StatusText(e.Status), text), ": ")
}

// Unwrap gives the sentinel of a status.
func (e *Error) Unwrap() error {
	switch e.Status {
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		return ErrDenied
	}
	return nil
}

// Options say which bucket, and how it is reached.
type Options struct {
	Bucket, Region string
	Endpoint       string // "https://host[:port]"; "" is Amazon's for the region
	PathStyle      bool   // the bucket is in the path and not in the host's name
	Credentials    Credentials
	UserAgent      string
}

// Bucket is a client of one bucket.
type Bucket struct {
	o      Options
	base   url.URL // with the bucket
	signer signer
	client *http.Client
	now    func() time.Time
	pause  time.Duration // before the second try
	idle   time.Duration // for the next bytes of an answer
}

// Open returns a client. It sends nothing yet.
func Open(o Options) (*Bucket, error) {
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/?#\\ ") {
		return nil, fmt.Errorf("bucket %q: not a name", o.Bucket)
	}
	if o.Region == "" {
		return nil, errors.New("no region")
	}
	if o.Endpoint == "" {
		o.Endpoint = "https://s3." + o.Region + ".amazonaws.com"
		if strings.HasPrefix(o.Region, "cn-") {
			o.Endpoint += ".cn"
		}
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		text := "" // it may hold a password
		if err == nil {
			text = " " + strconv.Quote(u.Redacted())
		}
		return nil, fmt.Errorf("endpoint%s: want https://HOST or http://HOST", text)
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")}
	if o.PathStyle {
		base.Path += "/" + o.Bucket
	} else {
		base.Host = o.Bucket + "." + base.Host
	}
	return &Bucket{
		o: o, base: base, signer: signer{o.Credentials, o.Region, "s3"}, now: time.Now, pause: 500 * time.Millisecond, idle: idleTime,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 15 * time.Second, ForceAttemptHTTP2: true,
				MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second, DisableCompression: true, ResponseHeaderTimeout: commitTime,
			},
			// A signature is for one address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close ends idle connections.
func (b *Bucket) Close() { b.client.CloseIdleConnections() }

// String is the endpoint with the bucket.
func (b *Bucket) String() string { return b.base.String() }

// body makes the body of a request, anew for each try.
type body struct {
	size int64
	open func() (io.ReadCloser, error)
	sum  string // SHA-256 in hex, or unsignedPayload
}

func inMemory(data []byte) body {
	sum := sha256.Sum256(data)
	return body{int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, hex.EncodeToString(sum[:])}
}

// do sends a request, again where that may help, and returns an answer of 2xx.
func (b *Bucket) do(ctx context.Context, method, key string, q url.Values, h http.Header, in body, limit time.Duration) (*http.Response, error) {
	for i := 1; ; i++ {
		resp, err := b.once(ctx, method, key, q, h, in, limit)
		if err == nil || i == tries || ctx.Err() != nil || !passing(err) {
			return resp, err
		}
		select {
		case <-time.After(b.pause << (2 * (i - 1))):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func passing(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == 0 || e.Status >= 500 && e.Status != http.StatusNotImplemented ||
		e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout)
}

func (b *Bucket) once(ctx context.Context, method, key string, q url.Values, h http.Header, in body, limit time.Duration) (*http.Response, error) {
	op := method + " " + key
	u := b.base
	u.RawPath = escape(u.Path, true) + "/" + escape(key, true)
	u.Path += "/" + key
	u.RawQuery = canonicalQuery(q)
	var r io.ReadCloser = http.NoBody
	if in.open != nil && in.size > 0 {
		var err error
		if r, err = in.open(); err != nil {
			return nil, fmt.Errorf("read what is sent: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), r)
	if err != nil {
		cancel()
		return nil, &Error{Op: op, Text: "bad address"}
	}
	req.ContentLength = in.size
	req.Header = h.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if in.sum == "" {
		in.sum = hexSHA256("")
	}
	b.signer.sign(req, in.sum, b.now())
	req.Header.Set("User-Agent", b.o.UserAgent) // not signed: proxies change it
	timer := time.AfterFunc(limit, cancel)
	resp, err := b.client.Do(req)
	timer.Stop()
	if err != nil {
		cancel()
		return nil, &Error{Op: op, Text: plain(err)}
	}
	if resp.StatusCode/100 == 2 {
		resp.Body = &ending{resp.Body, cancel, b.idle, op}
		return resp, nil
	}
	defer cancel()
	return nil, errors.Join(b.refusal(op, resp), resp.Body.Close())
}

// ending ends the context of a request with its body, and where no more bytes come in
// time.
type ending struct {
	io.ReadCloser
	cancel context.CancelFunc
	idle   time.Duration
	op     string
}

func (e *ending) Read(p []byte) (int, error) {
	t := time.AfterFunc(e.idle, e.cancel)
	n, err := e.ReadCloser.Read(p)
	if !t.Stop() && err != nil && !errors.Is(err, io.EOF) {
		err = &Error{Op: e.op, Text: "no more bytes came in time"}
	}
	return n, err
}

func (e *ending) Close() error {
	err := e.ReadCloser.Close()
	e.cancel()
	return err
}

// plain is an error of the transport without the address, which holds no secret of
// ours but may be long.
func plain(err error) string {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err.Error()
	}
	return err.Error()
}

func (b *Bucket) refusal(op string, resp *http.Response) error {
	e := &Error{Op: op, Status: resp.StatusCode}
	var doc struct{ Code, Message string }
	if data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)); err == nil && xml.Unmarshal(data, &doc) == nil {
		e.Code, e.Text = word(doc.Code), word(doc.Message)
	}
	if resp.StatusCode/100 == 3 {
		e.Text = "the bucket is elsewhere: check region and endpoint_url"
	}
	return e
}

// word is a text of a server, bounded and on one line.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 300)]
}

// Info is what HEAD says of an object.
type Info struct {
	Size     int64
	Modified time.Time // zero where the server does not say
}

// Head asks for an object without its bytes.
func (b *Bucket) Head(ctx context.Context, key string) (Info, error) {
	resp, err := b.do(ctx, http.MethodHead, key, nil, nil, body{}, answerTime)
	if err != nil {
		return Info{}, err
	}
	info := Info{Size: resp.ContentLength}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		info.Modified = t
	}
	return info, resp.Body.Close()
}

// Put writes an object of bytes in memory.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.end(b.do(ctx, http.MethodPut, key, nil, nil, inMemory(data), commitTime))
}

// end closes an answer that holds nothing of use.
func (b *Bucket) end(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	return errors.Join(err, resp.Body.Close())
}

// Touch gives an object the time of now, for rules that remove what is old.
func (b *Bucket) Touch(ctx context.Context, key string) error {
	h := http.Header{
		"X-Amz-Copy-Source":        {escape("/"+b.o.Bucket+"/"+key, true)},
		"X-Amz-Metadata-Directive": {"REPLACE"},
	}
	return b.end(b.do(ctx, http.MethodPut, key, nil, h, body{}, commitTime))
}

// Upload writes an object of size bytes. open streams them, and is called again for
// another try. Nothing has the object's name before all of it is there.
func (b *Bucket) Upload(ctx context.Context, key string, size int64, open func() (io.ReadCloser, error)) error {
	if size <= partSize {
		return b.end(b.do(ctx, http.MethodPut, key, nil, nil, body{size, open, unsignedPayload}, commitTime))
	}
	r, err := open()
	if err != nil {
		return fmt.Errorf("read what is sent: %w", err)
	}
	return errors.Join(b.multipart(ctx, key, size, r), r.Close())
}

type completed struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Parts   []part   `xml:"Part"`
}

type part struct {
	PartNumber int
	ETag       string
}

func (b *Bucket) multipart(ctx context.Context, key string, size int64, r io.Reader) (err error) {
	resp, err := b.do(ctx, http.MethodPost, key, url.Values{"uploads": {""}}, nil, body{}, answerTime)
	if err != nil {
		return err
	}
	var begun struct {
		UploadID string `xml:"UploadId"`
	}
	err = xml.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&begun)
	if err := errors.Join(err, resp.Body.Close()); err != nil || begun.UploadID == "" {
		return &Error{Op: "POST " + key, Text: "an answer without an upload id"}
	}
	id := url.Values{"uploadId": {begun.UploadID}}
	defer func() {
		if err != nil { // what was sent costs its room until it is given up
			_ = b.end(b.once(context.WithoutCancel(ctx), http.MethodDelete, key, id, nil, body{}, 10*time.Second))
		}
	}()
	each := max(partSize, (size+maxParts-1)/maxParts)
	var list completed
	buf := make([]byte, min(each, size))
	for left := size; left > 0; {
		n, err := io.ReadFull(r, buf[:min(each, left)])
		if err != nil {
			return fmt.Errorf("read what is sent: %w", err)
		}
		left -= int64(n)
		number := len(list.Parts) + 1
		q := url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {begun.UploadID}}
		resp, err := b.do(ctx, http.MethodPut, key, q, nil, inMemory(buf[:n]), commitTime)
		tag := ""
		if err == nil {
			tag = resp.Header.Get("ETag")
		}
		if err := b.end(resp, err); err != nil {
			return err
		}
		list.Parts = append(list.Parts, part{number, tag})
	}
	if err := atEnd(r); err != nil {
		return fmt.Errorf("read what is sent: %w", err)
	}
	return b.complete(ctx, key, id, list)
}

// atEnd reads the end of a stream, where a verified one says whether it was whole.
func atEnd(r io.Reader) error {
	n, err := r.Read(make([]byte, 1))
	if n > 0 {
		return errors.New("longer than it should be")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// complete makes an object of its parts. S3 may say 200 and then that it failed.
func (b *Bucket) complete(ctx context.Context, key string, id url.Values, list completed) error {
	data, err := xml.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode parts: %w", err)
	}
	resp, err := b.do(ctx, http.MethodPost, key, id, nil, inMemory(data), commitTime)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return &Error{Op: "POST " + key, Text: "an answer that was cut short"}
	}
	var doc struct {
		XMLName       xml.Name
		Code, Message string
	}
	if xml.Unmarshal(answer, &doc) == nil && doc.XMLName.Local == "Error" {
		return &Error{Op: "POST " + key, Status: resp.StatusCode, Code: word(doc.Code), Text: word(doc.Message)}
	}
	return nil
}

package s3_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/s3"
	"github.com/fbuild/fbuild/internal/s3/s3test"
)

func open(t *testing.T, srv *s3test.Server) *s3.Bucket {
	t.Helper()
	o := s3.Options{Bucket: "cache", Region: "us-east-1", PathStyle: true, Endpoint: srv.URL}
	o.Credentials = s3.Credentials{AccessKeyID: "id", SecretAccessKey: "hidden-secret", SessionToken: "hidden-token"}
	b, err := s3.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func server(t *testing.T) *s3test.Server {
	t.Helper()
	srv := s3test.New("cache")
	t.Cleanup(srv.Close)
	return srv
}

func reader(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// roundTrip writes and reads objects of all sizes that are sent differently.
func roundTrip(t *testing.T, b *s3.Bucket) {
	t.Helper()
	for name, size := range map[string]int{"empty": 0, "small": 10, "one part": 16 << 20, "parts/ä +&=": 33<<20 + 7} {
		data := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		if err := b.Upload(t.Context(), name, int64(size), reader(data)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := b.Head(t.Context(), name)
		if err != nil || info.Size != int64(size) || time.Since(info.Modified) > time.Hour {
			t.Errorf("%s: got %+v, error %v, want %d bytes of now", name, info, err, size)
		}
		r, _, err := b.Get(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, error %v, want the %d that were sent", name, len(got), err, size)
		}
	}
	if err := b.Put(t.Context(), "small", []byte("other")); err != nil {
		t.Error(err)
	}
	if err := b.Touch(t.Context(), "small"); err != nil {
		t.Errorf("touch: %v", err)
	}
	if info, err := b.Head(t.Context(), "small"); err != nil || info.Size != 5 {
		t.Errorf("touched: got %+v, error %v, want 5 bytes", info, err)
	}
	if _, err := b.Head(t.Context(), "none"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("missing: got %v, want ErrNotFound", err)
	}
	if _, _, err := b.Get(t.Context(), "none"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("missing: got %v, want ErrNotFound", err)
	}
}

func TestRoundTrip(t *testing.T) {
	srv := server(t)
	roundTrip(t, open(t, srv))
	if srv.Uploads() != 0 {
		t.Errorf("got %d uploads that were not ended", srv.Uploads())
	}
}

// TestRealServer does the same with a real one, by hand: see docs/testing.md.
func TestRealServer(t *testing.T) {
	endpoint := os.Getenv("FBUILD_S3_ENDPOINT")
	if endpoint == "" {
		return // not a skip: this is not for CI
	}
	b, err := s3.Open(s3.Options{
		Bucket: "cache", Region: "us-east-1", PathStyle: true, Endpoint: endpoint,
		Credentials: s3.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	roundTrip(t, b)
	wrong, err := s3.Open(s3.Options{
		Bucket: "cache", Region: "us-east-1", PathStyle: true, Endpoint: endpoint,
		Credentials: s3.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: "wrong"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if err := wrong.Put(t.Context(), "x", []byte("x")); !errors.Is(err, s3.ErrDenied) {
		t.Errorf("a wrong key: got %v, want ErrDenied", err)
	}
}

func TestFailures(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	tests := []struct {
		name string
		fail func(http.ResponseWriter, *http.Request) bool
		is   error
		want string
	}{
		{"denied", answer(403, "<Error><Code>SignatureDoesNotMatch</Code><Message>check\nyour key</Message></Error>"), s3.ErrDenied, "SignatureDoesNotMatch: check your key"},
		{"no xml", answer(400, "{}"), nil, "400 Bad Request"},
		{"elsewhere", answer(301, ""), nil, "region"},
		{"a huge text", answer(400, "<Error><Code>x</Code><Message>"+strings.Repeat("y", 100000)+"</Message></Error>"), nil, "400"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := server(t)
			srv.Fail = tt.fail
			err := open(t, srv).Put(t.Context(), "x", []byte("x"))
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 500 {
				t.Errorf("got %v, want %v with %q", err, tt.is, tt.want)
			}
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("a secret is in %v", err)
			}
		})
	}
}

// What fails for a passing reason is tried again; an upload that fails leaves no parts.
func TestTriesAgain(t *testing.T) {
	srv := server(t)
	var n atomic.Int32
	srv.Fail = func(w http.ResponseWriter, _ *http.Request) bool {
		if n.Add(1) > 1 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	b := open(t, srv)
	if err := b.Upload(t.Context(), "x", 3, reader([]byte("abc"))); err != nil || n.Load() != 2 {
		t.Errorf("got %v after %d requests, want success after 2", err, n.Load())
	}
	srv.Fail = nil
	short := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("short")), nil }
	if err := b.Upload(t.Context(), "y", 20<<20, short); err == nil || srv.Uploads() != 0 {
		t.Errorf("cut short: got error %v and %d uploads left, want an error and none", err, srv.Uploads())
	}
	if _, err := b.Head(t.Context(), "y"); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("cut short: got %v, want nothing under its name", err)
	}
}

// A connection that breaks in the middle of an object is taken up again, unless the
// object became another one.
func TestGetIsTakenUpAgain(t *testing.T) {
	srv := server(t)
	srv.Cut = 100_000
	b := open(t, srv)
	data := bytes.Repeat([]byte("0123456"), 100_000)
	srv.Put("x", data)
	r, size, err := b.Get(t.Context(), "x")
	if err != nil || size != int64(len(data)) {
		t.Fatalf("got %d bytes, error %v, want %d", size, err, len(data))
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data) || srv.Count("GET x") != 2 {
		t.Errorf("got %d bytes, error %v, after %d requests, want %d after 2", len(got), err, srv.Count("GET x"), len(data))
	}
	if r, _, err = b.Get(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	srv.Put("x", bytes.Repeat([]byte("6543210"), 100_000))
	got, err = io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err == nil {
		t.Errorf("another object meanwhile: got %d bytes, want an error", len(got))
	}
}

func TestOpen(t *testing.T) {
	tests := []struct {
		o    s3.Options
		want string // "" for an error
	}{
		{s3.Options{Bucket: "b", Region: "eu-west-1"}, "https://b.s3.eu-west-1.amazonaws.com"},
		{s3.Options{Bucket: "b", Region: "cn-north-1"}, "https://b.s3.cn-north-1.amazonaws.com.cn"},
		{s3.Options{Bucket: "b", Region: "r", Endpoint: "http://localhost:9000/", PathStyle: true}, "http://localhost:9000/b"},
		{s3.Options{Bucket: "b", Region: "r", Endpoint: "https://s.example/x"}, "https://b.s.example/x"},
		{s3.Options{Bucket: "b"}, ""},
		{s3.Options{Region: "r"}, ""},
		{s3.Options{Bucket: "a/b", Region: "r"}, ""},
		{s3.Options{Bucket: "b", Region: "r", Endpoint: "localhost:9000"}, ""},
		{s3.Options{Bucket: "b", Region: "r", Endpoint: "https://user:hidden@host"}, ""},
		{s3.Options{Bucket: "b", Region: "r", Endpoint: "https://user:hidden@host:x"}, ""},
	}
	for _, tt := range tests {
		b, err := s3.Open(tt.o)
		if (err == nil) != (tt.want != "") || err == nil && b.String() != tt.want {
			t.Errorf("%+v: got %v, error %v, want %q", tt.o, b, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("a password is in %v", err)
		}
	}
}

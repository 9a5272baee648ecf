package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const lastModified = "Fri, 02 Jan 2026 03:04:05 GMT"

// fileServer serves what the tests of Get ask for.
func fileServer(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Last-Modified", lastModified)
		http.ServeContent(w, r, "file", mustTime(lastModified), strings.NewReader("hello"))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/file", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	})
	mux.HandleFunc("/reset", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "999999999999") })
	mux.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/unasked", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	mux.HandleFunc("/part", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) })
	mux.HandleFunc("/private", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "secret")
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func mustTime(s string) time.Time {
	t, err := http.ParseTime(s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestGet(t *testing.T) {
	srv := fileServer(t)
	file := File{ETag: `"one"`, LastModified: lastModified, Size: 5}
	same := File{ETag: `"one"`, NotModified: true} // net/http leaves the time out then
	for _, tt := range []struct {
		name, path string
		o          HTTPOptions
		want       File
		wantBody   string
	}{
		{"file", "/file", HTTPOptions{}, file, "hello"},
		{"redirect", "/moved", HTTPOptions{}, file, "hello"},
		{"same etag", "/file", HTTPOptions{ETag: `"one"`}, same, ""},
		{"other etag", "/file", HTTPOptions{ETag: `"two"`, LastModified: lastModified}, file, "hello"},
		{"same time", "/file", HTTPOptions{LastModified: lastModified}, same, ""},
		{"sha256", "/file", HTTPOptions{Checksum: Checksum(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("hello"))))}, file, "hello"},
		{"sha384", "/file", HTTPOptions{Checksum: Checksum(fmt.Sprintf("sha384:%x", sha512.Sum384([]byte("hello"))))}, file, "hello"},
		{"sha512", "/file", HTTPOptions{Checksum: Checksum(fmt.Sprintf("sha512:%x", sha512.Sum512([]byte("hello"))))}, file, "hello"},
		{"exactly the limit", "/file", HTTPOptions{MaxSize: 5}, file, "hello"},
		{
			"password", "/private",
			HTTPOptions{Authorization: func(string) (string, error) { return "Bearer good", nil }},
			File{Size: 6},
			"secret",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var body bytes.Buffer
			got, err := Get(t.Context(), srv.URL+tt.path, &body, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("file (-want +got):\n%s", diff)
			}
			if body.String() != tt.wantBody {
				t.Errorf("body: got %q, want %q", body.String(), tt.wantBody)
			}
		})
	}
}

func TestGetFails(t *testing.T) {
	srv := fileServer(t)
	short := HTTPOptions{MaxSize: 1 << 20, Idle: 200 * time.Millisecond}
	for _, tt := range []struct {
		name, url, want, hint string
		o                     HTTPOptions
		is                    error
	}{
		{"loop", srv.URL + "/loop", "more than 10 redirects", "", short, nil},
		{"redirect to a file", srv.URL + "/elsewhere", "unsupported protocol scheme", "", short, nil},
		{"fewer bytes than said", srv.URL + "/cut", "the connection was cut", "try again", short, io.ErrUnexpectedEOF},
		{"reset", srv.URL + "/reset", "the connection was cut", "try again", short, io.ErrUnexpectedEOF},
		{"endless", srv.URL + "/endless", "file is too large", "", short, ErrTooLarge},
		{"huge by its header", srv.URL + "/huge", "999999999999 bytes", "", short, ErrTooLarge},
		{"stalled", srv.URL + "/stall", "sends nothing more", "", short, errStalled},
		{"silent", srv.URL + "/silent", "sends nothing more", "", short, errStalled},
		{"not modified without being asked", srv.URL + "/unasked", "304", "", short, nil},
		{"a part", srv.URL + "/part", "206", "", short, nil},
		{"missing", srv.URL + "/missing", "404 Not Found", "is the address right", short, nil},
		{"private", srv.URL + "/private", "401", "HTTP_AUTH_TOKEN_127.0.0.1", short, nil},
		{"checksum", srv.URL + "/file", "checksum differs", "--checksum", HTTPOptions{Checksum: Checksum("sha256:" + strings.Repeat("0", 64))}, ErrChecksum},
		{"checksum of another algorithm", srv.URL + "/file", `"md5" is not supported`, "", HTTPOptions{Checksum: "md5:00"}, nil},
		{"no server", "http://127.0.0.1:1/x", "connection refused", "is the address right, and the network there", short, nil},
		{"password in the address", "http://user:hunter2@127.0.0.1:1/x", "fetch http://xxxxx@127.0.0.1:1/x:", "", short, nil},
		{"password in a bad address", "http://user:hunter2@[::1/x", "fetch:", "", short, nil},
		{"no host", "http:///x", "not an http address", "", short, nil},
		{"another protocol", "ftp://host/x", "not an http address", "", short, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Get(t.Context(), tt.url, io.Discard, tt.o)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q, want %q and no password", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want it to be %v", err, tt.is)
			}
			if e, ok := errors.AsType[*Error](err); tt.hint != "" && (!ok || !strings.Contains(e.Hint, tt.hint)) {
				t.Errorf("hint of %v: want %q", err, tt.hint)
			}
		})
	}
}

// TestGetBlamesWhoFailed: a full disk is not the server's fault, and a certificate
// not the network's.
func TestGetBlamesWhoFailed(t *testing.T) {
	full := errors.New("no room")
	_, err := Get(t.Context(), fileServer(t).URL+"/file", failing{full}, HTTPOptions{})
	if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, full) || e.Hint != "" {
		t.Errorf("got %v, want %v without a hint", err, full)
	}
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	_, err = Get(t.Context(), srv.URL, io.Discard, HTTPOptions{})
	if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Hint, "certificate") {
		t.Errorf("got %v, want a hint about certificates", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestGetEndsWithItsContext(t *testing.T) {
	srv := fileServer(t)
	cause := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if _, err := Get(ctx, srv.URL+"/silent", io.Discard, HTTPOptions{}); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

// TestGetKeepsCredentialsAtTheirHost: a redirect to another host takes nothing along.
func TestGetKeepsCredentialsAtTheirHost(t *testing.T) {
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer first.Close()
	host := strings.TrimPrefix(first.URL, "http://")
	o := HTTPOptions{Authorization: func(h string) (string, error) {
		if h == host {
			return "Bearer mine", nil
		}
		return "", nil
	}}
	if _, err := Get(t.Context(), first.URL, io.Discard, o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Bearer mine", ""}, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

// A redirect from https to http does not lay a credential open, whomever it is for.
func TestGetKeepsCredentialsEncrypted(t *testing.T) {
	var got []string
	note := func(r *http.Request) { got = append(got, r.Header.Get("Authorization")) }
	plain := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { note(r) }))
	defer plain.Close()
	first := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		http.Redirect(w, r, plain.URL, http.StatusFound)
	}))
	defer first.Close()
	o := HTTPOptions{Transport: first.Client().Transport, Authorization: func(string) (string, error) { return "Bearer mine", nil }}
	if _, err := Get(t.Context(), first.URL, io.Discard, o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Bearer mine", ""}, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestRedact(t *testing.T) {
	for address, want := range map[string]string{
		"https://h/x":             "https://h/x",
		"https://u:hunter2@h/x":   "https://xxxxx@h/x",
		"https://u:hun%ter2@h/x":  "https://xxxxx@h/x",
		"https://u:hun@ter%2@h/x": "https://xxxxx@h/x",
		"https://h/%zz":           "https://h/%zz",
		"ssh://git@h/x":           "ssh://git@h/x",
	} {
		if got := Redact(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	for _, address := range []string{"https://u:hun%ter2@h/x", "https://u:hun%ter2@h/x.git"} {
		_, err := Get(t.Context(), address, io.Discard, HTTPOptions{})
		_, gerr := ParseGit(address)
		for _, err := range []error{err, gerr} {
			if err == nil || strings.Contains(err.Error(), "%te") {
				t.Errorf("%s: got %v, want an error without the password", address, err)
			}
		}
	}
}

func TestHTTPName(t *testing.T) {
	for url, want := range map[string]string{
		"http://h/a/b.txt": "b.txt", "http://h/a/b.txt?x=/y": "b.txt", "http://h": "__unnamed__", "http://h/": "__unnamed__",
		"http://h/a/": "a", "http://h/a/..": "__unnamed__", "http://h/%2e%2e": "__unnamed__",
	} {
		if got := HTTPName(url); got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}

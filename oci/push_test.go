package oci

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func checkPushed(t testing.TB, ref string, b *Built) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	must(t, err)
	img, err := ggcr.Image(parsed)
	if err != nil {
		t.Errorf("%s: %v", ref, err)
		return
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("%s: validate.Image: %v", ref, err)
	}
	if got, err := img.Digest(); err != nil || got != b.Desc.Digest {
		t.Errorf("%s: got %s, %v, want %s", ref, got, err, b.Desc.Digest)
	}
}

func TestPush(t *testing.T) {
	f, second := newRegistry(t), newRegistry(t)
	r := testRemote(t, RemoteOptions{})
	b := build(t, layersOf(t, randomImage(t, 200_000, 6)), AssembleOptions{})
	names := []string{f.host + "/a/app:v1", f.host + "/a/app:v2", f.host + "/b/app:v1", second.host + "/app"}
	last := map[string]Status{}
	manifests := 0
	digest, err := r.Push(t.Context(), names, b, func(s Status) {
		last[s.Repo+string(s.Digest)] = s
		if s.Manifest {
			manifests++
		}
	})
	if err != nil || digest != b.Digest() {
		t.Fatalf("Push: got %s, %v, want %s", digest, err, b.Digest())
	}
	for _, n := range names {
		checkPushed(t, n, b)
	}
	if manifests != 4 || len(last) != 3*(6+1+1) {
		t.Errorf("progress: got %d manifests and %d things, want 4 and 24", manifests, len(last))
	}
	for key, s := range last {
		if s.State == Pushing || s.Current != s.Total || s.Total == 0 {
			t.Errorf("%s: last status is %+v, want it done", key, s)
		}
	}
	f.forget()
	if _, err := r.Push(t.Context(), []string{f.host + "/a/app:v3"}, b, func(s Status) {
		if !s.Manifest && s.State != Exists {
			t.Errorf("second push: got %+v, want every blob to exist", s)
		}
	}); err != nil {
		t.Fatalf("Push again: %v", err)
	}
	if n := f.count("/uploads/"); n != 0 {
		t.Errorf("second push: got %d uploads, want none", n)
	}
}

// Layers of a base that lies in the same registry are mounted, not sent.
func TestPushMountsBaseLayers(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		f := newRegistry(t)
		ref := f.put(t, "base/os:v1", randomImage(t, 1000, 2))
		r := testRemote(t, RemoteOptions{})
		base, err := r.Resolve(t.Context(), ref, amd64)
		must(t, err)
		b := build(t, append(base.Layers, layersOf(t, randomImage(t, 1000, 1))...), AssembleOptions{})
		var mu sync.Mutex
		var from []string
		f.handle(func(w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			// The fake registry keeps blobs of all repositories in one place.
			if r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/app/blobs/") {
				return regError(w, 404, "BLOB_UNKNOWN", "")
			}
			if q.Get("mount") == "" {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			from = append(from, q.Get("from"))
			if !allowed {
				return regError(w, 403, "DENIED", "no mounts here")
			}
			w.WriteHeader(http.StatusCreated)
			return true
		})
		mounted := 0
		_, err = r.Push(t.Context(), []string{f.host + "/app:v1"}, b, func(s Status) {
			if s.State == Mounted {
				mounted++
			}
		})
		must(t, err)
		want := 0
		if allowed {
			want = 2
		}
		if mounted != want || len(from) != 2 || from[0] != "base/os" {
			t.Errorf("allowed=%v: got %d mounted, asked %v, want %d of base/os", allowed, mounted, from, want)
		}
		f.handle(nil)
		checkPushed(t, f.host+"/app:v1", b)
	}
}

func TestPushRefusedHalfWay(t *testing.T) {
	for _, tc := range []struct {
		name, method, path string
		status             int
		want               error
	}{
		{"at the start", http.MethodPost, "/uploads/", 403, ErrUnauthorized},
		{"in a blob", http.MethodPut, "/uploads/", 403, ErrUnauthorized},
		{"too large", http.MethodPut, "/uploads/", 413, ErrTooLarge},
		{"at the manifest", http.MethodPut, "/manifests/", 400, ErrRegistry},
		{"broken server", http.MethodPut, "/manifests/", 500, ErrRegistry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newRegistry(t)
			f.handle(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == tc.method && strings.Contains(r.URL.Path, tc.path) {
					_, err := io.Copy(io.Discard, r.Body)
					must2(err)
					return regError(w, tc.status, "CODE", "the registry's words")
				}
				return false
			})
			b := build(t, layersOf(t, randomImage(t, 1000, 2)), AssembleOptions{})
			_, err := testRemote(t, RemoteOptions{}).Push(t.Context(), []string{f.host + "/app:v1"}, b, nil)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), "push "+f.host+"/app:v1") || !strings.Contains(err.Error(), "the registry's words") {
				t.Errorf("got %v, want %v with image and words", err, tc.want)
			}
			f.handle(nil)
			if _, err := testRemote(t, RemoteOptions{}).Head(t.Context(), f.host+"/app:v1"); !errors.Is(err, ErrNotFound) {
				t.Errorf("tag after a refused push: got %v, want ErrNotFound", err)
			}
		})
	}
}

func TestPushTriesAgain(t *testing.T) {
	f := newRegistry(t)
	var n atomic.Int32
	f.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		switch n.Add(1) {
		case 1: // cut in the middle of the body
			conn, _, err := w.(http.Hijacker).Hijack()
			must2(err)
			must2(conn.Close())
			return true
		case 2, 5:
			_, err := io.Copy(io.Discard, r.Body)
			must2(err)
			return regError(w, 502, "UNKNOWN", "")
		}
		return false
	})
	b := build(t, layersOf(t, randomImage(t, 3_000_000, 1)), AssembleOptions{})
	_, err := testRemote(t, RemoteOptions{}).Push(t.Context(), []string{f.host + "/app:v1"}, b, nil)
	must(t, err)
	checkPushed(t, f.host+"/app:v1", b)
}

// A registry that asks for patience gets it, in seconds or until a time, wherever it
// asks for it.
func TestPushWaitsAsAsked(t *testing.T) {
	f := newRegistry(t)
	var mu sync.Mutex
	refused := map[string]bool{}
	f.handle(func(w http.ResponseWriter, r *http.Request) bool {
		kind := "manifest"
		if strings.Contains(r.URL.Path, "/blobs/") {
			kind = "blob"
		}
		mu.Lock()
		defer mu.Unlock()
		what := r.Method + " " + kind
		if r.URL.Path == "/v2/" || refused[what] {
			return false
		}
		refused[what] = true
		_, err := io.Copy(io.Discard, r.Body)
		must2(err)
		after := "7"
		if len(refused)%2 == 0 {
			after = time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
		}
		w.Header().Set("Retry-After", after)
		return regError(w, 429, "TOOMANYREQUESTS", "slowly")
	})
	b := build(t, layersOf(t, randomImage(t, 5<<20, 1)), AssembleOptions{}) // sent in parts
	r := testRemote(t, RemoteOptions{})
	r.pace.most = 60 * time.Millisecond
	began := time.Now()
	_, err := r.Push(t.Context(), []string{f.host + "/app:v1"}, b, nil)
	must(t, err)
	f.handle(nil)
	checkPushed(t, f.host+"/app:v1", b)
	for _, want := range []string{"HEAD blob", "POST blob", "PATCH blob", "PUT blob", "PUT manifest"} {
		if !refused[want] {
			t.Errorf("%s: was never refused", want)
		}
	}
	if took := time.Since(began); took < 3*r.pace.most {
		t.Errorf("pushed after %s, want that it waits each time", took)
	}
}

// A token may end while a blob is sent: its bytes are sent again from the start.
func TestTokenEndsDuringUpload(t *testing.T) {
	f := newRegistry(t)
	auth := &bearerAuth{f: f, uses: 1000, left: map[string]int{}}
	var n atomic.Int32
	f.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && n.Add(1) == 1 {
			auth.expire()
		}
		return auth.handle(w, r)
	})
	b := build(t, layersOf(t, randomImage(t, 300_000, 1)), AssembleOptions{})
	r := testRemote(t, RemoteOptions{ConfigDir: dockerConfig(t, f.host, testPassword)})
	if _, err := r.Push(t.Context(), []string{f.host + "/app:v1"}, b, nil); err != nil {
		t.Fatalf("Push: %v", err)
	}
	f.handle(nil)
	checkPushed(t, f.host+"/app:v1", b)
}

// A layer that cannot be read is our fault, not the registry's, and is not
// tried again.
func TestPushOfABadLayer(t *testing.T) {
	f := newRegistry(t)
	b := build(t, layersOf(t, randomImage(t, 1000, 1)), AssembleOptions{})
	var opens atomic.Int32
	b.Layers[0].Open = func(context.Context) (io.ReadCloser, error) {
		opens.Add(1)
		return io.NopCloser(strings.NewReader(strings.Repeat("x", int(b.Layers[0].Desc.Size)))), nil
	}
	_, err := testRemote(t, RemoteOptions{}).Push(t.Context(), []string{f.host + "/app:v1"}, b, nil)
	if !errors.Is(err, ErrDigest) || opens.Load() != 1 {
		t.Errorf("got %v after %d tries, want ErrDigest after one", err, opens.Load())
	}
}

// An image goes to a repository by its digest alone, and under no other.
func TestPushByDigest(t *testing.T) {
	f := newRegistry(t)
	r := testRemote(t, RemoteOptions{})
	b := build(t, layersOf(t, randomImage(t, 100, 2)), AssembleOptions{})
	by := f.host + "/a/app@" + string(b.Digest())
	got, err := r.Push(t.Context(), []string{by}, b, nil)
	must(t, err)
	if got != b.Digest() {
		t.Errorf("got %s, want %s", got, b.Digest())
	}
	checkPushed(t, by, b)
	if n := f.count("PUT /v2/a/app/manifests/"); n != 1 || f.count("manifests/latest") != 0 {
		t.Errorf("manifests sent: got %d, and %d questions about a tag, want one and none", n, f.count("manifests/latest"))
	}
	f.forget()
	_, err = r.Push(t.Context(), []string{by, f.host + "/a/app:v1"}, b, nil)
	must(t, err)
	if f.count("blobs") != 0 || f.count("PUT") != 1 {
		t.Errorf("with a tag: got %q, want a manifest alone", f.requests)
	}
	checkPushed(t, f.host+"/a/app:v1", b)
	if _, err := r.Push(t.Context(), []string{f.host + "/a/app@sha256:" + someHex}, b, nil); !errors.Is(err, ErrRef) {
		t.Errorf("another digest: got %v, want ErrRef", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "999999": time.Hour, "-1": 0, "soon": 0,
		time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): 90 * time.Second,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       0,
	} {
		resp := &http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {text}}, Body: http.NoBody}
		se, ok := errors.AsType[*statusError]((&session{}).statusError(resp))
		if !ok || se.after > want || se.after < want-time.Minute || text == "7" && se.after != want {
			t.Errorf("%q: got %+v, want %s", text, se, want)
		}
	}
}

// An upload may be sent to another host; the credentials stay at home.
func TestUploadElsewhereWithoutCredentials(t *testing.T) {
	f := newRegistry(t)
	direct := func(ctx context.Context, method, at string, body io.Reader) *http.Response {
		req, err := http.NewRequestWithContext(ctx, method, f.URL+at, body)
		must2(err)
		q := req.URL.Query()
		q.Set("direct", "1")
		req.URL.RawQuery = q.Encode()
		resp, err := http.DefaultClient.Do(req)
		must2(err)
		return resp
	}
	var mu sync.Mutex
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Header.Get("Authorization"))
		mu.Unlock()
		resp := direct(r.Context(), r.Method, r.URL.String(), r.Body)
		must2(resp.Body.Close())
		w.WriteHeader(resp.StatusCode)
	}))
	defer other.Close()
	f.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("direct") != "" {
			return false
		}
		if basicAuth(w, r) {
			return true
		}
		if r.Method != http.MethodPost {
			return false
		}
		resp := direct(r.Context(), r.Method, r.URL.Path, http.NoBody)
		must2(resp.Body.Close())
		at, err := url.Parse(resp.Header.Get("Location"))
		must2(err)
		w.Header().Set("Location", other.URL+at.RequestURI())
		w.WriteHeader(resp.StatusCode)
		return true
	})
	b := build(t, layersOf(t, randomImage(t, 1000, 1)), AssembleOptions{})
	r := testRemote(t, RemoteOptions{ConfigDir: dockerConfig(t, f.host, testPassword)})
	if _, err := r.Push(t.Context(), []string{f.host + "/app:v1"}, b, nil); err != nil {
		t.Fatalf("Push: %v", err)
	}
	if len(seen) == 0 || slices.ContainsFunc(seen, func(a string) bool { return a != "" }) {
		t.Errorf("the other host was sent %q, want requests without credentials", seen)
	}
}

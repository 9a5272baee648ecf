package oci

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	testUser     = "bob"
	testPassword = "s3cr3t-p4ssw0rd"
	testToken    = "t0ken-of-bob"
)

// fakeRegistry is a real registry in this process whose answers a test can
// replace: intercept returns true when it has answered.
type fakeRegistry struct {
	*httptest.Server
	host string

	mu        sync.Mutex // guards what follows
	intercept func(w http.ResponseWriter, r *http.Request) bool
	requests  []string // "METHOD path"
}

func newRegistry(t testing.TB) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r.Method+" "+r.URL.Path)
		intercept := f.intercept
		f.mu.Unlock()
		if intercept == nil || !intercept(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.Close)
	f.host = strings.TrimPrefix(f.URL, "http://")
	return f
}

func (f *fakeRegistry) handle(h func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.intercept = h
}

// count tells how many requests held the text, and forgets them.
func (f *fakeRegistry) count(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.Contains(r, text) {
			n++
		}
	}
	return n
}

func (f *fakeRegistry) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

// put stores an image without our code.
func (f *fakeRegistry) put(t testing.TB, repo string, img ggcr.Taggable) string {
	t.Helper()
	ref := f.host + "/" + repo
	parsed, err := name.ParseReference(ref)
	must(t, err)
	switch img := img.(type) {
	case v1.Image:
		must(t, ggcr.Write(parsed, img))
	case v1.ImageIndex:
		must(t, ggcr.WriteIndex(parsed, img))
	}
	f.forget()
	return ref
}

// testRemote waits little and knows no credentials but those of dir.
func testRemote(t testing.TB, o RemoteOptions) *Remote {
	t.Helper()
	if o.ConfigDir == "" {
		o.ConfigDir = t.TempDir()
	}
	r := NewRemote(o)
	r.pace = pace{
		answer: 2 * time.Second, commit: 2 * time.Second, idle: 300 * time.Millisecond,
		waits: []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}, most: time.Millisecond,
	}
	t.Cleanup(r.Close)
	return r
}

// dockerConfig writes a config.json with the credentials of the test's user for one host.
func dockerConfig(t testing.TB, host, password string) string {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(testUser + ":" + password))
	return configDir(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth))
}

func configDir(t testing.TB, config string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	return dir
}

func regError(w http.ResponseWriter, status int, code, message string) bool {
	w.WriteHeader(status)
	must2(json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}}))
	return true
}

// must2 is for goroutines of a server, where a test cannot be failed. A client
// that went away is none of its business.
func must2(err error) {
	gone := errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !gone {
		panic(err)
	}
}

// basicAuth demands the test's user.
func basicAuth(w http.ResponseWriter, r *http.Request) bool {
	if user, pass, ok := r.BasicAuth(); ok && user == testUser && pass == testPassword {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	return regError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

// bearerAuth is a registry with a token server; each token is good for uses
// requests.
type bearerAuth struct {
	f *fakeRegistry

	mu     sync.Mutex // guards what follows
	uses   int
	issued int
	left   map[string]int // uses left of each token issued
}

func (b *bearerAuth) setUses(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uses = n
}

func (b *bearerAuth) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.left)
}

func (b *bearerAuth) handle(w http.ResponseWriter, r *http.Request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.URL.Path == "/token" {
		if user, pass, ok := r.BasicAuth(); !ok || user != testUser || pass != testPassword {
			w.WriteHeader(http.StatusUnauthorized)
			_, err := io.WriteString(w, `{"details":"incorrect username or password"}`)
			must2(err)
			return true
		}
		b.issued++
		token := fmt.Sprintf("%s-%d", testToken, b.issued)
		b.left[token] = b.uses
		_, err := fmt.Fprintf(w, `{"token":%q}`, token)
		must2(err)
		return true
	}
	if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); b.left[token] > 0 {
		b.left[token]--
		return false
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, b.f.URL))
	return regError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

//go:build integration

package integration

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// registryServer is a registry of this process on the loopback interface.
type registryServer struct {
	srv     *httptest.Server
	handler http.Handler // the registry itself

	mu       sync.Mutex
	requests []string // "METHOD /path" as they came
}

type registryOptions struct {
	user, password string // asked for if set
	// lie may answer a request itself; it returns false to leave it to the registry.
	lie func(w http.ResponseWriter, r *http.Request) bool
	// refuse is the same for requests that are no GET.
	refuse func(w http.ResponseWriter, r *http.Request) bool
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

func newRegistry(o registryOptions) *registryServer {
	s := &registryServer{handler: registry.New(registry.Logger(quietLog()))}
	s.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		if o.user != "" {
			if u, p, ok := r.BasicAuth(); !ok || u != o.user || p != o.password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
				return
			}
		}
		if o.lie != nil && r.Method == http.MethodGet && o.lie(w, r) {
			return
		}
		if o.refuse != nil && r.Method != http.MethodGet && o.refuse(w, r) {
			return
		}
		s.handler.ServeHTTP(w, r)
	}))
	return s
}

func (s *registryServer) close() {
	if s != nil {
		s.srv.Close()
	}
}

// host is the registry's name, as it stands in references.
func (s *registryServer) host() string { return strings.TrimPrefix(s.srv.URL, "http://") }

// count returns how many requests had a prefix ("PUT /v2/app/manifests/").
func (s *registryServer) count(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// forget empties the list of requests.
func (s *registryServer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// inner talks to the registry behind credentials and lies.
type inner struct{ h http.Handler }

// RoundTrip answers from the handler.
func (i inner) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	i.h.ServeHTTP(rec, r)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// push puts an image into the registry as NAME:latest.
func (s *registryServer) push(repo string, img v1.Image) error {
	ref, err := name.ParseReference(s.host()+"/"+repo, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, img, remote.WithTransport(inner{s.handler})); err != nil {
		return fmt.Errorf("fill registry: %w", err)
	}
	return nil
}

// pull reads an image from the registry, past credentials and lies.
func (s *registryServer) pull(repo string) (v1.Image, error) {
	ref, err := name.ParseReference(s.host()+"/"+repo, name.Insecure)
	if err != nil {
		return nil, err
	}
	return remote.Image(ref, remote.WithTransport(inner{s.handler}))
}

// add serves the only image of a layout.
func (s *registryServer) add(repo, dir string) error {
	img, err := layoutImage(dir, "")
	if err != nil {
		return err
	}
	return s.push(repo, img)
}

// layoutImage returns the image of a layout that has a name, or its only one.
func layoutImage(dir, ref string) (v1.Image, error) {
	p, err := layout.FromPath(dir)
	if err != nil {
		return nil, err
	}
	idx, err := p.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		a := d.Annotations
		if ref == "" && len(m.Manifests) == 1 || a["io.containerd.image.name"] == ref || a["org.opencontainers.image.ref.name"] == ref {
			return p.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("%s: no image %q among %d", dir, ref, len(m.Manifests))
}

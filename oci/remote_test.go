package oci

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestResolve(t *testing.T) {
	f := newRegistry(t)
	single := imageFor(t, amd64)
	ref := f.put(t, "a/app:v1", single)
	multi := f.put(t, "a/multi", multiPlatform(t, platform(t, "linux/arm/v7"), amd64))
	r := testRemote(t, RemoteOptions{})
	digest, err := single.Digest()
	must(t, err)
	for _, ref := range []string{ref, f.host + "/a/app@" + digest.String(), multi} {
		img, err := r.Resolve(t.Context(), ref, amd64)
		if err != nil {
			t.Errorf("Resolve %s: %v", ref, err)
			continue
		}
		if img.Config.Architecture != "amd64" || img.Mismatch != nil || img.Layers[0].Repo == "" {
			t.Errorf("Resolve %s: got %s, %v, repo %q", ref, img.Config.Architecture, img.Mismatch, img.Layers[0].Repo)
		}
		if n := f.count("GET /v2/a/app/blobs"); n > 1 {
			t.Errorf("Resolve %s: got %d blobs, want the config only", ref, n)
		}
		checkLayers(t, img, 1)
		f.forget()
	}
	h, err := r.Head(t.Context(), ref)
	if err != nil || string(h) != digest.String() {
		t.Errorf("Head: got %s, %v, want %s", h, err, digest)
	}
	if n := f.count("GET"); n != 0 {
		t.Errorf("Head: got %d GETs, want none", n)
	}
	if _, err := r.Resolve(t.Context(), multi, platform(t, "linux/s390x")); !errors.Is(err, ErrPlatform) {
		t.Errorf("other platform: got %v, want ErrPlatform", err)
	}
}

func TestHeadWithoutDigest(t *testing.T) {
	f := newRegistry(t)
	img := imageFor(t, amd64)
	ref := f.put(t, "app", img)
	f.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return true
		}
		return false
	})
	want, err := img.Digest()
	must(t, err)
	got, err := testRemote(t, RemoteOptions{}).Head(t.Context(), ref)
	if err != nil || string(got) != want.String() {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// Each refusal has its sentinel, names image and registry, and is tried again
// only where that may help.
func TestRemoteRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		want   error
		tries  int
	}{
		{"unauthorized", 401, ErrUnauthorized, 1},
		{"forbidden", 403, ErrUnauthorized, 1},
		{"not found", 404, ErrNotFound, 1},
		{"rate limited", 429, ErrRateLimited, 4},
		{"server error", 500, ErrRegistry, 4},
		{"unavailable", 503, ErrRegistry, 4},
		{"teapot", 418, ErrRegistry, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newRegistry(t)
			ref := f.put(t, "app:v1", imageFor(t, amd64))
			f.handle(func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Retry-After", "3600")
				return strings.Contains(r.URL.Path, "/manifests/") && regError(w, tc.status, "CODE", "the registry's words")
			})
			_, err := testRemote(t, RemoteOptions{}).Resolve(t.Context(), ref, amd64)
			var re *RemoteError
			if !errors.Is(err, tc.want) || !errors.As(err, &re) || re.Host != f.host || re.Ref != ref {
				t.Fatalf("got %v, want %v with host and image", err, tc.want)
			}
			if !strings.Contains(err.Error(), "the registry's words") || !strings.Contains(err.Error(), fmt.Sprint(tc.status)) {
				t.Errorf("got %q, want the registry's words", err)
			}
			if got := f.count("/manifests/"); got != tc.tries {
				t.Errorf("tries: got %d, want %d", got, tc.tries)
			}
		})
	}
}

func TestPassingErrorsAreTriedAgain(t *testing.T) {
	f := newRegistry(t)
	ref := f.put(t, "app:v1", imageFor(t, amd64))
	var n atomic.Int32
	f.handle(func(w http.ResponseWriter, _ *http.Request) bool {
		if n.Add(1)%3 != 0 {
			return regError(w, 503, "UNAVAILABLE", "")
		}
		return false
	})
	img, err := testRemote(t, RemoteOptions{}).Resolve(t.Context(), ref, amd64)
	must(t, err)
	checkLayers(t, img, 1)
}

func TestUnreachable(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	host := l.Addr().String()
	must(t, l.Close())
	hang := newRegistry(t)
	hang.handle(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	plain := newRegistry(t)
	tlsServer := httptest.NewUnstartedServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = nil
	tlsServer.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	tlsServer.StartTLS()
	defer tlsServer.Close()
	other := func(s string) string { return strings.Replace(s, "127.0.0.1", "plain.test", 1) }
	for _, tc := range []struct {
		name, host string
		want       error
		text       string
	}{
		{"refused", host, ErrUnreachable, "connection refused"},
		{"no such host", "registry.invalid", ErrUnreachable, ""},
		{"no answer", hang.host, ErrUnreachable, "no answer in time"},
		{"plain HTTP elsewhere", other(plain.host), ErrTLS, ""},
		{"unknown authority", other(strings.TrimPrefix(tlsServer.URL, "https://")), ErrTLS, "certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := testRemote(t, RemoteOptions{})
			r.plain = dialLocal(r.plain)
			_, err := r.Resolve(t.Context(), tc.host+"/app", amd64)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %v with %q", err, tc.want, tc.text)
			}
		})
	}
	if n := plain.count(""); n != 0 {
		t.Errorf("plain HTTP registry that is not loopback: got %d requests, want none", n)
	}
}

// dialLocal makes *.test resolve to this machine.
func dialLocal(rt http.RoundTripper) http.RoundTripper {
	t := rt.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(host, ".test") {
			addr = "127.0.0.1:" + port
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return t
}

func TestInsecureWhereAsked(t *testing.T) {
	f := newRegistry(t)
	ref := f.put(t, "app:v1", imageFor(t, amd64))
	host := strings.Replace(f.host, "127.0.0.1", "plain.test", 1)
	r := testRemote(t, RemoteOptions{Insecure: []string{host}})
	r.lax = dialLocal(r.lax)
	if _, err := r.Resolve(t.Context(), strings.Replace(ref, "127.0.0.1", "plain.test", 1), amd64); err != nil {
		t.Errorf("got %v, want the image", err)
	}
}

// go-containerregistry alone would ask private addresses over plain HTTP.
func TestPlainHTTPIsRefused(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.8.9.1": true, "[::1]:5000": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "reg.localhost:5000": false, "localhost.evil.example": false, "docker.io": false,
	} {
		if got := NewRemote(RemoteOptions{}).insecure(host); got != want {
			t.Errorf("insecure(%q): got %v, want %v", host, got, want)
		}
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.0.0.1/v2/", nil)
	resp, err := (&guard{}).RoundTrip(req)
	if !errors.Is(err, errPlainHTTP) {
		t.Errorf("guard: got %v, %v, want errPlainHTTP", resp, err)
	}
	if resp != nil {
		must(t, resp.Body.Close())
	}
}

func TestCancelEndsWaits(t *testing.T) {
	f := newRegistry(t)
	ref := f.put(t, "app:v1", imageFor(t, amd64))
	ctx, cancel := context.WithCancel(t.Context())
	f.handle(func(w http.ResponseWriter, _ *http.Request) bool {
		cancel()
		return regError(w, 503, "UNAVAILABLE", "")
	})
	r := testRemote(t, RemoteOptions{})
	r.pace.waits = []time.Duration{time.Hour}
	if _, err := r.Resolve(ctx, ref, amd64); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestBasicAndBearerAuth(t *testing.T) {
	for _, kind := range []string{"basic", "bearer", "bearer that ends often"} {
		t.Run(kind, func(t *testing.T) {
			f := newRegistry(t)
			ref := f.put(t, "a/app:v1", imageFor(t, amd64))
			f.handle(basicAuth)
			auth := &bearerAuth{f: f, uses: 1000, left: map[string]int{}}
			if kind != "basic" {
				f.handle(auth.handle)
			}
			if kind == "bearer that ends often" {
				auth.uses = 1
			}
			r := testRemote(t, RemoteOptions{ConfigDir: dockerConfig(t, f.host, testPassword)})
			img, err := r.Resolve(t.Context(), ref, amd64)
			must(t, err)
			checkLayers(t, img, 1)
			auth.setUses(1000) // blobs are pushed side by side: one token serves them all
			b := build(t, img.Layers, AssembleOptions{})
			if _, err := r.Push(t.Context(), []string{f.host + "/b/app:v2"}, b, nil); err != nil {
				t.Errorf("Push: %v", err)
			}
			for name, dir := range map[string]string{
				"wrong password": dockerConfig(t, f.host, "wr0ng-secret"),
				"no credentials": t.TempDir(),
				"of other host":  dockerConfig(t, "other.example", testPassword),
			} {
				_, err := testRemote(t, RemoteOptions{ConfigDir: dir}).Resolve(t.Context(), ref, amd64)
				if !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "wr0ng-secret") {
					t.Errorf("%s: got %v, want ErrUnauthorized without the secret", name, err)
				}
			}
		})
	}
}

func TestCredentialHelpers(t *testing.T) {
	f := newRegistry(t)
	ref := f.put(t, "app:v1", imageFor(t, amd64))
	f.handle(basicAuth)
	bin := t.TempDir()
	helper := func(name, body string) {
		must(t, os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+body+"\n"), 0o700))
	}
	helper("good", fmt.Sprintf(`read h; [ "$h" = %s ] || { echo credentials not found in native keychain; exit 1; }; echo '{"ServerURL":"x","Username":%q,"Secret":%q}'`, f.host, testUser, testPassword))
	helper("broken", "echo the keychain is locked; exit 1")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, tc := range []struct {
		name, config string
		ok           bool
		text         string
	}{
		{"credHelpers", fmt.Sprintf(`{"credHelpers":{%q:"good"}}`, f.host), true, ""},
		{"credsStore", `{"credsStore":"good"}`, true, ""},
		{"broken helper", `{"credsStore":"broken"}`, false, "the keychain is locked"},
		{"missing helper", `{"credsStore":"missing"}`, false, "docker-credential-missing"},
		{"bad config", `{"auths":{"x":{"auth":"s3cr3t!"}}}`, false, "not a valid docker config"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := testRemote(t, RemoteOptions{ConfigDir: configDir(t, tc.config)}).Resolve(t.Context(), ref, amd64)
			if (err == nil) != tc.ok || err != nil && (!strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "s3cr3t")) {
				t.Errorf("got %v, want ok=%v with %q", err, tc.ok, tc.text)
			}
		})
	}
}

func TestConfigFilePlaces(t *testing.T) {
	docker, home, run := t.TempDir(), t.TempDir(), t.TempDir()
	for name, value := range map[string]string{"DOCKER_CONFIG": docker, "HOME": home, "XDG_RUNTIME_DIR": run, "XDG_CONFIG_HOME": "", "REGISTRY_AUTH_FILE": ""} {
		t.Setenv(name, value)
	}
	check := func(want string) {
		t.Helper()
		if got, err := NewRemote(RemoteOptions{}).configFile(); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	check("")
	for _, f := range []string{
		filepath.Join(home, ".config", "containers", "auth.json"), filepath.Join(run, "containers", "auth.json"), filepath.Join(docker, "config.json"),
	} {
		must(t, os.MkdirAll(filepath.Dir(f), 0o755))
		must(t, os.WriteFile(f, []byte("{}"), 0o600))
		check(f)
	}
	t.Setenv("DOCKER_CONFIG", "")
	check(filepath.Join(run, "containers", "auth.json"))
}

// No secret reaches an error: neither one that the registry repeats, nor the
// signed address of a blob store, nor a token server's answer.
func TestErrorsHoldNoSecrets(t *testing.T) {
	f := newRegistry(t)
	ref := f.put(t, "app:v1", imageFor(t, amd64))
	for name, h := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"echo": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "" {
				return basicAuth(w, r)
			}
			return regError(w, 403, "DENIED", "no: "+r.Header.Get("Authorization")+" "+testPassword)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, "http://127.0.0.1:1/blob?signature="+testPassword, http.StatusTemporaryRedirect)
				return true
			}
			return basicAuth(w, r)
		},
		"token": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/token" {
				_, err := io.WriteString(w, `{"refresh_token":"0nly-the-server-knows"}`)
				must2(err)
				return true
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token?k=%s"`, f.URL, testPassword))
			return regError(w, 401, "UNAUTHORIZED", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.handle(h)
			r := testRemote(t, RemoteOptions{ConfigDir: dockerConfig(t, f.host, testPassword)})
			_, err := r.Resolve(t.Context(), ref, amd64)
			for _, secret := range []string{testPassword, "Ym9iOnMzY3Iz", "0nly-the-server-knows"} {
				if err == nil || strings.Contains(err.Error(), secret) {
					t.Errorf("got %v, want an error without %q", err, secret)
				}
			}
		})
	}
}

// blobHandler replaces what a registry sends for the first layer of an image.
func blobHandler(t testing.TB, img v1.Image, send func(w http.ResponseWriter, r *http.Request, data []byte)) func(w http.ResponseWriter, r *http.Request) bool {
	t.Helper()
	layers, err := img.Layers()
	must(t, err)
	h, err := layers[0].Digest()
	must(t, err)
	rc, err := layers[0].Compressed()
	must(t, err)
	data, err := io.ReadAll(rc)
	must(t, err)
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, h.String()) {
			return false
		}
		send(w, r, data)
		return true
	}
}

func TestCutConnectionIsTakenUpAgain(t *testing.T) {
	img := randomImage(t, 300_000, 1)
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges=%v", ranges), func(t *testing.T) {
			f := newRegistry(t)
			ref := f.put(t, "app:v1", img)
			var n atomic.Int32
			f.handle(blobHandler(t, img, func(w http.ResponseWriter, r *http.Request, data []byte) {
				off := 0
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off); err == nil && ranges {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(data)-1, len(data)))
				} else {
					off = 0
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(data)-off))
				if off > 0 {
					w.WriteHeader(http.StatusPartialContent)
				}
				end := len(data)
				if i := int(n.Add(1)); i <= 3 {
					end = len(data) * i / 4
				}
				_, err := w.Write(data[off:end])
				must2(err)
			}))
			r := testRemote(t, RemoteOptions{})
			got, err := r.Resolve(t.Context(), ref, amd64)
			must(t, err)
			checkLayers(t, got, 1)
			if n.Load() != 4 {
				t.Errorf("requests: got %d, want 4", n.Load())
			}
		})
	}
}

// A connection that breaks again and again is taken up as long as it gets further.
func TestManyCuts(t *testing.T) {
	img := randomImage(t, 12*resumeStep, 1)
	f := newRegistry(t)
	ref := f.put(t, "app:v1", img)
	var n atomic.Int32
	f.handle(blobHandler(t, img, func(w http.ResponseWriter, r *http.Request, data []byte) {
		n.Add(1)
		off := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(data)-1, len(data)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-off))
		if off > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, err := w.Write(data[off:min(off+resumeStep+1, len(data))])
		must2(err)
	}))
	got, err := testRemote(t, RemoteOptions{}).Resolve(t.Context(), ref, amd64)
	must(t, err)
	checkLayers(t, got, 1)
	if n.Load() <= maxResumes {
		t.Errorf("requests: got %d, want more than %d", n.Load(), maxResumes)
	}
}

func TestBadBlobs(t *testing.T) {
	img := randomImage(t, 100_000, 1)
	for _, tc := range []struct {
		name string
		send func(w http.ResponseWriter, r *http.Request, data []byte)
		want error
	}{
		{"other bytes", func(w http.ResponseWriter, _ *http.Request, data []byte) {
			_, err := w.Write(bytes.Repeat([]byte{7}, len(data)))
			must2(err)
		}, ErrDigest},
		{"longer", func(w http.ResponseWriter, _ *http.Request, data []byte) {
			_, err := w.Write(append(bytes.Clone(data), 1))
			must2(err)
		}, ErrDigest},
		{"shorter", func(w http.ResponseWriter, _ *http.Request, data []byte) {
			_, err := w.Write(data[1:])
			must2(err)
		}, ErrDigest},
		{"gone", func(w http.ResponseWriter, _ *http.Request, _ []byte) { regError(w, 404, "BLOB_UNKNOWN", "") }, ErrNotFound},
		{"unavailable for ever", func(w http.ResponseWriter, _ *http.Request, _ []byte) { regError(w, 503, "UNAVAILABLE", "") }, ErrRegistry},
		{"rate limited for ever", func(w http.ResponseWriter, _ *http.Request, _ []byte) { regError(w, 429, "TOOMANYREQUESTS", "") }, ErrRateLimited},
		{"always cut", func(w http.ResponseWriter, _ *http.Request, data []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, err := w.Write(data[:10])
			must2(err)
		}, ErrUnreachable},
		{"stalls", func(w http.ResponseWriter, r *http.Request, data []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, err := w.Write(data[:10])
			must2(err)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, ErrUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newRegistry(t)
			ref := f.put(t, "app:v1", img)
			f.handle(blobHandler(t, img, tc.send))
			got, err := testRemote(t, RemoteOptions{}).Resolve(t.Context(), ref, amd64)
			must(t, err)
			_, err = readLayer(t, got.Layers[0])
			if want := "pull " + ref; !errors.Is(err, tc.want) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %v with %q", err, tc.want, want)
			}
		})
	}
}

func TestBadManifests(t *testing.T) {
	img := imageFor(t, amd64)
	h, err := img.Digest()
	must(t, err)
	for _, tc := range []struct {
		name, tag, mediaType, body string
		want                       error
	}{
		{"digest mismatch", "@" + h.String(), string(types.DockerManifestSchema2), `{"schemaVersion":2}`, ErrDigest},
		{"huge", ":v1", string(types.DockerManifestSchema2), strings.Repeat(" ", 5<<20), ErrTooLarge},
		{"schema 1", ":v1", string(types.DockerManifestSchema1Signed), `{"schemaVersion":1}`, ErrUnsupported},
		{"HTML", ":v1", "text/html", `<html>`, ErrInvalid},
		{"huge config", ":v1", string(types.OCIManifestSchema1), `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":9000000,"digest":"sha256:` + someHex + `"},"layers":[]}`, ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newRegistry(t)
			f.put(t, "app:v1", img)
			f.handle(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				w.Header().Set("Content-Type", tc.mediaType)
				_, err := io.WriteString(w, tc.body)
				must2(err)
				return true
			})
			if _, err := testRemote(t, RemoteOptions{}).Resolve(t.Context(), f.host+"/app"+tc.tag, amd64); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// A registry may send blobs from elsewhere; the credentials stay at home.
func TestRedirectWithoutCredentials(t *testing.T) {
	f := newRegistry(t)
	img := imageFor(t, amd64)
	ref := f.put(t, "app:v1", img)
	var mu sync.Mutex
	var seen []string
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Header.Get("Authorization"))
		mu.Unlock()
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, f.URL+r.URL.Path+"?direct=1", http.NoBody)
		must2(err)
		resp, err := http.DefaultClient.Do(req)
		must2(err)
		_, err = io.Copy(w, resp.Body)
		must2(errors.Join(err, resp.Body.Close()))
	}))
	defer store.Close()
	f.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("direct") != "" {
			return false
		}
		if basicAuth(w, r) {
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, store.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	r := testRemote(t, RemoteOptions{ConfigDir: dockerConfig(t, f.host, testPassword)})
	got, err := r.Resolve(t.Context(), ref, amd64)
	must(t, err)
	checkLayers(t, got, 1)
	for _, a := range seen {
		if a != "" {
			t.Errorf("blob store: got Authorization %q, want none", a)
		}
	}
	if len(seen) != 2 {
		t.Errorf("blob store: got %d requests, want 2", len(seen))
	}
}

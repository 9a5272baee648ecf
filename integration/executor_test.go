//go:build integration

package integration

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// secondMachine is a home whose store is another one.
func (h *home) secondMachine(name string) []string {
	return []string{"executor", "--root", filepath.Join(h.dir, ".data", name), "--context", ".", "--log-format=text"}
}

// busyRegistry serves busybox.
func busyRegistry(t *testing.T, o registryOptions) *registryServer {
	t.Helper()
	reg := newRegistry(o)
	t.Cleanup(reg.close)
	if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
		t.Fatal(err)
	}
	return reg
}

// TestExecutorRequests: what the machine that comes second asks a registry, and
// how several destinations share what is sent.
func TestExecutorRequests(t *testing.T) {
	for _, l := range legs(t.Name()) {
		t.Run(l.String(), func(t *testing.T) {
			reg := busyRegistry(t, registryOptions{})
			h := newHome(t, l)
			h.dockerfile("FROM "+reg.host()+"/busybox", "RUN head -c 100000 /dev/urandom > /r", "RUN true", "COPY Dockerfile /d", "RUN cat /r /r > /rr")
			args := []string{"-d", reg.host() + "/app:1", "--cache"}
			h.ok(append(h.secondMachine("first"), args...)...)
			reg.forget()
			r := h.ok(append(h.secondMachine("second"), args...)...)
			if n := strings.Count(r.stderr, "Using caching version of cmd"); n != 4 {
				t.Errorf("second machine: got %d steps from the cache, want 4\n%s", n, r.stderr)
			}
			// Of each entry manifest and config; of no image a layer. The tag is that image already.
			for prefix, want := range map[string]int{
				"GET /v2/app/cache/manifests/": 4, "GET /v2/app/cache/blobs/": 4, "GET /v2/busybox/blobs/": 1,
				"PATCH /v2/": 0, "PUT /v2/app/cache/": 0, "PUT /v2/app/manifests/1": 0,
			} {
				if got := reg.count(prefix); got != want {
					t.Errorf("second machine: got %d requests %s, want %d", got, prefix, want)
				}
			}
			reg.forget()
			h.ok(append(h.secondMachine("first"), "-d", reg.host()+"/a:1", "-d", reg.host()+"/a:2", "-d", reg.host()+"/b:1", "--cache")...)
			for prefix, want := range map[string]int{"PUT /v2/a/manifests/": 2, "PUT /v2/b/manifests/1": 1, "PUT /v2/b/blobs/uploads/": 0} {
				if got := reg.count(prefix); got != want {
					t.Errorf("several destinations: got %d requests %s, want %d", got, prefix, want)
				}
			}
		})
	}
}

// LAWS 10, 34: a cache repository that lies, or lost a layer, costs the time of
// the steps and never the build.
func TestExecutorLyingCache(t *testing.T) {
	type lie = func(w http.ResponseWriter, r *http.Request) bool
	in := func(part string, fn func(w http.ResponseWriter)) lie {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/cache/"+part) {
				return false
			}
			fn(w)
			return true
		}
	}
	tests := []struct {
		name string
		lie  lie
		want string
	}{
		{"no manifest", in("manifests/", func(w http.ResponseWriter) { _, _ = w.Write([]byte("{")) }), "cache repository"},
		{"no blobs", in("blobs/", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }), ""},
		{"other blobs", in("blobs/", func(w http.ResponseWriter) { _, _ = w.Write([]byte("lies")) }), "cache repository"},
		{"refused", in("manifests/", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }), "cache repository"},
	}
	h := newHome(t, coveringLegs(t.Name())[0])
	var now lie
	reg := busyRegistry(t, registryOptions{lie: func(w http.ResponseWriter, r *http.Request) bool { return now != nil && now(w, r) }})
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one", "RUN cat /one; echo ran-two")
	args := []string{"-d", reg.host() + "/app:1", "--cache"}
	h.ok(append(h.secondMachine("first"), args...)...)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now = tt.lie
			r := h.ok(append(h.secondMachine(fmt.Sprint("liar", i)), args...)...)
			now = nil
			if !strings.Contains(r.stderr, "\nran-one\n") || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("got no run of the step and a word that holds %q in\n%s", tt.want, r.stderr)
			}
		})
	}
	t.Run("a layer that is gone", func(t *testing.T) {
		h.ok(append(h.secondMachine("again"), args...)...) // entries that are whole
		h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one", "RUN cat /one; echo ran-other")
		gone := layerOf(t, reg, "app:1")
		now = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, gone) {
				return false
			}
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		r := h.ok(append(h.secondMachine("loser"), args...)...)
		now = nil
		for _, want := range []string{"building without it", "\nran-one\n", "\nran-other\n"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("got no %q in\n%s", want, r.stderr)
			}
		}
	})
}

// layerOf is the digest of an image's second layer.
func layerOf(t *testing.T, reg *registryServer, repo string) string {
	t.Helper()
	img, err := reg.pull(repo)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil || len(m.Layers) < 2 {
		t.Fatalf("layers of %s: got %v, %v", repo, m, err)
	}
	return m.Layers[1].Digest.String()
}

// TestExecutorCredentials: the secret of a pod in each form, never shown; and a
// destination that is not allowed is told of before the first step.
func TestExecutorCredentials(t *testing.T) {
	const password = "secret-word-1234"
	reg := busyRegistry(t, registryOptions{user: "me", password: password})
	auth := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	config := func(auth string) string { return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host(), auth) }
	put := func(h *home, name, text string) {
		t.Helper()
		p := filepath.Join(h.dir, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if err == nil {
			err = os.WriteFile(p, []byte(text), 0o644)
		}
		if err == nil {
			err = h.give(h.dir)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, file string
		set        func(h *home) []string
	}{
		{"DOCKER_CONFIG", ".docker/config.json", nil},
		{"a secret without items", ".docker/.dockerconfigjson", nil},
		{"DOCKER_CONFIG is a file", "auth.json", func(h *home) []string {
			h.env = append(h.env, "DOCKER_CONFIG="+filepath.Join(h.dir, "auth.json"))
			return nil
		}},
		{"DOCKER_AUTH_CONFIG", "unused", func(h *home) []string {
			h.env = append(h.env, "DOCKER_AUTH_CONFIG="+config(auth))
			return nil
		}},
		{"--kaniko-dir", "kaniko/.docker/config.json", func(h *home) []string { return []string{"--kaniko-dir", filepath.Join(h.dir, "kaniko")} }},
		{"KANIKO_DIR", "kaniko/.docker/config.json", func(h *home) []string {
			h.env = append(h.env, "KANIKO_DIR="+filepath.Join(h.dir, "kaniko"))
			return nil
		}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := legs(t.Name())
			h := newHome(t, all[i%len(all)])
			put(h, tt.file, config(auth))
			var more []string
			if tt.set != nil {
				more = tt.set(h)
			}
			h.dockerfile("FROM "+reg.host()+"/busybox", "RUN ! env | grep -i docker; echo ran")
			args := append([]string{"executor", "-c", ".", "-d", reg.host() + "/private:1", "-v", "trace", "--cache"}, more...)
			r := h.ok(args...)
			if _, err := reg.pull("private:1"); err != nil {
				t.Errorf("pull what was pushed: %v", err)
			}
			if strings.Contains(r.stderr, password) || strings.Contains(r.stderr, auth) {
				t.Errorf("the log shows the password:\n%s", r.stderr)
			}
		})
	}
	t.Run("not allowed", func(t *testing.T) {
		open := busyRegistry(t, registryOptions{})
		h := newHome(t, coveringLegs(t.Name())[0])
		h.dockerfile("FROM "+open.host()+"/busybox", "RUN echo ran")
		r := h.fails(1, "check push permission", "config.json", "executor", "-c", ".", "-d", reg.host()+"/private:1")
		if strings.Contains(r.stderr, "ran") {
			t.Errorf("the step ran before the push was known to be refused:\n%s", r.stderr)
		}
		r = h.run("executor", "-c", ".", "-d", reg.host()+"/private:1", "--skip-push-permission-check")
		if r.code != 1 || !strings.Contains(r.stderr, "ran") {
			t.Errorf("--skip-push-permission-check: got exit code %d, want 1 after the step\n%s", r.code, r.stderr)
		}
	})
}

// TestExecutorName: a binary called executor is kaniko's executor.
func TestExecutorName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kaniko", "executor")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(suite.bin, path); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY Dockerfile /\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(t.Context(), path, "--context", dir, "--no-push", "--log-format=json", "--root", filepath.Join(dir, "store"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("executor: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var l struct{ Level, Msg, Time string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level == "" || l.Msg == "" || l.Time == "" {
			t.Errorf("line of the log: got %q, %v, want level, msg and time", line, err)
		}
	}
}

// unknownTLS serves a registry with a certificate that nobody signed, and not on
// the loopback interface, which is trusted.
func unknownTLS(t *testing.T, h http.Handler) (host string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ownAddress(t), "0"))
	if err == nil {
		err = srv.Listener.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener = l
	srv.Config.ErrorLog = quietLog()
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "https://")
}

// TestExecutorInsecure: registries without a known certificate are refused until
// a flag allows them, each flag for what it says.
func TestExecutorInsecure(t *testing.T) {
	reg := busyRegistry(t, registryOptions{})
	host := unknownTLS(t, reg.handler)
	h := newHome(t, coveringLegs(t.Name())[0])
	push := []string{"executor", "-c", ".", "--cache", "-d", host + "/app:1"}
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN true")
	h.fails(1, host, "", push...)
	h.fails(1, host, "", append(push, "--skip-tls-verify-pull")...)
	for _, flag := range []string{"--skip-tls-verify", "--insecure", "--skip-tls-verify-registry=" + host, "--insecure-registry=" + host} {
		h.ok(append(push, flag)...)
	}
	h.dockerfile("FROM "+host+"/busybox", "RUN true")
	pull := []string{"executor", "-c", ".", "--no-push"}
	h.fails(1, host, "", append(pull, "--insecure")...)
	for _, flag := range []string{"--skip-tls-verify-pull", "--insecure-pull"} {
		h.ok(append(pull, flag)...)
	}
	ref, err := name.ParseReference(reg.host()+"/app/cache", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	tags, err := remote.List(ref.Context(), remote.WithTransport(inner{reg.handler}))
	if err != nil || len(tags) == 0 {
		t.Errorf("tags of the cache: got %q, %v", tags, err)
	}
}

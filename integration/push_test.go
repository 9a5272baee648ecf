//go:build integration

package integration

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestRequests: a base is fetched only as far as a step needs it, a no-change
// rebuild asks the registry nothing, and a second push sends no blob.
func TestRequests(t *testing.T) {
	for _, l := range legs(t.Name()) {
		t.Run(l.String(), func(t *testing.T) {
			reg := newRegistry(registryOptions{})
			defer reg.close()
			if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
				t.Fatal(err)
			}
			h := newHome(t, l)
			count := func(want int, prefix, what string) {
				t.Helper()
				if got := reg.count(prefix); got != want {
					t.Errorf("%s: got %d requests %s, want %d", what, got, prefix, want)
				}
			}
			reg.forget()
			h.dockerfile("FROM "+reg.host()+"/busybox", "ENV A=1", "CMD true")
			h.ok("build", "--push", "-t", reg.host()+"/busybox:env", ".")
			count(1, "GET /v2/busybox/blobs/", "no step needs a file: only the config")
			count(0, "PATCH /v2/", "the base's layer is there already")

			h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo x > /x", "COPY Dockerfile /d")
			h.ok("build", "--push", "-t", reg.host()+"/app:1", ".")
			img, err := reg.pull("app:1")
			if err != nil {
				t.Fatal(err)
			}
			if layers, err := img.Layers(); err != nil || len(layers) != 3 {
				t.Errorf("pushed image: got %d layers, %v, want 3", len(layers), err)
			}

			reg.forget()
			h.ok("build", "-t", "local", ".")
			count(0, "", "no-change rebuild")
			h.ok("build", "--push", "-t", reg.host()+"/app:1", ".")
			count(1, "HEAD /v2/app/manifests/1", "second push")
			count(2, "", "second push") // and the one that finds out how to log in

			reg.forget()
			h.ok("build", "--pull", "-t", "local", ".")
			if reg.count("HEAD /v2/busybox/manifests/latest")+reg.count("GET /v2/busybox/manifests/latest") == 0 {
				t.Error("--pull: the registry was not asked")
			}
			if n := reg.count("GET /v2/busybox/blobs/"); n > 1 {
				t.Errorf("--pull of what is known: got %d requests for blobs, want at most that for the config", n)
			}
		})
	}
}

// TestPushWhileStepsRun: a layer is in the registry before the next step has ended, and
// stays there where that fails.
func TestPushWhileStepsRun(t *testing.T) {
	for _, l := range legs(t.Name()) {
		t.Run(l.String(), func(t *testing.T) {
			reg := newRegistry(registryOptions{})
			defer reg.close()
			if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
				t.Fatal(err)
			}
			asked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if reg.count("PUT /v2/app/blobs/") == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}))
			defer asked.Close()
			h := newHome(t, l)
			h.dockerfile("FROM "+reg.host()+"/busybox AS other", "RUN echo other > /other",
				"FROM "+reg.host()+"/busybox", "RUN head -c 6000000 /dev/urandom > /large",
				"ARG WANT", "RUN until wget -q -O /dev/null "+asked.URL+"; do sleep 0.1; done; exit $WANT",
				"COPY --from=other /other /")
			h.fails(1, "exit code: 3", "", "build", "--push", "-t", reg.host()+"/app:1", "--build-arg=WANT=3", ".")
			r := h.ok("build", "--push", "-t", reg.host()+"/app:1", "--build-arg=WANT=0", ".")
			if ran := strings.Join(ranSteps(r.stderr), "\n"); strings.Contains(ran, "RUN head") {
				t.Errorf("after the failure: got %q run, want what was done before to be there", ran)
			}
			if n := reg.count("PATCH /v2/app/blobs/"); n != 1 {
				t.Errorf("the large layer: got %d uploads, want one", n)
			}
			img, err := reg.pull("app:1")
			if err != nil {
				t.Fatal(err)
			}
			if layers, err := img.Layers(); err != nil || len(layers) != 3 {
				t.Errorf("pushed image: got %d layers, %v, want 3", len(layers), err)
			}
			// Of the two stages' layers only those of the image are there: the base, two, and a config.
			if n := reg.count("PUT /v2/app/blobs/") + reg.count("POST /v2/app/blobs/uploads/?mount"); n > 4 {
				t.Errorf("blobs: got %d sent, want four at most", n)
			}
		})
	}
}

// TestMovedTag: a tag that moved is seen with --pull, and not before.
func TestMovedTag(t *testing.T) {
	reg := newRegistry(registryOptions{})
	defer reg.close()
	h := newHome(t, coveringLegs(t.Name())[0])
	for _, v := range []string{"one", "two"} {
		dir := filepath.Join(h.dir, v)
		withLayer(t, dir, mustTar(t, file{name: "version", data: v, mode: 0o644}))
		if err := reg.add("base", dir); err != nil {
			t.Fatal(err)
		}
		h.dockerfile("FROM "+reg.host()+"/base", "RUN cp /version /seen")
		h.ok("build", "-t", "moved", ".")
		if got := h.cat("moved", "seen"); got != "one" {
			t.Errorf("after %s, without --pull: got %q, want the base known, one", v, got)
		}
		h.ok("build", "--pull", "-t", "moved", ".")
		if got := h.cat("moved", "seen"); got != v {
			t.Errorf("with --pull: got %q, want %q", got, v)
		}
	}
}

// TestInsecureRegistry: a certificate that nobody signed is refused unless the
// host is named.
func TestInsecureRegistry(t *testing.T) {
	reg := newRegistry(registryOptions{})
	defer reg.close()
	if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(reg.handler.ServeHTTP))
	// The loopback interface is trusted, as docker has it, so this needs another one.
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ownAddress(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	srv.Listener = l
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	srv.Config.ErrorLog = quietLog()
	srv.StartTLS()
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "https://")
	h := newHome(t, coveringLegs(t.Name())[0])
	h.dockerfile("FROM "+host+"/busybox", "RUN true")
	h.fails(1, host, "--insecure", "build", ".")
	h.ok("build", "--insecure", host, ".")
}

// ownAddress is an address of this machine that is not loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has the loopback interface only")
	return ""
}

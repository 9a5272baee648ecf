//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// machine is the arguments of a build on a store of its own.
func (h *home) machine(name string, args ...string) []string {
	return append([]string{"--root", filepath.Join(h.dir, ".data", name), "build", "--progress=plain"}, append(args, ".")...)
}

// sharedFile is a build of several stages on busybox.
func sharedFile(reg *registryServer) []string {
	return []string{
		"FROM " + reg.host() + "/busybox AS build", "RUN head -c 300000 /dev/urandom > /big; echo ran-build", "COPY Dockerfile /d",
		"FROM " + reg.host() + "/busybox", "COPY --from=build /big /big", "RUN md5sum /big > /sum; echo ran-sum", "COPY extra /extra",
	}
}

// traffic is what a registry was asked for, of a repository.
func (s *registryServer) traffic(repo string) (gets, uploads int) {
	return s.count("GET /v2/" + repo + "/"), s.count("PUT /v2/" + repo + "/blobs/")
}

// TestSharedCacheTraffic: on a fresh machine nothing runs and no layer moves, in few
// requests; what is there is not sent again; what another
// repository has is mounted.
func TestSharedCacheTraffic(t *testing.T) {
	reg := busyRegistry(t, registryOptions{})
	h := newHome(t, coveringLegs(t.Name())[0])
	h.write(map[string]string{"extra": "one"})
	h.dockerfile(sharedFile(reg)...)
	cache := reg.host() + "/cache:main"
	push := []string{"--push", "-t", reg.host() + "/app:1"}
	to := append(slices.Clone(push), "--cache-to", "type=registry,mode=max,ref="+cache)
	h.ok(h.machine("first", to...)...)
	reg.forget()
	h.ok(h.machine("first", to...)...)
	if _, n := reg.traffic("cache"); n != 0 || reg.count("PUT /v2/cache/") != 0 {
		t.Errorf("an unchanged build: got %d uploads and %d manifests, want none", n, reg.count("PUT /v2/cache/"))
	}

	reg.forget()
	began := time.Now()
	r := h.ok(h.machine("second", append(slices.Clone(push), "--cache-from", cache)...)...)
	took := time.Since(began)
	if ran := ranSteps(r.stderr); len(ran) > 0 {
		t.Errorf("fresh machine: steps that ran: %q\n%s", ran, r.stderr)
	}
	layers := 0
	for _, d := range manifestBlobs(t, reg, "app:1") {
		layers += reg.count("GET /v2/busybox/blobs/"+d) + reg.count("GET /v2/cache/blobs/"+d) + reg.count("GET /v2/app/blobs/"+d)
	}
	// The cache: its manifest and its list.
	if gets, _ := reg.traffic("cache"); layers != 0 || gets != 2 || reg.count("PUT /v2/app/blobs/") != 0 {
		t.Errorf("fresh machine: got %d layers, %d requests to the cache, %d uploads; want none, 2 and none", layers, gets, reg.count("PUT /v2/app/blobs/"))
	}
	t.Logf("fresh machine, nothing changed: %v", took)

	// One step more: its layer, its index, the list.
	h.write(map[string]string{"extra": "two"})
	reg.forget()
	h.ok(h.machine("first", to...)...)
	if _, n := reg.traffic("cache"); n > 3 {
		t.Errorf("one changed step: got %d uploads, want its layer (mounted or sent), its index and the list", n)
	}
	// Another repository of the same registry.
	reg.forget()
	h.ok(h.machine("second", "--cache-from", cache, "--cache-to", "type=registry,ref="+reg.host()+"/other:c", "-o", "type=registry,name="+reg.host()+"/app:2")...)
	if n := reg.count("GET /v2/cache/blobs/sha256:"); n > 8 {
		t.Errorf("into another repository: got %d blobs of the first, want its list and the small ones", n)
	}
}

// ranRE is what the steps of TestSharedCacheTraced say when they run.
var ranRE = regexp.MustCompile(`(?m)^#\d+ [\d.]+ ran-`)

// TestSharedCacheTraced: a fresh machine on which a file of the context changed runs
// nothing that did not look at it, and fetches no result; where nothing must be copied
// it fetches no layer at all.
func TestSharedCacheTraced(t *testing.T) {
	tests := []struct {
		name   string
		lines  []string
		traced int
		layers int // from the top, that are not fetched
	}{
		{"copied", []string{"WORKDIR /src", "COPY app .", "RUN cp lock /installed; echo ran-a", "RUN cat /installed > /built; echo ran-b"}, 2, 2},
		{"bound", []string{"RUN --mount=type=bind,source=app,target=/src cp /src/lock /installed; echo ran-a", "RUN cat /installed > /built; echo ran-b"}, 1, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := busyRegistry(t, registryOptions{})
			l := coveringLegs(t.Name())[0]
			l.recorder = "fuse" // walk has no traces
			h := newHome(t, l)
			text := strings.Join(append([]string{"FROM " + reg.host() + "/busybox"}, tt.lines...), "\n")
			h.write(map[string]string{"app/lock": "one", "app/main": "one", "Dockerfile": text})
			cache := reg.host() + "/cache:main"
			h.ok(h.machine("first", "--push", "-t", reg.host()+"/app:1", "--cache-to", "type=registry,mode=min,ref="+cache)...)
			h.write(map[string]string{"app/main": "two"})
			reg.forget()
			r := h.ok(h.machine("second", "--push", "-t", reg.host()+"/app:2", "--cache-from", cache, "--cache-to", "type=registry,ref="+cache)...)
			if n := strings.Count(r.stderr, " CACHED (traced"); n < tt.traced || ranRE.MatchString(r.stderr) || strings.Contains(r.stderr, "WARN") {
				t.Errorf("got %d steps reused by trace, want %d, none that runs and no warning\n%s", n, tt.traced, r.stderr)
			}
			all := manifestBlobs(t, reg, "app:1")
			for _, d := range all[len(all)-tt.layers:] {
				for _, repo := range []string{"busybox", "cache", "app"} {
					if n := reg.count("GET /v2/" + repo + "/blobs/" + d); n > 0 {
						t.Errorf("fetched a layer from %s: %s of %q\n%s", repo, d, all, r.stderr)
					}
				}
			}
			// What it stored in turn serves a third.
			r = h.ok(h.machine("third", "--push", "-t", reg.host()+"/app:3", "--cache-from", cache)...)
			if ranRE.MatchString(r.stderr) || strings.Contains(r.stderr, "WARN") {
				t.Errorf("a third machine: want no step that runs, and no warning\n%s", r.stderr)
			}
		})
	}
}

// manifestBlobs are the digests of an image's layers.
func manifestBlobs(t *testing.T, reg *registryServer, ref string) []string {
	t.Helper()
	img, err := reg.pull(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range m.Layers {
		out = append(out, l.Digest.String())
	}
	return out
}

// LAWS 10, 34: a cache that lies costs the time of the steps, never the build, and is
// never in the image.
func TestSharedCacheHostile(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	var now func(w http.ResponseWriter, r *http.Request) bool
	liar := &lieServer{}
	reg := busyRegistry(t, registryOptions{lie: func(w http.ResponseWriter, r *http.Request) bool {
		return now != nil && strings.HasPrefix(r.URL.Path, "/v2/cache/") && liar.serve(w, r)
	}})
	liar.reg = reg
	liar.lie = func(w http.ResponseWriter, r *http.Request) bool { return now(w, r) }
	h.write(map[string]string{"extra": "one"})
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one", "RUN cat /one; echo ran-two")
	cache := reg.host() + "/cache:main"
	h.ok(h.machine("first", "--cache-to", "type=registry,mode=max,ref="+cache)...)
	other := strings.Repeat("a", 64)
	// manifest changes the manifest, list the list, with a manifest that fits it.
	manifest := func(change func([]byte) []byte) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/manifests/") && serveChanged(w, r, change)
		}
	}
	blob := func(change func([]byte) []byte) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/blobs/") && serveChanged(w, r, change)
		}
	}
	tests := []struct {
		name string
		lie  func(w http.ResponseWriter, r *http.Request) bool
		list func(list map[string]any)
		want string
	}{
		{name: "no manifest", lie: manifest(func([]byte) []byte { return []byte("{") }), want: "nothing is taken"},
		{name: "an empty manifest", lie: manifest(func([]byte) []byte { return nil }), want: "nothing is taken"},
		{name: "a huge manifest", lie: manifest(func([]byte) []byte { return bytes.Repeat([]byte(" "), 5<<20) }), want: "nothing is taken"},
		{name: "an index that names itself", lie: manifest(func([]byte) []byte {
			return fmt.Appendf(nil, `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":9,"digest":"sha256:%s","platform":{"os":"linux","architecture":"amd64"}}]}`, other)
		}), want: "nothing is taken"},
		{name: "another list than its digest", lie: blob(func(b []byte) []byte { return append(b, ' ') }), want: "nothing is taken"},
		{name: "a list cut short", lie: blob(func(b []byte) []byte { return b[:len(b)/2] }), want: "nothing is taken"},
		{name: "no list", lie: func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}, want: "nothing is taken"},
		{name: "refused", lie: func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, want: "nothing is taken"},
		// What a list may say is in package build: TestCacheLies.
		{name: "strange kinds", list: eachListed(func(e map[string]any) { e["kind"] = "other" }), want: "make no sense"},
		{name: "values in blobs that are not there", list: eachListed(func(e map[string]any) {
			delete(e, "value")
			e["blob"] = map[string]any{"mediaType": "x", "size": 10, "digest": "sha256:" + other}
		}), want: "it is not used"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now = tt.lie
			if tt.list != nil {
				now = lieList(t, reg, "cache:main", tt.list)
			}
			defer func() { now = nil }()
			r := h.ok(h.machine(fmt.Sprint("liar", i), "--cache-from", cache, "-t", "x")...)
			if !strings.Contains(r.stderr, " ran-one\n") || !strings.Contains(r.stderr, " ran-two\n") || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("want both steps to run, and a word of %q in\n%s", tt.want, r.stderr)
			}
		})
	}
	t.Run("a layer that is another", func(t *testing.T) {
		h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one", "RUN cat /one; echo ran-three")
		now = func(w http.ResponseWriter, r *http.Request) bool {
			return serveChanged(w, r, func(b []byte) []byte {
				if len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b {
					b[len(b)-1] ^= 1
				}
				return b
			})
		}
		defer func() { now = nil }()
		r := h.ok(h.machine("bad", "--cache-from", cache, "-t", "x")...)
		for _, want := range []string{"building without it", " ran-one\n", " ran-three\n"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("got no %q in\n%s", want, r.stderr)
			}
		}
	})
}

func eachListed(fn func(e map[string]any)) func(map[string]any) {
	return func(list map[string]any) {
		entries, _ := list["entries"].([]any)
		for _, e := range entries {
			fn(e.(map[string]any))
		}
	}
}

func eachValue(fn func(v map[string]any)) func(map[string]any) {
	return eachListed(func(e map[string]any) {
		if v, ok := e["value"].(map[string]any); ok {
			fn(v)
		}
	})
}

// lieList serves a cache whose list was changed, and a manifest that fits it.
func lieList(t *testing.T, reg *registryServer, ref string, change func(map[string]any)) func(w http.ResponseWriter, r *http.Request) bool {
	t.Helper()
	repo, tag, _ := strings.Cut(ref, ":")
	get := func(path string) []byte {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry/v2/"+repo+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
		resp, err := inner{reg.handler}.RoundTrip(req) //nolint:bodyclose // of a recorder
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var m v1.Manifest
	if err := json.Unmarshal(get("/manifests/"+tag), &m); err != nil {
		t.Fatal(err)
	}
	list := map[string]any{}
	if err := json.Unmarshal(get("/blobs/"+m.Config.Digest.String()), &list); err != nil {
		t.Fatal(err)
	}
	change(list)
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if m.Config.Digest, m.Config.Size, err = v1.SHA256(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/manifests/"+tag):
			return serveChanged(w, r, func([]byte) []byte { return raw })
		case strings.HasSuffix(r.URL.Path, m.Config.Digest.String()):
			w.WriteHeader(http.StatusOK)
			_, _ = w.(*honest).Write(data)
			return true
		}
		return false
	}
}

// TestSharedCacheKilled: a build that is killed while it stores its cache leaves the
// earlier one whole.
func TestSharedCacheKilled(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	h.damaged = true
	var armed atomic.Bool
	reached := make(chan struct{}, 16)
	hold := make(chan struct{})
	reg := busyRegistry(t, registryOptions{refuse: func(_ http.ResponseWriter, r *http.Request) bool {
		if armed.Load() && r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/v2/cache/blobs/") {
			reached <- struct{}{}
			<-hold
		}
		return false
	}})
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one")
	cache := reg.host() + "/cache:main"
	h.ok(h.machine("first", "--cache-to", "type=registry,ref="+cache)...)
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one", "RUN echo two > /two")
	armed.Store(true)
	cmd := h.command(h.machine("first", "--cache-to", "type=registry,ref="+cache)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	armed.Store(false)
	close(hold)
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one")
	r := h.ok(h.machine("second", "--cache-from", cache)...)
	if ran := ranSteps(r.stderr); len(ran) > 0 {
		t.Errorf("after a kill: steps that ran: %q\n%s", ran, r.stderr)
	}
}

// TestSharedCacheTwoWriters: of two builds that store at once both have their results
// in a directory, and in a registry at least one has, and the cache is whole.
func TestSharedCacheTwoWriters(t *testing.T) {
	reg := busyRegistry(t, registryOptions{})
	h := newHome(t, coveringLegs(t.Name())[0])
	dir := filepath.Join(h.dir, ".data", "shelf")
	ref := reg.host() + "/cache:main"
	files := map[string]string{}
	for _, name := range []string{"a", "b"} {
		files[name+".Dockerfile"] = fmt.Sprintf("FROM %s/busybox\nRUN echo %s > /%s\n", reg.host(), name, name)
	}
	h.write(files)
	type end struct {
		name string
		r    result
	}
	ends := make(chan end, 2)
	for _, name := range []string{"a", "b"} {
		cmd := h.command(h.machine("store-"+name, "-f", name+".Dockerfile", "--cache-to", "type=local,dest="+dir, "--cache-to", "type=registry,ref="+ref)...)
		go func() {
			out, err := cmd.CombinedOutput()
			r := result{stderr: string(out)}
			if err != nil {
				r.code = 1
			}
			ends <- end{name, r}
		}()
	}
	for range 2 {
		if e := <-ends; e.r.code != 0 {
			t.Fatalf("build %s: %s", e.name, e.r.stderr)
		}
	}
	hits := 0
	for _, name := range []string{"a", "b"} {
		r := h.ok(h.machine("local-"+name, "-f", name+".Dockerfile", "--cache-from", "type=local,src="+dir)...)
		if ran := ranSteps(r.stderr); len(ran) > 0 {
			t.Errorf("from the directory: steps of %s that ran: %q", name, ran)
		}
		r = h.ok(h.machine("reg-"+name, "-f", name+".Dockerfile", "--cache-from", ref)...)
		if len(ranSteps(r.stderr)) == 0 {
			hits++
		}
		if strings.Contains(r.stderr, "WARN") {
			t.Errorf("from the registry: a warning\n%s", r.stderr)
		}
	}
	if hits == 0 {
		t.Error("from the registry: got none of two results, want at least one")
	}
}

// A cache that one user and recorder made serves another, unless the ids differ.
func TestSharedCacheAcrossUsers(t *testing.T) {
	reg := busyRegistry(t, registryOptions{})
	ref := reg.host() + "/cache:main"
	all := legs(t.Name())
	lines := []string{"FROM " + reg.host() + "/busybox", "RUN mkdir /d; echo one > /d/one; chown 7:7 /d/one; chmod 4750 /d/one", "COPY Dockerfile /"}
	first := newHome(t, all[0])
	first.dockerfile(lines...)
	first.ok(first.machine("first", "--cache-to", "type=registry,ref="+ref)...)
	for _, l := range all[1:] {
		h := newHome(t, l)
		h.dockerfile(lines...)
		r := h.ok(h.machine("other", "--cache-from", ref)...)
		if ran := ranSteps(r.stderr); len(ran) > 0 {
			t.Errorf("%s after %s: steps that ran: %q\n%s", l, all[0], ran, r.stderr)
		}
	}
}

// LAWS 34: with a key only signed entries count, and a signature is for one entry and
// all of it.
func TestSharedCacheSigned(t *testing.T) {
	need(t, haveProgram("openssl"), "openssl")
	h := newHome(t, coveringLegs(t.Name())[0])
	var now func(w http.ResponseWriter, r *http.Request) bool
	liar := &lieServer{}
	reg := busyRegistry(t, registryOptions{lie: func(w http.ResponseWriter, r *http.Request) bool {
		return now != nil && strings.HasPrefix(r.URL.Path, "/v2/cache/") && liar.serve(w, r)
	}})
	liar.reg = reg
	liar.lie = func(w http.ResponseWriter, r *http.Request) bool { return now(w, r) }
	keys := h.dir
	for _, args := range [][]string{
		{"genpkey", "-algorithm", "ed25519", "-out", keys + "/key.pem"},
		{"pkey", "-in", keys + "/key.pem", "-pubout", "-out", keys + "/key.pub"},
		{"genpkey", "-algorithm", "ed25519", "-out", keys + "/other.pem"},
	} {
		runProgram(t, "openssl", args...)
	}
	for _, name := range []string{"key.pem", "key.pub", "other.pem"} {
		if err := os.Chmod(filepath.Join(keys, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ref := reg.host() + "/cache:main"
	h.dockerfile("FROM "+reg.host()+"/busybox", "RUN echo one > /one; echo ran-one", "RUN cat /one > /two; echo ran-two")
	store := func(name string, args ...string) {
		h.ok(h.machine(name, append([]string{"--cache-to", "type=registry,ref=" + ref}, args...)...)...)
	}
	n := 0
	reads := func(what string, hit bool, args ...string) {
		t.Helper()
		n++
		r := h.ok(h.machine(fmt.Sprint("reader", n), append([]string{"--cache-from", ref}, args...)...)...)
		if got := len(ranSteps(r.stderr)) == 0; got != hit {
			t.Errorf("%s: got a hit %v, want %v\n%s", what, got, hit, r.stderr)
		}
		if !hit && !strings.Contains(r.stderr, "without a signature") {
			t.Errorf("%s: no word of signatures\n%s", what, r.stderr)
		}
	}
	store("first")
	reads("unsigned, no key", true)
	reads("unsigned, a key", false, "--cache-key", keys+"/key.pub")
	store("first", "--cache-key", keys+"/key.pem")
	reads("signed, no key", true)
	reads("signed, the public key", true, "--cache-key", keys+"/key.pub")
	reads("signed, the private key", true, "--cache-key", keys+"/key.pem")
	reads("signed, another key", false, "--cache-key", keys+"/other.pem")
	for name, change := range map[string]func(map[string]any){
		"another time":  eachValue(func(v map[string]any) { v["created"] = "2001-01-01T00:00:00Z" }),
		"another layer": eachListed(func(e map[string]any) { delete(e, "layer") }),
		"swapped signatures": func(list map[string]any) {
			entries := list["entries"].([]any)
			a, b := entries[len(entries)-1].(map[string]any), entries[len(entries)-2].(map[string]any)
			a["sig"], b["sig"] = b["sig"], a["sig"]
		},
	} {
		now = lieList(t, reg, "cache:main", change)
		reads(name, false, "--cache-key", keys+"/key.pub")
		now = nil
	}
	// Who has no key keeps the signatures of what he finds the same.
	store("first")
	reads("stored again without a key", true, "--cache-key", keys+"/key.pub")
	h.fails(2, "a public key cannot sign", "openssl", h.machine("first", "--cache-to", "type=registry,ref="+ref, "--cache-key", keys+"/key.pub")...)
}

// runProgram runs a program of the host that must succeed.
func runProgram(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := osexec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

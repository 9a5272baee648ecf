//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// lazyRegistry serves a seekable base and counts what of its layers goes out.
type lazyRegistry struct {
	*registryServer
	sent  atomic.Int64
	mu    sync.Mutex
	spoil func(w http.ResponseWriter, r *http.Request) bool // may answer for a blob itself
}

type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	w.sent.Add(int64(len(p)))
	return w.ResponseWriter.Write(p)
}

func newLazyRegistry() *lazyRegistry {
	reg := &lazyRegistry{}
	reg.registryServer = newRegistry(registryOptions{lie: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		reg.mu.Lock()
		spoil := reg.spoil
		reg.mu.Unlock()
		if spoil == nil || !spoil(w, r) {
			reg.handler.ServeHTTP(countingWriter{w, &reg.sent}, r)
		}
		return true
	}})
	return reg
}

func (reg *lazyRegistry) spoils(fn func(w http.ResponseWriter, r *http.Request) bool) {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	reg.spoil = fn
}

// lazyBase makes HOST/base with 8 MiB in one file and a few small ones, on a store of its
// own.
func (reg *lazyRegistry) lazyBase(h *home, form string) {
	reg.makeBase(h, form, "RUN mkdir /data && for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/data/big$i bs=1M count=1 2>/dev/null; echo small$i > /data/small$i; done"+
		" && cat /data/big? > /data/big && rm /data/big? && ln /data/small1 /data/link && ln -s small2 /data/symlink")
}

func (reg *lazyRegistry) makeBase(h *home, form, run string) {
	if err := reg.add("busybox", filepath.Join(suite.bases, "busybox")); err != nil {
		h.t.Fatal(err)
	}
	h.dockerfile("FROM "+reg.host()+"/busybox", run)
	h.ok(h.machine("maker", "-o", "type=registry,name="+reg.host()+"/base,force-compression=true,compression="+form)...)
	reg.sent.Store(0)
}

// TestLazyBase: of a seekable base a build fetches what its steps read, and what they
// write is the same as on a base that was fetched as a whole.
func TestLazyBase(t *testing.T) {
	for _, l := range legs(t.Name()) {
		for _, form := range []string{"estargz", "zstd:chunked"} {
			t.Run(l.String()+"/"+strings.ReplaceAll(form, ":", "-"), func(t *testing.T) { testLazyBase(t, l, form) })
		}
	}
}

func testLazyBase(t *testing.T, l leg, form string) {
	reg := newLazyRegistry()
	defer reg.close()
	h := newHome(t, l)
	reg.lazyBase(h, form)
	h.dockerfile("FROM "+reg.host()+"/base AS a", "RUN cat /data/small3 /data/symlink > /out && chmod 600 /data/link && ls -l /data",
		"FROM scratch", "COPY --from=a /out /data/small1 /")
	h.ok("build", "--push", "-t", reg.host()+"/app:1", ".")
	if got := reg.sent.Load(); l.recorder == "fuse" && got > 3<<20 {
		t.Errorf("blobs sent for a few small files and a shell: got %d bytes, want less than 3 MiB of 9", got)
	}
	reg.forget()
	h.ok("build", "--push", "-t", reg.host()+"/app:1", ".")
	if n := reg.count("GET /v2/base/blobs/"); n != 0 {
		t.Errorf("a build with everything cached: got %d requests for blobs of the base, want none", n)
	}
	sent := reg.sent.Load()
	h.dockerfile("FROM "+reg.host()+"/base", "RUN cat /data/small3 /data/symlink > /out2; mv /data/small5 /moved", "RUN sha256sum /data/big > /sum")
	h.ok("build", "--push", "-t", reg.host()+"/app:2", ".")
	if got := reg.sent.Load() - sent; l.recorder == "fuse" && got < 8<<20 {
		t.Errorf("blobs sent for all of the large file: got %d bytes, want more than 8 MiB", got)
	}
	h.ok("cache", "verify")
	h.ok(h.machine("whole", "--lazy=off", "--push", "-t", reg.host()+"/app:3")...)
	var lists []listing
	for _, name := range []string{"app:2", "app:3"} {
		img, err := reg.pull(name)
		if err != nil {
			t.Fatal(err)
		}
		li, err := list(img)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, li)
	}
	if diff := diffListings(lists[0], lists[1], nil); diff != "" {
		t.Errorf("images on a lazy and on a whole base differ (-lazy +whole):\n%s", diff)
	}
}

// TestLazyAhead: what an earlier run of a step read of a base, it gets of the next one in
// a few requests, before it asks.
func TestLazyAhead(t *testing.T) {
	for _, l := range coveringLegs("fuse") {
		if l.recorder == "fuse" {
			testLazyAhead(t, l)
		}
	}
}

func testLazyAhead(t *testing.T, l leg) {
	reg := newLazyRegistry()
	defer reg.close()
	h := newHome(t, l)
	const files = "RUN mkdir /many && for i in $(seq 150); do echo $i > /many/$i; done; echo "
	reg.makeBase(h, "estargz", files+"first > /many/1")
	app := []string{"FROM " + reg.host() + "/base", "RUN cat /many/* > /out"}
	h.dockerfile(app...)
	reg.forget()
	h.ok("build", "--push", "-t", reg.host()+"/app:1", ".")
	if n := reg.count("GET /v2/base/blobs/"); n < 150 {
		t.Errorf("the first build: got %d requests for blobs, want one for each file", n)
	}
	reg.makeBase(h, "estargz", files+"second > /many/1")
	h.dockerfile(app...)
	reg.forget()
	h.ok("build", "--pull", "--push", "-t", reg.host()+"/app:2", ".")
	if n := reg.count("GET /v2/base/blobs/"); n > 40 {
		t.Errorf("on the next base: got %d requests for blobs, want at most 40", n)
	}
}

// inRange reports whether a request is for a part of a blob.
func inRange(r *http.Request) bool { return r.Header.Get("Range") != "" }

// TestLazyHostile: a registry that lies, cuts or is gone while a step reads. No false byte
// reaches the step: it fails loudly, whatever the command makes of its error.
func TestLazyHostile(t *testing.T) {
	for _, l := range coveringLegs("fuse") {
		if l.recorder == "fuse" {
			testLazyHostile(t, l)
		}
	}
}

func testLazyHostile(t *testing.T, l leg) {
	reg := newLazyRegistry()
	defer reg.close()
	h := newHome(t, l)
	reg.lazyBase(h, "estargz")
	h.dockerfile("FROM "+reg.host()+"/base", "RUN echo the table, busybox and nothing else")
	h.ok("build", "--push", "-t", reg.host()+"/app", ".")
	reads := func(n int) {
		h.dockerfile("FROM "+reg.host()+"/base", fmt.Sprintf("RUN cat /data/small%d > /out || true; grep -q small%d /out", n, n))
	}
	served := func(r *http.Request) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		reg.handler.ServeHTTP(rec, r)
		return rec
	}
	answer := func(w http.ResponseWriter, rec *httptest.ResponseRecorder, body []byte) bool {
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
		return true
	}
	for n, tt := range []struct {
		name       string
		spoil      func(w http.ResponseWriter, r *http.Request) bool
		want, hint string // "" for a build that succeeds
	}{
		{"other bytes", func(w http.ResponseWriter, r *http.Request) bool {
			if !inRange(r) {
				return false
			}
			rec := served(r)
			body := bytes.Clone(rec.Body.Bytes())
			for i := range body {
				body[i] ^= 0x55
			}
			return answer(w, rec, body)
		}, "fetch contents of layer sha256:", "--lazy=off"},
		{"another range", func(w http.ResponseWriter, r *http.Request) bool {
			if !inRange(r) {
				return false
			}
			r.Header.Set("Range", "bytes=0-99")
			rec := served(r)
			return answer(w, rec, rec.Body.Bytes())
		}, "another range", "--lazy=off"},
		{"gone", func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}, "Not Found", "--lazy=off"},
		{"cut", func(w http.ResponseWriter, r *http.Request) bool {
			rec := served(r)
			if inRange(r) && rec.Body.Len() > 40 {
				answer(w, rec, rec.Body.Bytes()[:rec.Body.Len()-40])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			return answer(w, rec, rec.Body.Bytes())
		}, "", ""},
		{"no parts", func(_ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			reads(n + 1)
			reg.spoils(tt.spoil)
			if tt.want != "" {
				h.fails(1, tt.want, tt.hint, "build", "--push", "-t", reg.host()+"/app", ".")
				reg.spoils(nil)
			}
			h.ok("build", "--push", "-t", reg.host()+"/app", ".")
			reg.spoils(nil)
		})
	}
	h.t = t
	h.ok("cache", "verify")
}

// TestLazyMirror: chunks that a mirror gives wrong come from the registry itself, and the
// build says so; at the end the image of the store wants the layers whole, and says that.
func TestLazyMirror(t *testing.T) {
	for _, l := range coveringLegs("fuse") {
		if l.recorder == "fuse" {
			testLazyMirror(t, l)
		}
	}
}

func testLazyMirror(t *testing.T, l leg) {
	reg, mirror := newLazyRegistry(), newLazyRegistry()
	defer reg.close()
	defer mirror.close()
	h := newHome(t, l)
	reg.makeBase(h, "estargz", "RUN mkdir /data && echo right > /data/file")
	img, err := reg.pull("base")
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.push("base", img); err != nil {
		t.Fatal(err)
	}
	build := func(root string, args ...string) result {
		return h.ok(h.machine(root, append([]string{"--registry-mirror", reg.host() + "=" + mirror.host()}, args...)...)...)
	}
	h.dockerfile("FROM "+reg.host()+"/base", "RUN echo the table, busybox and nothing else")
	build("one", "--push", "-t", reg.host()+"/app")
	reg.forget()
	mirror.spoils(func(w http.ResponseWriter, r *http.Request) bool {
		if !inRange(r) {
			return false
		}
		rec := httptest.NewRecorder()
		mirror.handler.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		for i := range body {
			body[i] ^= 0x55
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
		return true
	})
	h.dockerfile("FROM "+reg.host()+"/base", "RUN cat /data/file > /out && grep -q right /out")
	res := build("one", "--push", "-t", reg.host()+"/app")
	if reg.count("GET /v2/base/blobs/") == 0 || !strings.Contains(res.stderr, "fetched from elsewhere") {
		t.Errorf("false chunks of a mirror: got no requests for others, or no word of it:\n%s", res.stderr)
	}
	res = build("two", "-t", "app") // here the table is false as well
	if !strings.Contains(res.stderr, "table of contents is fetched from elsewhere") || !strings.Contains(res.stderr, "of the base whole") {
		t.Errorf("image of the store: got no word of the table or of whole layers:\n%s", res.stderr)
	}
}

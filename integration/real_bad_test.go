//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullDiskSources: contexts and files from elsewhere that do not fit into the
// store's disk, and a cache mount, end with the same words as any other lack of room,
// and leave it as it was.
func TestFullDiskSources(t *testing.T) {
	needRoot(t)
	need(t, haveProgram("git"), "git")
	noise := make([]byte, 48<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	h := newHome(t, coveringLegs(t.Name())[0])
	h.onSmallDisk(t, "tmpfs", "tmpfs", "size=24m,mode=755")

	repo := filepath.Join(h.dir, "repo")
	makeRepo(t, repo, map[string]string{"Dockerfile": "FROM scratch\nCOPY noise /\n", "noise": string(noise)})
	web, err := webHandler(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	output(t, program("git", "clone", "-q", "--bare", repo, filepath.Join(h.dir, "app.git")))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/noise" {
			_, _ = w.Write(noise) // the client ends it
			return
		}
		web.ServeHTTP(w, r)
	}))
	defer srv.Close()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, data := range map[string][]byte{"Dockerfile": []byte("FROM scratch\nCOPY noise /\n"), "noise": noise} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h.write(map[string]string{
		"add":   "FROM scratch\nADD " + srv.URL + "/noise /\n",
		"cache": "FROM busybox\nRUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/big bs=1M count=48 || { rm /c/big; exit 9; }\n",
	})
	for _, tt := range []struct {
		name, want, hint string
		args             []string
	}{
		{"stdin", "no space left", "fbuild cache prune", []string{"build", "-"}},
		{"git", "o space left", "fbuild cache prune", []string{"build", srv.URL + "/app.git"}},
		{"ADD", "no space left", "fbuild cache prune", []string{"build", "-f", "add", "."}},
		{"cache mount", "exit code: 9", "", []string{"build", "-f", "cache", "."}},
	} {
		cmd := h.command(tt.args...) // no subtest: those have threads of their own, which lack the mount
		if tt.name == "stdin" {
			cmd.Stdin = bytes.NewReader(archive.Bytes())
		}
		t.Log(tt.name)
		checkFailure(t, h.finish(cmd), 1, tt.want, tt.hint)
		for _, p := range h.leftovers() {
			if p != "mount left behind: "+filepath.Join(h.dir, ".data") { // that is the small disk
				t.Error(p)
			}
		}
	}
	h.dockerfile("FROM busybox", "RUN echo small > /small")
	h.ok("build", "-t", "small", ".")
}

// TestInterruptStalledServer: Ctrl-C ends a build at once that waits for a context or
// a file whose server takes connections and says nothing.
func TestInterruptStalledServer(t *testing.T) {
	need(t, haveProgram("git") && haveProgram("ssh"), "git and ssh")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // its connections wait in the queue
	host := l.Addr().String()
	h := newHome(t, lastLeg(t))
	h.write(map[string]string{"add": "FROM scratch\nADD http://" + host + "/x /\n"})
	for _, args := range [][]string{
		{"http://" + host + "/x.git"}, {"ssh://git@" + host + "/x.git"}, {"http://" + host + "/x.tar"}, {"-f", "add", "."},
	} {
		p := h.start(append([]string{"build"}, args...)...)
		p.until("the first line", func() bool { return p.stderr() != "" })
		time.Sleep(300 * time.Millisecond)
		p.interrupt(unix.SIGINT)
		for _, left := range h.leftovers() {
			t.Errorf("%q: %s", args, left)
		}
	}
}

// manyFiles is a context that is large by its names: docs/testing.md has what a
// million of them need.
const manyFiles = 20000

// TestManyFiles: the memory of a build grows with the number of files by what their
// names and attributes need, not with their contents.
func TestManyFiles(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	text := bytes.Repeat([]byte("0123456789abcdef"), 512)
	for d := range manyFiles / 500 {
		dir := filepath.Join(h.ctx, fmt.Sprintf("package-%d", d), "with", "a", "long", "name")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d.js", i)), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.dockerfile("FROM busybox", "COPY . /app/", "RUN test $(find /app -name '*.js' | wc -l) = "+fmt.Sprint(manyFiles))
	p := h.start("build", "-t", "many", ".")
	peak := 0 // KiB; a resource usage would have that of the test, before the exec
	for ended := false; !ended; {
		select {
		case <-p.done:
			ended = true
		case <-time.After(20 * time.Millisecond):
			peak = max(peak, highWater(p.pidFile))
		}
	}
	if r := p.wait(); r.code != 0 {
		t.Fatalf("exit code: got %d, want 0\n%s", r.code, r.stderr)
	}
	t.Logf("memory: %d KiB", peak)
	// There are 160 MiB of contents; half of what is allowed is needed.
	const least, limit = 20 << 10, 96<<10 + manyFiles*6
	if peak > limit || peak < least {
		t.Errorf("memory of a build of %d files: got %d KiB, want %d to %d", manyFiles, peak, least, limit)
	}
	if got := strings.Count(h.describe("many", "layers"), "file-7.js"); got != manyFiles/500 {
		t.Errorf("files in the image: got %d called file-7.js, want %d", got, manyFiles/500)
	}
}

// highWater returns the most memory that the process named in a file has had, in
// KiB; 0 where it is not there, or no more.
func highWater(pidFile string) int {
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return 0
	}
	status, err := os.ReadFile(filepath.Join("/proc", string(pid), "status"))
	if err != nil {
		return 0
	}
	kib := 0
	if _, line, ok := strings.Cut(string(status), "VmHWM:"); ok {
		_, _ = fmt.Sscan(line, &kib) // 0 says that there is none
	}
	return kib
}

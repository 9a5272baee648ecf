package build

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

// site is a web server on loopback that counts what it sends.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	log   []string // METHOD PATH STATUS
}

var siteTime = time.Date(2020, 5, 6, 7, 8, 9, 0, time.UTC)

// newSite serves the files; those whose names begin with "/old" have a Last-Modified.
func newSite(t *testing.T, files map[string]string) *site {
	t.Helper()
	s := &site{files: map[string][]byte{}}
	for name, text := range files {
		s.files[name] = []byte(text)
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP answers with an ETag made of the content.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.files[r.URL.Path]
	etag := fmt.Sprintf("%q", digestOf(string(data)))
	status := http.StatusOK
	switch {
	case !ok:
		status = http.StatusNotFound
	case r.Header.Get("If-None-Match") == etag:
		status = http.StatusNotModified
	}
	s.log = append(s.log, fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, status))
	w.Header().Set("ETag", etag)
	if strings.HasPrefix(r.URL.Path, "/old") {
		w.Header().Set("Last-Modified", siteTime.Format(http.TimeFormat))
	}
	w.WriteHeader(status)
	if status == http.StatusOK {
		_, _ = w.Write(data) // a client that is gone needs no answer
	}
}

func (s *site) set(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = []byte(text)
}

// asked returns the requests since the last call.
func (s *site) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// show lists an image's entries: mode, owner, time unless it is now, path and the
// text of files.
func (w *world) show(t tree.Tree) []string {
	w.t.Helper()
	var out []string
	err := t.Walk(func(p string, n *tree.Node) error {
		if p == "" {
			return nil
		}
		line := fmt.Sprintf("%04o %d:%d ", n.Mode, n.UID, n.GID)
		if at := time.Unix(n.Mtime.Sec, 0).UTC(); time.Since(at) > time.Hour {
			line += at.Format("2006-01-02 ")
		}
		line += p
		if n.Kind == tree.Dir {
			line += "/"
		}
		if n.Kind == tree.File {
			text, err := w.text(n)
			if err != nil {
				return err
			}
			if !strings.ContainsRune(text, 0) {
				line += " " + text
			}
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// text returns what a file holds.
func (w *world) text(n *tree.Node) (string, error) {
	r, err := w.store.Packs().Open(n)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return strings.TrimSpace(string(data)), errors.Join(err, r.Close())
}

func tarOf(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o640, Size: int64(len(files[i+1])), Uid: 7, ModTime: siteTime, Typeflag: tar.TypeReg}
		if strings.HasSuffix(files[i], "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAddURL(t *testing.T) {
	archive := tarOf(t, "in/", "", "in/a", "in archive")
	s := newSite(t, map[string]string{"/": "root", "/new": "new", "/old": "old", "/d/oldest": "x", "/a.tar": archive})
	w := newWorld(t)
	w.write("local", "local")
	w.write("local.tar", archive)
	for _, tt := range []struct {
		name string
		add  string
		want []string
	}{
		{"to a name", "ADD $S/new /x", []string{"0600 0:0 1970-01-01 x new"}},
		{"to a directory", "ADD $S/new /d/", []string{"0755 0:0 d/", "0600 0:0 1970-01-01 d/new new"}},
		{"with the server's time", "ADD $S/old /", []string{"0600 0:0 2020-05-06 old old"}},
		{"without a name", "ADD $S /d/", []string{"0755 0:0 d/", "0600 0:0 1970-01-01 d/__unnamed__ root"}},
		{"without a name, to one", "ADD $S/ /f", []string{"0600 0:0 1970-01-01 f root"}},
		{"name of the path, not of the query", "ADD $S/new?a=/b /", []string{"0600 0:0 1970-01-01 new new"}},
		{"owner and mode", "ADD --chown=5:6 --chmod=755 $S/new /d/", []string{"0755 5:6 d/", "0755 5:6 1970-01-01 d/new new"}},
		{"symbolic mode", "ADD --chmod=go+r,u+X $S/new /", []string{"0644 0:0 1970-01-01 new new"}},
		{"linked", "ADD --link $S/new /d/", []string{"0755 0:0 d/", "0600 0:0 1970-01-01 d/new new"}},
		{"checksum", "ADD --checksum=" + digestOf("new") + " $S/new /", []string{"0600 0:0 1970-01-01 new new"}},
		{"between local files, the last one wins", "ADD local $S/new local /d/", []string{"0755 0:0 d/", "0644 0:0 d/local local", "0600 0:0 1970-01-01 d/new new"}},
		{"an archive stays one", "ADD $S/a.tar /", []string{"0600 0:0 1970-01-01 a.tar"}},
		{"unless asked", "ADD --unpack=true --chmod=700 $S/a.tar /d", []string{"0755 0:0 d/", "0755 7:0 2020-05-06 d/in/", "0640 7:0 2020-05-06 d/in/a in archive"}},
		{"unpack of what is none", "ADD --unpack $S/new /d/", []string{"0755 0:0 d/", "0600 0:0 1970-01-01 d/new new"}},
		{"a local one does not", "ADD --chown=3 local.tar /", []string{"0755 3:3 2020-05-06 in/", "0640 3:3 2020-05-06 in/a in archive"}},
		{"unless asked", "ADD --unpack=false local.tar /", []string{"0644 0:0 local.tar"}},
		{"exclude is for paths", "ADD --exclude=* $S/new loca? /", []string{"0600 0:0 1970-01-01 new new"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "FROM scratch\n" + strings.ReplaceAll(tt.add, "$S", s.URL) + "\n"
			res := w.must(text)
			got, _ := w.image(res)
			if d := cmp.Diff(tt.want, w.show(got)); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if again := w.must(text); again.ImageID != res.ImageID || w.cached() != 1 {
				t.Errorf("again: %d steps cached, image %s, want %s", w.cached(), again.ImageID, res.ImageID)
			}
		})
	}
}

// A URL is asked whether its file is still the same; with a checksum nobody is
// asked anything. What came once is not fetched again.
func TestAddURLAsksOnce(t *testing.T) {
	s := newSite(t, map[string]string{"/f": "one", "/g": "sum"})
	w := newWorld(t)
	text := "FROM scratch\nADD " + s.URL + "/f /\nADD --checksum=" + digestOf("sum") + " " + s.URL + "/g /\n"
	first := w.must(text)
	if d := cmp.Diff([]string{"GET /f 200", "GET /g 200"}, s.asked()); d != "" {
		t.Errorf("first build (-want +got)\n%s", d)
	}
	w.must(text)
	if d := cmp.Diff([]string{"GET /f 304"}, s.asked()); d != "" || w.cached() != 2 {
		t.Errorf("second build: %d cached, requests (-want +got)\n%s", w.cached(), d)
	}
	w.must(strings.ReplaceAll(text, " /\n", " /elsewhere/\n"))
	if d := cmp.Diff([]string{"GET /f 304"}, s.asked()); d != "" || w.cached() != 0 {
		t.Errorf("another target: %d cached, requests (-want +got)\n%s", w.cached(), d)
	}
	s.set("/f", "two")
	s.set("/g", "other")
	if third := w.must(text); third.ImageID == first.ImageID || w.cached() != 0 {
		t.Errorf("another file: got image %s with %d steps cached", third.ImageID, w.cached())
	}
	for _, tt := range []struct{ add, want string }{
		{"ADD --checksum=" + digestOf("else") + " $S/f /", "checksum differs"},
		{"ADD $S/nope /", "404"},
		{"ADD local /", "not found"},
		{"ADD --checksum=$M $S/f /", "hexadecimal digits"},
	} {
		_, err := w.build("FROM scratch\nARG M=main\n" + strings.ReplaceAll(tt.add, "$S", s.URL) + "\n")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.add, err, tt.want)
		}
	}
}

// Unpacked or not is another result, whatever else is the same.
func TestUnpackIsInTheKey(t *testing.T) {
	w := newWorld(t)
	w.write("t.tar", tarOf(t, "f", "f"))
	seen := map[string]string{}
	for _, add := range []string{"ADD t.tar /d/", "ADD --unpack=false t.tar /d/"} {
		res := w.must("FROM scratch\n" + add + "\n")
		got, _ := w.image(res)
		seen[add] = strings.Join(w.show(got), "\n")
	}
	if seen["ADD t.tar /d/"] == seen["ADD --unpack=false t.tar /d/"] {
		t.Errorf("one result for both: %q", seen)
	}
}

// A build without a context can add what is remote.
func TestAddWithoutContext(t *testing.T) {
	s := newSite(t, map[string]string{"/f": "one"})
	w := newWorld(t)
	none := func(o *Options) { o.ContextDir = "" }
	w.must("FROM scratch\nADD "+s.URL+"/f /\nCOPY <<x /\ntext\nx\n", none)
	if _, err := w.build("FROM scratch\nCOPY f /\n", none); err == nil || !strings.Contains(err.Error(), "context") {
		t.Errorf("COPY: got %v, want a word about the context", err)
	}
}

// repository makes a git repository and serves it; rev is its commit.
func repository(t *testing.T) (address, rev string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "r")
	git := func(args ...string) string {
		cmd := osexec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=n", "-c", "user.email=e"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_DATE=2020-05-06T00:00:00Z", "GIT_AUTHOR_DATE=2020-05-06T00:00:00Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for name, text := range map[string]string{"f": "file", "run": "#!x", "sub/s": "in sub", "sub/notes.md": "md"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	git("init", "--quiet", "--initial-branch=main", ".")
	git("add", ".")
	git("commit", "--quiet", "--message=m")
	git("tag", "v1")
	git("update-server-info")
	srv := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(dir))))
	t.Cleanup(srv.Close)
	return srv.URL + "/r/.git", git("rev-parse", "HEAD")
}

func TestAddGit(t *testing.T) {
	address, rev := repository(t)
	w := newWorld(t)
	w.write("local", "local")
	whole := []string{
		"0644 0:0 2020-05-06 d/f file", "0755 0:0 2020-05-06 d/run #!x", "0755 0:0 2020-05-06 d/sub/",
		"0644 0:0 2020-05-06 d/sub/notes.md md", "0644 0:0 2020-05-06 d/sub/s in sub",
	}
	for _, tt := range []struct {
		name string
		add  string
		want []string // but the target
	}{
		{"the tree", "ADD $R /d/", whole},
		{"a tag, to a name", "ADD $R#v1 /d", whole},
		{"a commit", "ADD $R#$C /d/", whole},
		{"a checksum", "ADD --checksum=$C $R#v1 /d/", whole},
		{"the start of one", "ARG SUM=" + rev[:7] + "\nADD --checksum=$SUM $R#main /d/", whole},
		{"a subdirectory", "ADD $R#v1:sub /d/", []string{"0644 0:0 2020-05-06 d/notes.md md", "0644 0:0 2020-05-06 d/s in sub"}},
		{"exclude", "ADD --exclude=**/*.md --exclude=run $R /d/", []string{whole[0], whole[2], whole[4]}},
		{"owner, mode, link", "ADD --link --chown=5:6 $R#:sub /d/", []string{"0644 5:6 2020-05-06 d/notes.md md", "0644 5:6 2020-05-06 d/s in sub"}},
		{"mode", "ADD --chmod=go= $R#:sub /d/", []string{"0600 0:0 2020-05-06 d/notes.md md", "0600 0:0 2020-05-06 d/s in sub"}},
		{"and a local file", "ADD $R#:sub local /d/", []string{"0644 0:0 d/local local", "0644 0:0 2020-05-06 d/notes.md md", "0644 0:0 2020-05-06 d/s in sub"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "FROM scratch\n" + strings.NewReplacer("$R", address, "$C", rev).Replace(tt.add) + "\n"
			res := w.must(text)
			got, _ := w.image(res)
			if d := cmp.Diff(tt.want, w.show(got)[1:]); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if again := w.must(text); again.ImageID != res.ImageID || w.cached() != 1 {
				t.Errorf("again: %d steps cached, image %s, want %s", w.cached(), again.ImageID, res.ImageID)
			}
		})
	}
	w.must("FROM scratch\nADD " + address + "?mtime=checkout /d/\n") // the files are as new as that
	if w.cached() != 0 {
		t.Error("mtime=checkout: got the files with the times of the commit")
	}
	kept, _ := w.image(w.must("FROM scratch\nADD --keep-git-dir=true " + address + " /d/\n"))
	if kept.Lookup("d/.git/HEAD") == nil || kept.Lookup("d/f") == nil {
		t.Error("--keep-git-dir: no .git/HEAD")
	}
	for _, tt := range []struct{ add, want string }{
		{"ADD --checksum=0123456 $R#v1 /d/", "checksum differs"},
		{"ADD $R#nope /d/", "no such ref"},
		{"ADD $R#v1:nope /d/", "no such directory"},
	} {
		_, err := w.build("FROM scratch\n" + strings.ReplaceAll(tt.add, "$R", address) + "\n")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.add, err, tt.want)
		}
	}
}

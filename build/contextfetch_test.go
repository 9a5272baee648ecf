package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/progress"
)

// fetchFrom makes a context of what comes on stdin.
func fetchFrom(t *testing.T, stdin io.Reader, change ...func(*ContextSpec)) (*FetchedContext, string, error) {
	t.Helper()
	store, err := cache.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	var out bytes.Buffer
	display, err := progress.New(progress.Options{Mode: progress.Plain, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	spec := ContextSpec{Location: "-", Stdin: stdin, Progress: display}
	for _, fn := range change {
		fn(&spec)
	}
	f, err := FetchContext(t.Context(), store, spec)
	if cerr := display.Close(err); cerr != nil {
		t.Fatal(cerr)
	}
	if err != nil {
		left, gerr := filepath.Glob(filepath.Join(store.Dir(), "tmp", "run-*", "context*"))
		if gerr != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, gerr)
		}
	}
	return f, out.String(), err
}

// tarBytes writes an archive of headers; files hold their own names.
func tarBytes(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// namesIn lists what is below dir.
func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); rel != "." {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestContextOfEachCompression(t *testing.T) {
	plain := tarBytes(t, tar.Header{Name: "d/f"}, tar.Header{Name: "Dockerfile"})
	pack := func(open func(io.Writer) (io.WriteCloser, error)) []byte {
		var buf bytes.Buffer
		w, err := open(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	for name, data := range map[string][]byte{
		"plain": plain,
		"gzip":  pack(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd":  pack(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":    pack(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
	} {
		t.Run(name, func(t *testing.T) {
			f, _, err := fetchFrom(t, bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"Dockerfile", "d", "d/f"}, namesIn(t, f.Dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(f.Dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after Close: %v", err)
			}
			if name == "plain" {
				return
			}
			for _, n := range []int{len(data) / 3, len(data) - 5} {
				_, _, err := fetchFrom(t, bytes.NewReader(data[:n]))
				if e, ok := errors.AsType[*ContextError](err); !ok || !strings.Contains(e.Hint, "cut short") && !strings.Contains(e.Hint, "a context is a tar") {
					t.Errorf("cut at %d of %d: got %v", n, len(data), err)
				}
			}
		})
	}
}

func TestCutTarIsRefused(t *testing.T) {
	data := tarBytes(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	for _, n := range []int{513, 1024, 1024 + 100, 1536, 1536 + 100, 2048} {
		if _, _, err := fetchFrom(t, bytes.NewReader(data[:n])); err == nil || !strings.Contains(err.Error(), "corrupt archive") {
			t.Errorf("cut at %d of %d: got %v", n, len(data), err)
		}
	}
	broken := errors.New("the pipe broke")
	if _, _, err := fetchFrom(t, io.MultiReader(bytes.NewReader(data[:700]), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestHostileTarStaysInside: no entry leads out of the context, whatever its name,
// its links, or what it is.
func TestHostileTarStaysInside(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, headers := range map[string][]tar.Header{
		"dots":             {{Name: "../../../../../../../.." + outside + "/f"}},
		"absolute":         {{Name: outside + "/f"}},
		"symlink":          {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l/f"}},
		"symlink at last":  {{Name: "f", Typeflag: tar.TypeSymlink, Linkname: outside + "/f"}, {Name: "f"}},
		"hard link":        {{Name: "h", Typeflag: tar.TypeLink, Linkname: outside + "/f"}, {Name: "h"}},
		"link of a link":   {{Name: "s", Typeflag: tar.TypeSymlink, Linkname: outside + "/f"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "s"}, {Name: "h"}},
		"whiteout":         {{Name: ".wh.f"}},
		"closed directory": {{Name: "d", Typeflag: tar.TypeDir, Mode: 0o100}, {Name: "d/f"}},
		"special":          {{Name: "p", Typeflag: tar.TypeFifo}, {Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, {Name: "f"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, err := fetchFrom(t, bytes.NewReader(tarBytes(t, headers...)))
			if err == nil {
				for _, n := range namesIn(t, f.Dir) {
					var st unix.Stat_t
					if err := unix.Lstat(filepath.Join(f.Dir, n), &st); err != nil || st.Uid != uint32(os.Getuid()) {
						t.Errorf("%s: owner %d, %v; want the caller", n, st.Uid, err)
					}
				}
				if err := f.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			} else if e, ok := errors.AsType[*ContextError](err); !ok || e.Hint == "" {
				t.Errorf("got %v, without a hint", err)
			}
			if got, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(got) != "mine" {
				t.Errorf("file outside: got %q, %v", got, err)
			}
			if got := namesIn(t, outside); len(got) != 1 {
				t.Errorf("files outside: %q", got)
			}
		})
	}
}

func TestStdinThatIsNoTar(t *testing.T) {
	for name, tt := range map[string]struct{ in, dockerfile, err string }{
		"Dockerfile":   {"FROM scratch\n", "FROM scratch\n", ""},
		"BOM":          {"\ufeffFROM scratch\r\n", "\ufeffFROM scratch\r\n", ""},
		"long":         {"# " + strings.Repeat("ü", 5000), "# " + strings.Repeat("ü", 5000), ""},
		"begins BZh":   {"BZhFROM", "BZhFROM", ""},
		"empty":        {"", "", "it is empty"},
		"binary":       {"\x7fELF\x00\x00", "", "not a tar archive"},
		"gzip of text": {"\x1f\x8b\x08\x00\x00", "", "not a tar archive"},
		"too long":     {"#" + strings.Repeat("x", 5<<20), "", "text of more than"},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, err := fetchFrom(t, strings.NewReader(tt.in))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "build context on stdin") {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(f.Dockerfile) != tt.dockerfile || f.Dir != "" {
				t.Errorf("got %.60q in %q", f.Dockerfile, f.Dir)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSubPath(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b", "outside"} {
		if err := os.MkdirAll(filepath.Join(dir, "ctx", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"in": "a/b", "out": "../..", "abs": "/etc", "file": "f"} {
		if err := os.Symlink(to, filepath.Join(dir, "ctx", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ctx", "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for sub, want := range map[string]string{"a/b": "a/b", "/a/": "a", "in": "a/b", "../a": "a", "out": "", "abs": "", "f": "", "file": "", "none": ""} {
		f, _, err := fetchFrom(t, nil, func(s *ContextSpec) { s.Location, s.SubPath = "dir://"+filepath.Join(dir, "ctx"), sub })
		if (err == nil) != (want != "") {
			t.Errorf("%s: %v", sub, err)
			continue
		}
		if err == nil && f.Dir != filepath.Join(dir, "ctx", want) {
			t.Errorf("%s: got %s, want %s", sub, f.Dir, want)
		}
	}
}

// TestReadContextFile: a context of others leads to none of our files, and blocks
// nobody.
func TestReadContextFile(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{"abs": "/etc/passwd", "up": "../x", "in": "f", "zero": "/dev/zero"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "01234", "in": "01234", "../f": "01234", "/f": "01234", "abs": "", "up": "", "zero": "", "fifo": "", ".": "", "none": ""} {
		got, err := ReadContextFile(dir, name, 4)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// TestHTTPContextSaysWhatTheServerDid: not what that made of the archive.
func TestHTTPContextSaysWhatTheServerDid(t *testing.T) {
	data := tarBytes(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cut" {
			w.Header().Set("Content-Length", "99999")
			data := data[:700]
			_, _ = w.Write(data)
			return
		}
		_, _ = w.Write(data)
	}))
	defer srv.Close()
	_, _, err := fetchFrom(t, nil, func(s *ContextSpec) { s.Location = srv.URL + "/cut" })
	if err == nil || !strings.Contains(err.Error(), "the connection was cut") {
		t.Errorf("got %v", err)
	}
	f, out, err := fetchFrom(t, nil, func(s *ContextSpec) { s.Location = srv.URL + "/t.tar" })
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "transferring context:") {
		t.Errorf("progress: %s", out)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestContextForm(t *testing.T) {
	for location, want := range map[string]string{
		"-": formStdin, "tar://stdin": formStdin, "tar://x.tgz": formTar, "dir://x": formDir, ".": formDir, "a:b": formDir, "/abs.git": formDir,
		"http://h/x.tar": formHTTP, "https://h/x.git": formGit, "git@h:x": formGit, "github.com/a/b": formGit, "git://h/x": formGit, "ssh://h/x": formGit,
		"s3://bucket/x": "", "file:///x": "",
	} {
		form, _, err := contextForm(location, "")
		if form != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", location, form, err, want)
		}
	}
	_, u, err := contextForm("git://h/x#refs/heads/main#abcdef", "https")
	if err != nil || u.Remote != "https://h/x" || u.Commit != "abcdef" {
		t.Errorf("kaniko's git: got %v, %v", u, err)
	}
}

package fetch

import (
	"context"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// need skips a test that wants a program, and fails it where CI=true.
func need(t *testing.T, program string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if name, err := osexec.LookPath(filepath.Join(dir, program)); err == nil {
			return name
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("skip refused, CI=true: needs %s", program)
	}
	t.Skipf("needs %s", program)
	return ""
}

// upstream is a repository that a test writes.
type upstream struct {
	t   *testing.T
	dir string
}

const commitTime = 1_700_000_000

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	need(t, "git")
	u := &upstream{t, t.TempDir()}
	u.git("init", "--quiet", "--initial-branch=main", ".")
	return u
}

// git runs a command in the repository and returns what it prints.
func (u *upstream) git(args ...string) string {
	u.t.Helper()
	cmd := osexec.CommandContext(context.WithoutCancel(u.t.Context()), "git", args...)
	cmd.Dir = u.dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000", "GIT_ALLOW_PROTOCOL=file:http:ext")
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files, name and content by turns, and returns the commit.
func (u *upstream) commit(files ...string) string {
	u.t.Helper()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(u.dir, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			u.t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(files[i+1], "-> "); ok {
			if err := os.Symlink(target, name); err != nil {
				u.t.Fatal(err)
			}
			continue
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(files[i+1], "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(name, []byte(files[i+1]), mode); err != nil {
			u.t.Fatal(err)
		}
	}
	u.git("add", "--all", "--force")
	u.git("commit", "--quiet", "--allow-empty", "--message=change")
	return u.git("rev-parse", "HEAD")
}

// gitServer serves repositories below root over http; password "" lets everybody in.
func gitServer(t *testing.T, root, password string) *httptest.Server {
	t.Helper()
	out, err := osexec.CommandContext(context.WithoutCancel(t.Context()), need(t, "git"), "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Dir: root,
		Env:    []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		Stderr: t.Output(),
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pw, _ := r.BasicAuth()
		if password != "" && pw != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if p := r.Header.Get("Git-Protocol"); p != "" {
			backend := *backend
			backend.Env = append([]string{"GIT_PROTOCOL=" + p}, backend.Env...)
			backend.ServeHTTP(w, r)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// checkout fetches an address into a directory of the test.
func checkout(t *testing.T, address string, o GitOptions) (string, error) {
	t.Helper()
	u, err := ParseGit(address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenRepo(t.Context(), u, t.TempDir(), o)
	if err != nil {
		return "", err
	}
	return r.Checkout(t.Context())
}

// listing returns what is in a directory: mode, name and content or target.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		if name == ".git" {
			out[name] = "kept"
			return filepath.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(data)
		case fi.Mode()&os.ModeSymlink != 0:
			if text, err = os.Readlink(p); err != nil {
				return err
			}
			text = "-> " + text
		}
		if got := fi.ModTime(); !got.Equal(time.Unix(commitTime, 0)) {
			t.Errorf("%s: time %v, want the commit's", name, got)
		}
		if fi.Mode()&os.ModeSymlink == 0 {
			text = fi.Mode().String() + " " + text
		}
		out[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

package fetch

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/testenv"
)

// server is an upstream with branches and tags, on loopback.
func server(t *testing.T) (u *upstream, address string) {
	t.Helper()
	u = newUpstream(t)
	u.commit("f", "first", "sub/deep/s", "in sub", "run", "#!x", "l", "-> f", "out", "-> /etc", "sub/up", "-> ../..")
	u.git("tag", "light")
	u.git("checkout", "--quiet", "-b", "feature/x")
	u.commit("f", "feature")
	u.git("tag", "--annotate", "--message=m", "v1")
	u.git("update-ref", "refs/pull/7/head", u.commit("f", "pulled"))
	u.git("reset", "--quiet", "--hard", "HEAD~1")
	u.git("checkout", "--quiet", "main")
	u.commit("f", "second")
	u.git("branch", "v1-branch")
	srv := gitServer(t, filepath.Dir(u.dir), "")
	return u, srv.URL + "/" + filepath.Base(u.dir) + "/.git"
}

func TestCheckout(t *testing.T) {
	u, address := server(t)
	old := u.git("rev-parse", "HEAD~1")
	for _, tt := range []struct{ name, fragment, want string }{
		{"head", "", "second"},
		{"branch", "#feature/x", "feature"},
		{"full branch", "#refs/heads/feature/x", "feature"},
		{"light tag", "#light", "first"},
		{"annotated tag", "#v1", "feature"},
		{"full tag", "#refs/tags/v1", "feature"},
		{"pull request", "#refs/pull/7/head", "pulled"},
		{"pull request without refs", "#pull/7/head", "pulled"},
		{"commit that is no tip", "#" + old, "first"},
		{"short commit", "#" + old[:8], "first"},
		{"kaniko's commit", "#refs/heads/main#" + old, "first"},
		{"kaniko's short commit", "#refs/heads/main#" + old[:7], "first"},
		{"query", "?branch=feature/x", "feature"},
		{"checksum", "?ref=main&checksum=" + u.git("rev-parse", "main")[:9], "second"},
		{"checksum of a tag", "?ref=v1&checksum=" + u.git("rev-parse", "v1"), "feature"},
		{"checksum of its commit", "?ref=v1&checksum=" + u.git("rev-parse", "v1^{commit}"), "feature"},
		{"fetch by commit", "?ref=feature/x&fetch-by-commit&commit=" + old, "first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, err := checkout(t, address+tt.fragment, GitOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, "f"))
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestCheckoutIsTheSameForAll: modes do not hang on the umask, times are the
// commit's, .git is gone, and symlinks are as the repository has them.
func TestCheckoutIsTheSameForAll(t *testing.T) {
	_, address := server(t)
	defer unix.Umask(unix.Umask(0o077))
	dir, err := checkout(t, address+"#light", GitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"f": "-rw-r--r-- first", "l": "-> f", "out": "-> /etc", "run": "-rwxr-xr-x #!x", "sub": "drwxr-xr-x ",
		"sub/deep": "drwxr-xr-x ", "sub/deep/s": "-rw-r--r-- in sub", "sub/up": "-> ../..",
	}
	if diff := cmp.Diff(want, listing(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestSubdir(t *testing.T) {
	_, address := server(t)
	dir, err := checkout(t, address+"#light:sub/deep", GitOptions{KeepGitDir: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"s": "-rw-r--r-- in sub"}, listing(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for sub, want := range map[string]string{
		"nope": "no such directory", "f": "no directory", "out": "no directory", "out/ssl": "no directory", "sub/up": "no directory", "../../etc": "no such directory",
	} {
		if _, err := checkout(t, address+"#light:"+sub, GitOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", sub, err, want)
		}
	}
}

func TestKeepGitDir(t *testing.T) {
	u, address := server(t)
	dir, err := checkout(t, address+"#v1", GitOptions{KeepGitDir: true, Username: "name", Password: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	kept := &upstream{t, dir}
	if got, want := kept.git("rev-parse", "HEAD"), u.git("rev-parse", "v1^{commit}"); got != want {
		t.Errorf("HEAD: got %s, want %s", got, want)
	}
	if got, want := kept.git("rev-parse", "v1"), u.git("rev-parse", "v1"); got != want {
		t.Errorf("tag: got %s, want %s", got, want)
	}
	if got := kept.git("remote", "get-url", "origin"); got != address {
		t.Errorf("origin: got %s, want %s", got, address)
	}
	if got := kept.git("status", "--porcelain"); got != "" {
		t.Errorf("status: %s", got)
	}
	if out := grep(t, dir, "hunter2", BasicAuth("name", "hunter2")[6:]); out != "" {
		t.Errorf("the password stands in %s", out)
	}
}

// grep returns a file below dir that holds one of the words.
func grep(t *testing.T, dir string, words ...string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		for _, w := range words {
			if strings.Contains(string(data), w) {
				found = p
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCheckoutFails(t *testing.T) {
	_, address := server(t)
	empty := newUpstream(t)
	emptyAddress := gitServer(t, filepath.Dir(empty.dir), "").URL + "/" + filepath.Base(empty.dir) + "/.git"
	for _, tt := range []struct{ name, address, want, hint string }{
		{"no such ref", address + "#nope", "no such ref: nope", "git ls-remote"},
		{"no such commit", address + "#" + strings.Repeat("1", 40), "", "is there such a branch, tag or commit"},
		{"no such short commit", address + "#abcdef12", "no such ref", "git ls-remote"},
		{"checksum", address + "?ref=main&checksum=1234567", "checksum differs", "the ref has moved"},
		{"empty repository", emptyAddress, "the repository is empty", ""},
		{"no repository", strings.TrimSuffix(address, "/.git") + "x/.git", "not found", "is the address right"},
		{"no server", "http://127.0.0.1:1/x.git", "127.0.0.1", "is the address right, and the network there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := checkout(t, tt.address, GitOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("%v: hint %q, want %q", err, e.Hint, tt.hint)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	u := newUpstream(t)
	u.commit("f", "private")
	srv := gitServer(t, filepath.Dir(u.dir), "hunter2")
	address := srv.URL + "/" + filepath.Base(u.dir) + "/.git"
	header := func(v string) func(string) (string, error) {
		return func(string) (string, error) { return v, nil }
	}
	withUser := strings.Replace(address, "http://", "http://name:hunter2@", 1)
	for _, tt := range []struct {
		name, address string
		o             GitOptions
		hint          string // "" where it succeeds
	}{
		{"none", address, GitOptions{}, "GIT_AUTH_TOKEN"},
		{"none, of the executor", address, GitOptions{PasswordHint: "set GIT_TOKEN"}, "set GIT_TOKEN"},
		{"wrong", address, GitOptions{Username: "name", Password: "wrong"}, "refuses the password"},
		{"right", address, GitOptions{Username: "name", Password: "hunter2"}, ""},
		{"header", address, GitOptions{Authorization: header(BasicAuth("x", "hunter2"))}, ""},
		{"in the address", withUser, GitOptions{}, ""},
		{"in the address, repository missing", strings.Replace(withUser, "/.git", "x/.git", 1), GitOptions{}, "GIT_AUTH_TOKEN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := checkout(t, tt.address, tt.o)
			if (tt.hint == "") != (err == nil) {
				t.Fatalf("got %v, want hint %q", err, tt.hint)
			}
			if err == nil {
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(e.Hint, tt.hint) || strings.Contains(err.Error()+e.Hint, "hunter2") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("got %v with hint %q, want %q and no password", err, e.Hint, tt.hint)
			}
		})
	}
}

// TestPasswordStaysAtItsHost: a submodule on another host is asked without it.
func TestPasswordStaysAtItsHost(t *testing.T) {
	inner := newUpstream(t)
	inner.commit("g", "inner")
	other := gitServer(t, filepath.Dir(inner.dir), "hunter2")
	outer := newUpstream(t)
	outer.submodule("m", other.URL+"/"+filepath.Base(inner.dir)+"/.git", inner.git("rev-parse", "HEAD"))
	srv := gitServer(t, filepath.Dir(outer.dir), "hunter2")
	_, err := checkout(t, srv.URL+"/"+filepath.Base(outer.dir)+"/.git", GitOptions{Username: "n", Password: "hunter2"})
	if err == nil || !strings.Contains(err.Error(), "could not read Username") {
		t.Errorf("got %v, want a submodule that asks for a password", err)
	}
}

// TestPasswordDoesNotFollowRedirects: git would send a header to whomever a server
// names; within its host a name and a password go on working.
func TestPasswordDoesNotFollowRedirects(t *testing.T) {
	u := newUpstream(t)
	u.commit("f", "private")
	srv := gitServer(t, filepath.Dir(u.dir), "hunter2")
	path := "/" + filepath.Base(u.dir) + "/.git"
	var elsewhere []string
	// It takes anybody, and would be sent the password with what follows.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		r.SetBasicAuth("name", "hunter2")
		srv.Config.Handler.ServeHTTP(w, r)
	}))
	defer other.Close()
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, ok := strings.CutPrefix(r.URL.String(), "/old")
		switch {
		case ok:
			http.Redirect(w, r, at, http.StatusMovedPermanently)
		case strings.HasPrefix(r.URL.Path, "/away"):
			http.Redirect(w, r, other.URL+strings.TrimPrefix(r.URL.String(), "/away"), http.StatusFound)
		default:
			srv.Config.Handler.ServeHTTP(w, r)
		}
	}))
	defer moved.Close()
	bearer := GitOptions{Authorization: func(string) (string, error) { return "Bearer hunter2", nil }}
	for _, tt := range []struct {
		name, address string
		o             GitOptions
		want          string // "" where it succeeds
	}{
		{"to the same host", moved.URL + "/old" + path, GitOptions{Username: "name", Password: "hunter2"}, ""},
		{"to another host", moved.URL + "/away" + path, GitOptions{Username: "name", Password: "hunter2"}, ""},
		{"a header", moved.URL + "/away" + path, bearer, "leads elsewhere"},
	} {
		_, err := checkout(t, tt.address, tt.o)
		e, _ := errors.AsType[*Error](err)
		if (err == nil) != (tt.want == "") || e != nil && !strings.Contains(e.Hint, tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if len(elsewhere) == 0 || slices.ContainsFunc(elsewhere, func(h string) bool { return h != "" }) {
		t.Errorf("the other host was sent %q, want requests without a credential", elsewhere)
	}
}

// submodule commits one without asking anybody.
func (u *upstream) submodule(path, address, commit string) {
	u.t.Helper()
	u.commit(".gitmodules", "[submodule \""+path+"\"]\n\tpath = "+path+"\n\turl = "+address+"\n")
	u.git("update-index", "--add", "--cacheinfo", "160000,"+commit+","+path)
	u.git("commit", "--quiet", "--message=submodule")
}

func TestSubmodules(t *testing.T) {
	inner := newUpstream(t)
	inner.commit("g", "inner")
	srv := gitServer(t, filepath.Dir(filepath.Dir(inner.dir)), "")
	at := func(u *upstream) string {
		return srv.URL + "/" + filepath.Base(filepath.Dir(u.dir)) + "/" + filepath.Base(u.dir) + "/.git"
	}
	outer := newUpstream(t)
	outer.submodule("m", "../../"+filepath.Base(inner.dir)+"/.git", inner.git("rev-parse", "HEAD"))
	dir, err := checkout(t, at(outer), GitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir)["m/g"]; got != "-rw-r--r-- inner" {
		t.Errorf("submodule: got %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, "m", ".git")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf(".git of the submodule: %v", err)
	}
	dir, err = checkout(t, at(outer)+"?submodules=false", GitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir)["m/g"]; got != "" {
		t.Errorf("submodule that is left out: got %q", got)
	}
}

// TestHostileRepositories: what a repository says is never executed, and no file of
// this host gets into a tree.
func TestHostileRepositories(t *testing.T) {
	private := newUpstream(t)
	commit := private.commit("g", "private")
	ran := filepath.Join(t.TempDir(), "ran")
	command := "touch " + ran
	for _, tt := range []struct{ name, address, want string }{
		{"submodule of a directory", private.dir, "not allowed"},
		{"submodule of a file address", "file://" + private.dir, "not allowed"},
		{"submodule above", "../../../../../../../.." + private.dir, ""},
		{"submodule that is a command", "ext::sh -c \"" + command + "\"", "not allowed"},
		{"submodule with an option for ssh", "ssh://-oProxyCommand=touch%20" + ran + "/x", "strange hostname"},
		{"submodule with an option for git", "--upload-pack=" + command, ""},
		{"submodule over fd", "fd::3", "not allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream(t)
			u.submodule("m", tt.address, commit)
			srv := gitServer(t, filepath.Dir(u.dir), "")
			dir, err := checkout(t, srv.URL+"/"+filepath.Base(u.dir)+"/.git", GitOptions{})
			if err == nil {
				if got := listing(t, dir)["m/g"]; got != "" || tt.want != "" {
					t.Fatalf("no error, and m/g is %q", got)
				}
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("a command of the repository ran")
			}
		})
	}
}

// TestCallersConfigurationDoesNotCount: hooks, filters, templates and addresses of
// the caller's git change nothing, nor does the environment.
func TestCallersConfigurationDoesNotCount(t *testing.T) {
	u := newUpstream(t)
	u.commit("f", "as it is", ".gitattributes", "* filter=evil\n")
	srv := gitServer(t, filepath.Dir(u.dir), "")
	home, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	hook := "#!/bin/sh\ntouch " + ran + "\n"
	for name, text := range map[string]string{
		".gitconfig":                    "[core]\nhooksPath=" + home + "/hooks\nsshCommand=touch " + ran + "\n[filter \"evil\"]\nsmudge=touch " + ran + "\nrequired=true\n[url \"file:///nowhere\"]\ninsteadOf=http:\n[init]\ntemplateDir=" + home + "/t\n",
		"hooks/post-checkout":           hook,
		"t/hooks/post-checkout":         hook,
		"t/hooks/reference-transaction": hook,
	} {
		name = filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range map[string]string{
		"HOME": home, "GIT_CONFIG_GLOBAL": home + "/.gitconfig", "GIT_TEMPLATE_DIR": home + "/t", "GIT_DIR": home, "GIT_SSH": home + "/hooks/post-checkout",
		"GIT_EXTERNAL_DIFF": home + "/hooks/post-checkout", "GIT_PROXY_COMMAND": home + "/hooks/post-checkout",
	} {
		t.Setenv(k, v)
	}
	for _, keep := range []bool{false, true} {
		dir, err := checkout(t, srv.URL+"/"+filepath.Base(u.dir)+"/.git", GitOptions{KeepGitDir: keep})
		if err != nil {
			t.Fatal(err)
		}
		if got := listing(t, dir)["f"]; got != "-rw-r--r-- as it is" {
			t.Errorf("file: got %q", got)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Error("a command of the caller's configuration ran")
		}
	}
}

// TestDumbServer: one that only serves files gives neither single commits nor
// shallow copies.
func TestDumbServer(t *testing.T) {
	u := newUpstream(t)
	u.commit("f", "first")
	old := u.git("rev-parse", "HEAD")
	u.commit("f", "second")
	u.git("update-server-info")
	srv := httptest.NewServer(http.FileServer(http.Dir(u.dir)))
	defer srv.Close()
	for fragment, want := range map[string]string{"": "second", "#main": "second", "#" + old: "first"} {
		dir, err := checkout(t, srv.URL+"/.git"+fragment, GitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := listing(t, dir)["f"]; got != "-rw-r--r-- "+want {
			t.Errorf("%q: got %q, want %q", fragment, got, want)
		}
	}
}

func TestNoGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := checkout(t, "https://h/x.git", GitOptions{})
	if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, errNoGit) || !strings.Contains(e.Hint, "install git") {
		t.Errorf("got %v", err)
	}
}

// TestGitEndsWithItsContext: git is silent as long as its server is.
func TestGitEndsWithItsContext(t *testing.T) {
	need(t, "git")
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer srv.Close()
	cause := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	u, err := ParseGit(srv.URL + "/x.git")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, err := OpenRepo(ctx, u, dir, GitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	if _, err := r.Checkout(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
	testenv.Until(t, "end of git's helper", func() bool { return !mentioned(t, dir) })
}

// mentioned reports whether a process has dir in its environment.
func mentioned(t *testing.T, dir string) bool {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if data, err := os.ReadFile(n); err == nil && strings.Contains(string(data), "HOME="+dir) {
			return true
		}
	}
	return false
}

// TestProtocols: what is no network protocol is refused even where git would allow it.
func TestProtocols(t *testing.T) {
	u := newUpstream(t)
	u.commit("f", "local")
	for _, remote := range []string{"file://" + u.dir, u.dir, "ext::git upload-pack " + u.dir} {
		r, err := OpenRepo(t.Context(), &GitURL{Remote: remote, Scheme: "https", Host: "h"}, t.TempDir(), GitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), "not allowed") {
			t.Errorf("%s: got %v", remote, err)
		}
	}
}

//go:build integration

package integration

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// gitHost serves one repository, which wants a password over http and a key over ssh.
type gitHost struct {
	web  string // HOST:PORT of the web server
	http string // its address there
	git  string // the same in kaniko's spelling
	path string // where it is, for ssh
}

// newGitHost serves a repository whose directory service is a build that needs the
// base busybox of a registry.
func newGitHost(t *testing.T, reg *registryServer) *gitHost {
	t.Helper()
	dir, err := os.MkdirTemp(suite.dir, "git-") //nolint:usetesting // every user has to reach it
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	makeRepo(t, filepath.Join(dir, "src"), map[string]string{
		"service/Dockerfile": "FROM " + reg.host() + "/busybox\nCOPY . /app/\nRUN cat /app/word > /copied\nCMD [\"cat\", \"/copied\"]\n",
		"service/word":       helloText,
		"other":              "not of the service\n",
	})
	web := filepath.Join(dir, "web")
	bare := filepath.Join(web, "private", "app.git")
	output(t, program("git", "clone", "-q", "--bare", filepath.Join(dir, "src"), bare))
	h, err := webHandler(web)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	return &gitHost{web: host, http: srv.URL + "/private/app.git", git: "git://" + host + "/private/app.git", path: bare}
}

// TestGitToRegistry: what a CI job does. The context is in a repository that wants a
// password or a key, base and destination in a registry that wants another password;
// `fbuild build` and the executor make the same image of it, and show no password.
func TestGitToRegistry(t *testing.T) {
	for _, p := range []string{"git", "ssh", "sshd", "ssh-keygen"} {
		need(t, haveProgram(p) || sbin(p) != "", p)
	}
	const password = "registry-s3cr3t"
	reg := busyRegistry(t, registryOptions{user: "ci", password: password})
	git := newGitHost(t, reg)
	eachActor(t, func(t *testing.T, h *home) {
		s, err := startSSHD(filepath.Join(h.dir, "sshd"), h.uid, h.gid)
		if err != nil {
			t.Fatal(err)
		}
		defer s.stop()
		if err := s.knownTo(h.dir); err != nil {
			t.Fatal(err)
		}
		h.login(reg.host(), "ci", password)
		h.env = append(h.env, "TOKEN="+webPassword, "GIT_TOKEN="+webPassword, "GIT_PULL_METHOD=http")
		var first listing
		for _, tt := range []struct {
			name string
			args []string
		}{
			{"build-http", []string{"build", "--push", "--secret", "id=GIT_AUTH_TOKEN,env=TOKEN", "-t", reg.host() + "/" + h.name + ":build-http", git.http + "#main:service"}},
			{"build-ssh", []string{"build", "--push", "--ssh", "default=" + s.key, "-t", reg.host() + "/" + h.name + ":build-ssh", s.addr + git.path + "#main:service"}},
			{"executor", []string{"executor", "-v", "trace", "-c", git.git + "#refs/heads/main", "--context-sub-path", "service", "-d", reg.host() + "/" + h.name + ":executor"}},
		} {
			r := h.ok(tt.args...)
			if out := r.stdout + r.stderr; strings.Contains(out, password) || strings.Contains(out, webPassword) {
				t.Errorf("%s: a password is in the output:\n%s", tt.name, out)
			}
			img, err := reg.pull(h.name + ":" + tt.name)
			if err != nil {
				t.Fatalf("%s: pull what was pushed: %v", tt.name, err)
			}
			li, err := list(img)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = li
			}
			if d := diffListings(first, li, nil); d != "" || len(li) < 5 {
				t.Errorf("%s: image of %d files differs:\n%s", tt.name, len(li), d)
			}
		}
	})
}

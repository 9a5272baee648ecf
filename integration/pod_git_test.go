//go:build integration

package integration

import (
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitContext is deploy/pod.yaml as it stands: fbuild's image with git, a private
// repository as the context, credentials for the registry in a mounted secret.
func (p *pod) gitContext(t *testing.T) {
	for _, name := range append(requires["debian"], "ssh") {
		need(t, haveProgram(name) || sbin(name) != "", name)
	}
	p.gitImage(t)
	const password = "registry-s3cr3t"
	reg := busyRegistry(t, registryOptions{user: "pod", password: password})
	git := newGitHost(t, reg)
	p.write(t, "docker/config.json", auth(reg.host(), "pod", password))
	s, err := startSSHD(filepath.Join(p.dir, "sshd"), os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	// The container's /root/.ssh, as a mounted secret has it.
	ssh := filepath.Join(p.dir, "ssh")
	key, err := os.ReadFile(s.key)
	if err := errors.Join(err, s.knownTo(p.dir), os.Rename(filepath.Join(p.dir, ".ssh"), ssh), os.WriteFile(filepath.Join(ssh, "id_ed25519"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	mounts := []string{"-v", p.dir + "/docker:/kaniko/.docker:ro", "-v", ssh + ":/root/.ssh:ro"}
	for _, tt := range []struct {
		name string
		env  []string
		args []string
	}{
		{"http", []string{"-e", "TOKEN=" + webPassword}, []string{"build", git.http + "#main:service", "--push", "--secret=id=GIT_AUTH_TOKEN,env=TOKEN", "--tag=" + reg.host() + "/pod:http"}},
		{"ssh", nil, []string{"build", s.addr + git.path + "#main:service", "--push", "--ssh=default=/root/.ssh/id_ed25519", "--tag=" + reg.host() + "/pod:ssh"}},
		// Not in /workspace, which has another Dockerfile here: like kaniko's, the executor looks there first.
		{"executor", []string{"-w", "/", "-e", "GIT_TOKEN=" + webPassword, "-e", "GIT_PULL_METHOD=http", "--entrypoint", "/kaniko/executor"}, []string{"--context=" + git.git + "#refs/heads/main", "--context-sub-path=service", "--destination=" + reg.host() + "/pod:executor"}},
	} {
		out, code := p.run("fbuild:git", append(tt.env, mounts...), tt.args...)
		if code != 0 || strings.Contains(out, password) || strings.Contains(out, webPassword) {
			t.Errorf("%s: got exit code %d, want 0 and no password in\n%s", tt.name, code, out)
			continue
		}
		img, err := reg.pull("pod:" + tt.name)
		if err != nil {
			t.Fatalf("%s: pull what was pushed: %v", tt.name, err)
		}
		files, err := list(img)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := files["2 copied"]; !ok {
			t.Errorf("%s: the image lacks /copied: %v", tt.name, files)
		}
	}
}

// gitImage builds the image of deploy with git in it, on this suite's Debian.
func (p *pod) gitImage(t *testing.T) {
	t.Helper()
	base, err := debianBase()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(p.dir, "git.tar")
	args := append([]string{
		suite.bin, "--root", p.dir + "/store", "-q", "--target", "git", "-t", "fbuild:git", "-o", "type=docker,dest=" + archive,
		"--build-context", "debian:bookworm-slim=oci-layout://" + base,
	}, proxyArgs()...)
	output(t, osexec.CommandContext(t.Context(), "../deploy/image", args...))
	p.docker("load", "-qi", archive)
}

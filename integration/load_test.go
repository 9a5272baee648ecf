//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loadHome is a home with an image to load: two layers of ours on a base.
func loadHome(t *testing.T, l leg) *home {
	t.Helper()
	h := newHome(t, l)
	h.write(map[string]string{"hello": "hello from fbuild\n"})
	h.dockerfile("FROM busybox", "COPY --chown=7:8 hello /hello", "RUN mkdir /made && ln /hello /made/link", `CMD ["cat", "/made/link"]`)
	return h
}

const helloText = "hello from fbuild\n"

// with runs an fbuild with more variables in its environment.
func (h *home) with(env []string, args ...string) result {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Env = append(cmd.Env, env...)
	return h.finish(cmd)
}

// TestLoadDocker: --load puts the image under every name into the docker daemon,
// with the id that fbuild said; the archive of -o type=docker does the same by
// hand, in docker and in containerd; the containers run.
func TestLoadDocker(t *testing.T) {
	needRoot(t)
	d := startDockerd(t)
	h := loadHome(t, coveringLegs(t.Name())[0])
	env := []string{"DOCKER_HOST=" + d.host(), "FBUILD_LOADER="}
	r := h.with(env, "build", "-t", "loaded:1", "-t", "example.com/team/loaded:2", "--load", "--iidfile", "id", "-o", "type=docker,dest=x.tar,name=archive", ".")
	if r.code != 0 {
		t.Fatalf("exit code: got %d, want 0\n%s", r.code, r.stderr)
	}
	for _, want := range []string{"loading with docker", "Loaded image: loaded:1", "Loaded image: example.com/team/loaded:2", "sending tarball"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("output: lacks %q\n%s", want, r.stderr)
		}
	}
	id, err := os.ReadFile(filepath.Join(h.ctx, "id"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"loaded:1", "example.com/team/loaded:2"} {
		if got := strings.TrimSpace(d.docker("image", "inspect", "--format", "{{.Id}}", name)); got != string(id) {
			t.Errorf("id of %s: got %s, want %s", name, got, id)
		}
	}
	if got := d.docker("run", "--rm", "--network", "none", "loaded:1"); got != helloText {
		t.Errorf("docker run: got %q, want %q", got, helloText)
	}
	archive := filepath.Join(h.ctx, "x.tar")
	d.docker("load", "-i", archive)
	if got := d.docker("run", "--rm", "--network", "none", "archive", "stat", "-c", "%u:%g %h", "/hello"); got != "7:8 2\n" {
		t.Errorf("docker run of the archive: got %q, want %q", got, "7:8 2\n")
	}
	d.containerd("image", "import", archive)
	defer d.containerd("image", "rm", "docker.io/library/archive:latest")
	if got := d.containerd("run", "--rm", "--snapshotter", "native", "docker.io/library/archive:latest", "fbuild-test"); got != helloText {
		t.Errorf("ctr run: got %q, want %q", got, helloText)
	}
	d.diesInTheMiddle(h)
}

// diesInTheMiddle: a docker load that is killed half way is one message, with a
// hint, and no image.
func (d *dockerd) diesInTheMiddle(h *home) {
	h.t.Helper()
	bin := h.fakeProgram("docker", `case "$*" in *version*) exec "$REAL" "$@";; esac; head -c 2000 >/dev/null; echo "daemon: going away" >&2; kill -9 $$`)
	r := h.with([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "DOCKER_HOST=" + d.host(), "FBUILD_LOADER=docker"}, "build", "-t", "half", "--load", ".")
	checkFailure(h.t, r, 1, "docker load: signal: killed: daemon: going away", "type=docker,dest=FILE")
	if err := d.command("image", "inspect", "half").Run(); err == nil {
		h.t.Error("an image that was loaded half is there")
	}
}

// fakeProgram makes a directory with a shell script called name, which finds the
// program that it stands in for in $REAL.
func (h *home) fakeProgram(name, script string) string {
	h.t.Helper()
	found, err := osexec.LookPath(name)
	if err != nil {
		found = "/bin/false"
	}
	bin, err := os.MkdirTemp(h.dir, "bin-")
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, name), fmt.Appendf(nil, "#!/bin/sh\nREAL=%s\n%s\n", found, script), 0o755)
	}
	if err == nil {
		err = h.give(bin)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return bin
}

// TestLoadPodman: without a docker daemon the image goes into podman; it runs, and
// the archive loads by hand too.
func TestLoadPodman(t *testing.T) {
	needRoot(t) // rootless podman's runtime refuses hosts with cgroup v1
	need(t, haveProgram("podman") && haveProgram("runc"), "podman and runc")
	h := loadHome(t, coveringLegs(t.Name())[0])
	storage := h.podmanStorage(t)
	env := append(slices.Clip(storage), "DOCKER_HOST=unix://"+filepath.Join(h.dir, "none.sock"))
	r := h.with(env, "build", "-t", "loaded:1", "-t", "example.com/team/loaded:2", "--load", "-o", "type=docker,dest=x.tar,name=example.com/archive", ".")
	if r.code != 0 || !strings.Contains(r.stderr, "loading with podman") {
		t.Fatalf("exit code: got %d, want 0 and podman\n%s", r.code, r.stderr)
	}
	podman := func(args ...string) string {
		t.Helper()
		cmd := program("podman", append([]string{"--cgroup-manager", "cgroupfs", "--runtime", "runc"}, args...)...)
		cmd.Env = append(os.Environ(), storage...)
		return output(t, cmd)
	}
	run := []string{"run", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"}
	for _, name := range []string{"docker.io/library/loaded:1", "example.com/team/loaded:2"} {
		if got := podman(append(run, name)...); got != helloText {
			t.Errorf("podman run %s: got %q, want %q", name, got, helloText)
		}
	}
	podman("load", "-i", filepath.Join(h.ctx, "x.tar"))
	if got := podman(append(run, "example.com/archive")...); got != helloText {
		t.Errorf("podman run of the archive: got %q, want %q", got, helloText)
	}
	podman("rmi", "--all", "--force")
}

// podmanStorage returns the environment of a podman whose images lie in the home.
func (h *home) podmanStorage(t *testing.T) []string {
	t.Helper()
	flags, err := h.storage()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(h.dir, "storage.conf")
	text := fmt.Sprintf("[storage]\ngraphroot = %q\nrunroot = %q\ndriver = %q\n", flags[1], flags[3], flags[5])
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mountsUnder(flags[1]) { // podman's own directory stays a mount
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(flags[1]); err != nil {
			t.Error(err)
		}
	})
	return []string{"CONTAINERS_STORAGE_CONF=" + conf, "FBUILD_LOADER="}
}

// TestLoadArchive: the archive is an OCI layout and a docker archive in one, of
// the same image, and layers are in it as the store has them.
func TestLoadArchive(t *testing.T) {
	need(t, haveProgram("skopeo"), "skopeo")
	eachActor(t, func(t *testing.T, _ *home) {
		h := loadHome(t, coveringLegs(t.Name())[0])
		h.ok("build", "-t", "a:1", "-t", "b:2", "-o", "type=docker,dest=x.tar", "-o", "type=oci,dest=layout,tar=false", ".")
		if names := output(t, program("tar", "tf", filepath.Join(h.ctx, "x.tar"))); !strings.Contains(names, "\nrepositories\n") {
			t.Errorf("entries: got %q, want repositories among them", names)
		}
		var got []string
		for _, ref := range []string{"docker-archive:x.tar:a:1", "docker-archive:x.tar:docker.io/library/b:2", "oci-archive:x.tar:1", "oci:layout:2"} {
			cmd := program("skopeo", "inspect", "--config", "--raw", ref)
			cmd.Dir = h.ctx
			got = append(got, output(t, cmd))
		}
		for i, g := range got {
			if g != got[0] || g == "" {
				t.Errorf("config %d: got %s\nwant %s", i, g, got[0])
			}
		}
		var manifest []struct{ Layers []string }
		raw := output(t, program("tar", "xOf", filepath.Join(h.ctx, "x.tar"), "manifest.json"))
		if err := json.Unmarshal([]byte(raw), &manifest); err != nil || len(manifest) != 1 {
			t.Fatalf("manifest.json: %v: %s", err, raw)
		}
		for _, l := range manifest[0].Layers {
			if _, err := os.Stat(filepath.Join(h.store, l)); err != nil {
				t.Errorf("layer %s of the archive is not the store's: %v", l, err)
			}
		}
	})
}

// TestLoadNowhere: with nobody to take the image the build ends before its first
// step.
func TestLoadNowhere(t *testing.T) {
	h := loadHome(t, coveringLegs(t.Name())[0])
	bin := h.fakeProgram("podman", "exit 1")
	env := []string{"PATH=" + bin, "DOCKER_HOST=unix://" + filepath.Join(h.dir, "none.sock")}
	r := h.with(append(env, "FBUILD_LOADER="), "build", "--load", ".")
	checkFailure(t, r, 1, "nothing to load the image into: docker is not installed; podman does not answer", "ctr image import")
	if strings.Contains(r.stderr, "[1/") {
		t.Errorf("a step ran:\n%s", r.stderr)
	}
	r = h.with(append(env, "FBUILD_LOADER=nerdctl"), "build", "--load", ".")
	checkFailure(t, r, 2, `FBUILD_LOADER="nerdctl"`, "docker and podman")
}

// TestLoadInterrupted: Ctrl-C while the archive is under way ends the program that
// takes it, too.
func TestLoadInterrupted(t *testing.T) {
	h := loadHome(t, coveringLegs(t.Name())[0])
	bin := h.fakeProgram("podman", `case "$1" in version) exit 0;; esac; echo $$ >"$HOME/loading.new"; mv "$HOME/loading.new" "$HOME/loading"; exec sleep 1000`)
	h.env = append(h.env, "PATH="+bin+":/usr/bin:/bin", "FBUILD_LOADER=podman")
	p := h.start("build", "--load", ".")
	name := filepath.Join(h.dir, "loading")
	p.until("podman load", func() bool { _, err := os.Stat(name); return err == nil })
	began := time.Now()
	if err := unix.Kill(p.pid(), unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	checkFailure(t, p.wait(), 130, "interrupted", "")
	if took := time.Since(began); took > soon {
		t.Errorf("end after the interruption: got %v, want it at once", took)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("podman load after the end: got %v, want no such process", err)
	}
}

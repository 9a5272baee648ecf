//go:build integration

package integration

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// podArgs run a container as deploy/pod.yaml has it: root with fewer capabilities than the default, the default seccomp profile, a read-only root, no device. The network is
// the host's, where the test's registry is. WITHOUT may hold a capability to leave out.
func podArgs(without []string) []string {
	args := []string{"run", "--rm", "--network", "host", "--read-only", "--cap-drop", "ALL"}
	for c := range strings.FieldsSeq("CHOWN DAC_OVERRIDE FOWNER FSETID SETFCAP SETGID SETPCAP SETUID KILL NET_BIND_SERVICE SYS_CHROOT MKNOD") {
		if !slices.Contains(without, c) { // behind --cap-drop
			args = append(args, "--cap-add", c)
		}
	}
	return args
}

// pod is a docker daemon with fbuild's own image in it, and what its containers find.
type pod struct {
	*dockerd
	dir string // contexts and the like
}

// TestPod runs fbuild's own image where kaniko lived: as root in a container that may neither mount nor make namespaces.
func TestPod(t *testing.T) {
	p := &pod{dockerd: startDockerd(t), dir: t.TempDir()}
	p.images(t)
	t.Run("build and push", p.buildAndPush)
	t.Run("own file system", p.ownFileSystem)
	t.Run("credentials", p.credentials)
	t.Run("git context", p.gitContext)
	t.Run("nothing left", p.nothingLeft)
	t.Run("bad", p.bad)
}

// images builds fbuild's image by deploy/image, and one with a shell around the same binary, and loads both.
func (p *pod) images(t *testing.T) {
	t.Helper()
	for tag, args := range map[string][]string{
		"fbuild:test":  {"../deploy/image", suite.bin, "-o", "type=docker,dest=" + p.dir + "/fbuild.tar"},
		"fbuild:shell": {suite.bin, "build", "-o", "type=docker,dest=" + p.dir + "/shell.tar", "--build-context", "busybox=oci-layout://" + filepath.Join(suite.bases, "busybox"), p.dir + "/shell"},
	} {
		p.write(t, "shell/Dockerfile", "FROM busybox\nCOPY --chmod=0755 fbuild /usr/local/bin/fbuild\nENV PATH=/usr/local/bin:/bin:/usr/bin FBUILD_ROOT=/work/store\n")
		if err := copyFile(suite.bin, filepath.Join(p.dir, "shell", "fbuild")); err != nil {
			t.Fatal(err)
		}
		cmd := program(args[0], append(args[1:], "--root", p.dir+"/store", "-q", "-t", tag)...)
		if args[0] == suite.bin { // the context comes last
			last := len(args) - 1
			cmd = program(args[0], append(append(args[1:last:last], "--root", p.dir+"/store", "-q", "-t", tag), args[last])...)
		}
		output(t, cmd)
	}
	p.docker("load", "-qi", p.dir+"/fbuild.tar")
	p.docker("load", "-qi", p.dir+"/shell.tar")
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

func (p *pod) write(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// run starts a container and returns what it printed and its exit code. MORE are arguments of docker, ARGS those behind the image.
func (p *pod) run(image string, more []string, args ...string) (string, int) {
	p.t.Helper()
	all := append(podArgs(more), "-v", suite.bases+":/bases:ro", "-v", p.dir+"/ctx:/workspace:ro")
	cmd := p.command(append(append(append(all, more...), image), args...)...)
	out, err := cmd.CombinedOutput()
	var exit *osexec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// buildArgs build the directory /workspace.
func buildArgs(more ...string) []string {
	return append(append([]string{"build", "--progress=plain", "--build-context", "busybox=oci-layout:///bases/busybox"}, more...), ".")
}

// auth is a docker config.json with credentials for a registry.
func auth(host, user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

func (p *pod) buildAndPush(t *testing.T) {
	reg := newRegistry(registryOptions{user: "pod", password: "hush"})
	t.Cleanup(reg.close)
	p.write(t, "docker/config.json", auth(reg.host(), "pod", "hush"))
	p.write(t, "ctx/file", "from the context\n")
	p.write(t, "ctx/Dockerfile", `FROM busybox
RUN --mount=type=cache,target=/cache,id=c echo 1 >> /cache/runs && cp /cache/runs /runs
RUN --mount=type=bind,source=file,target=/bound cat /bound > /copied
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token test "$TOKEN" = s3cr3t && test "$(cat /run/secrets/token)" = s3cr3t
RUN --network=none ! wget -T 1 http://127.0.0.1/ 2>/dev/null
RUN echo 'app:x:1000:1000::/:/bin/sh' >> /etc/passwd && chown 1000 /copied
USER app
RUN id -u > /tmp/who && echo > /dev/null
`)
	out, code := p.run("fbuild:test", []string{"-v", p.dir + "/docker:/kaniko/.docker:ro", "-e", "TOKEN=s3cr3t"},
		buildArgs("-t", reg.host()+"/app:1", "--push", "--secret", "id=token,env=TOKEN")...)
	if code != 0 {
		t.Fatalf("build in a pod: got exit code %d, want 0\n%s", code, out)
	}
	img, err := reg.pull("app:1")
	if err == nil {
		err = validate.Image(img)
	}
	if err != nil {
		t.Fatalf("image in the registry: %v", err)
	}
	files, err := list(img)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(files)
	for _, unwanted := range []string{"run/secrets", "bound", "dev/null", "proc/meminfo", "s3cr3t"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("the image holds %q, want no trace of mounts", unwanted)
		}
	}
	for _, wanted := range []string{"runs", "copied", "tmp/who"} {
		if !strings.Contains(text, wanted) {
			t.Errorf("the image lacks %q", wanted)
		}
	}
}

// ownFileSystem is the experiment that shows kaniko's fault: an image whose base brings its own /etc is built in a container that may write to its own root, and every file
// outside the work directory is what it was.
func (p *pod) ownFileSystem(t *testing.T) {
	p.write(t, "ctx/Dockerfile", "FROM busybox\nRUN echo mine > /etc/own && rm /etc/passwd && ls -la /etc && rm -rf /usr/local /bin/vi && mkdir /kaniko && touch /kaniko/x\n")
	script := `look() { ls -la /etc; find / -xdev -path /work -prune -o -type f -exec md5sum {} + | sort; find / -xdev -path /work -prune -o -exec stat -c '%n %a %u %g %Y' {} + | sort; }
		look > /work/before && fbuild build -q --build-context busybox=oci-layout:///bases/busybox /workspace > /work/log 2>&1 && look > /work/after || cat /work/log
		cmp /work/before /work/after && wc -l < /work/before`
	cmd := p.command("run", "--rm", "--network", "none", "-v", "/work", "-v", suite.bases+":/bases:ro", "-v", p.dir+"/ctx:/workspace:ro", "fbuild:shell", "sh", "-c", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the container's own files before and after: %v\n%s", err, out)
	}
	if lines := strings.TrimSpace(string(out)); len(lines) < 2 {
		t.Errorf("looked at %s lines, want many", lines)
	}
}

// credentials: a RUN gets at neither the registry's password nor anything else of the builder.
func (p *pod) credentials(t *testing.T) {
	p.write(t, "docker/config.json", auth("registry.example", "pod", "TOPSECRET"))
	build := program("go", "build", "-o", filepath.Join(p.dir, "ctx", "escape"), "../exec/testdata/escape")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output(t, build)
	p.write(t, "ctx/Dockerfile", `FROM busybox
COPY escape /probe
RUN /probe 1
RUN env; cat /kaniko/.docker/config.json /proc/1/environ /proc/*/environ /proc/1/root/kaniko/.docker/config.json /work/store/index.json 2>&1 | grep -v -i 'no such file' && echo BROKE; true
RUN grep -r -l -e VE9QU0VDUkVU -e cG9kOlRPUFNFQ1JFVA -e TOPSECRET /etc /root /tmp /dev/shm /proc /sys 2>/dev/null && echo BROKE; true
USER 1000
RUN /probe 1
`)
	out, code := p.run("fbuild:test", []string{"-v", p.dir + "/docker:/kaniko/.docker:ro", "-e", "REGISTRY_PASSWORD=TOPSECRET"}, buildArgs()...)
	if code != 0 || strings.Contains(out, "BROKE:") || strings.Contains(out, " BROKE\n") {
		t.Errorf("a RUN that looks for credentials: got exit code %d and\n%s\nwant 0 and nothing found", code, out)
	}
	if strings.Count(out, " done\n") < 2 || strings.Contains(out, "REGISTRY_PASSWORD=") {
		t.Errorf("got\n%s\nwant two probes done, and nothing of the builder's environment", out)
	}
}

// nothingLeft: daemons of a RUN end with it (LAWS 12), and fbuild killed leaves no process.
func (p *pod) nothingLeft(t *testing.T) {
	p.write(t, "ctx/Dockerfile", "FROM busybox\nRUN for i in 1 2 3; do setsid sh -c 'setsid sleep 4711 & trap \"\" TERM HUP; sleep 4712' >/dev/null 2>&1 & done; echo started > /x\nRUN ! ls /proc/[0-9]*\n")
	p.write(t, "ctx/slow/Dockerfile", "FROM busybox\nRUN setsid sh -c 'setsid sleep 4713 &'; sleep 4713\n")
	script := `b="fbuild build -q --build-context busybox=oci-layout:///bases/busybox"
		$b /workspace >/dev/null || exit 1
		ps | grep '[s]leep 471' && exit 2
		$b /workspace/slow >/dev/null 2>&1 & pid=$!
		for i in $(seq 2000); do ps | grep -q '[s]leep 4713' && break; sleep 0.05; done
		ps | grep -q '[s]leep 4713' || exit 3
		kill -9 $pid
		for i in $(seq 2000); do ps | grep -q -e '[s]leep 471' -e '[f]build' || exit 0; sleep 0.05; done
		ps; exit 4`
	p.write(t, "ctx/script", script) // not in the arguments of a process, which ps shows
	out, code := p.run("fbuild:shell", []string{"-v", "/work"}, "sh", "/workspace/script")
	if code != 0 || strings.TrimSpace(out) != "" {
		t.Errorf("processes left: got exit code %d and %q, want 0 and nothing", code, out)
	}
}

// bad is what a host or a Dockerfile can do wrong: one message, what to do, the right exit code.
func (p *pod) bad(t *testing.T) {
	p.write(t, "ctx/Dockerfile", "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n")
	for _, tt := range []struct {
		name string
		args []string // of docker
		more []string // of fbuild build
		code int
		want string
	}{
		{"full disk", []string{"--tmpfs", "/work:size=24m,dev,exec,mode=755"}, nil, 1, "o space left on device"},
		{"read-only store", []string{"-e", "FBUILD_ROOT=/usr/store"}, nil, 1, "read-only file system"},
		{"no devices", []string{"--tmpfs", "/work:size=100m"}, nil, 3, "is mounted nodev"},
		{"ordinary user", []string{"--user", "1000", "-e", "HOME=/tmp", "--tmpfs", "/tmp:exec", "-e", "FBUILD_ROOT=/tmp/own"}, nil, 3, "run as root where that is a container's"},
		{"ordinary user, forced", []string{"--user", "1000", "-e", "HOME=/tmp", "--tmpfs", "/tmp:exec", "-e", "FBUILD_ROOT=/tmp/own"}, []string{"--isolation=chroot"}, 3, "only root can chroot"},
		{"no chroot allowed", []string{"--cap-drop", "SYS_CHROOT"}, nil, 3, "SYS_CHROOT"},
		{"namespaces forced", nil, []string{"--isolation=namespaces"}, 3, "seccomp"},
		{"fuse in a chroot", nil, []string{"--recorder=fuse"}, 1, "--recorder=walk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := p.run("fbuild:test", tt.args, buildArgs(tt.more...)...)
			if code != tt.code || !strings.Contains(out, tt.want) || !strings.Contains(out, "fbuild: error: ") {
				t.Errorf("got exit code %d, want %d, %q and an error in\n%s", code, tt.code, tt.want, out)
			}
		})
	}
}

//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/sys/unix"
)

// input is a real program with a real Dockerfile, testdata/inputs/NAME.
type input struct {
	name string
	args func(t *testing.T) ([]string, error) // named contexts and build arguments
	show []string                             // a command that shows that the image works
	want string                               // what it prints
	// varies matches the paths whose contents depend on the clock or on what ran at once.
	varies *regexp.Regexp
	// daemon runs what root has built; nil where tests are not root's.
	daemon *dockerd
	ci     string // whose leg is the only one with FBUILD_MATRIX=ci, "" for each
}

var inputs = []input{
	{
		name: "debian", args: sshArgs, show: []string{"cat", "/srv/report"},
		want:   `{"git": true, "libc": true, "sha": "b55bd371", "ssl": true, "sum": 499500, "uid": 0}` + "\n" + dependencyWord,
		varies: regexp.MustCompile(`^(var/cache/(ldconfig|debconf)/.*|srv/(repo|dependency)/\.git/.*|.*\.pyc|etc/ld\.so\.cache)$`),
	},
	{name: "go", args: goArgs, ci: "root", show: []string{"/bin/pack", "check"}, want: "checked 4000 bytes as uid 65532"},
	{
		name: "node", args: nodeArgs, ci: "user", show: []string{"node", "/app/dist/main.js"}, want: `shelves {"a":7,"b":1}`,
		varies: regexp.MustCompile(`^root/\.npm/.*$`),
	},
}

func debianArgs(*testing.T) ([]string, error) {
	base, err := debianBase()
	if err != nil {
		return nil, err
	}
	host, err := hostFiles()
	return append(proxyArgs(), "--build-context=debian=oci-layout://"+base, "--build-context=host="+host), err
}

// dependencyWord is in the repository that the Debian program clones.
const dependencyWord = "behind a key"

// sshArgs adds a repository that a sshd of this test serves to who has the key.
func sshArgs(t *testing.T) ([]string, error) {
	args, err := debianArgs(t)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(suite.dir, "ssh-") //nolint:usetesting // every user has to reach it
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	s, err := startSSHD(filepath.Join(dir, "sshd"), os.Getuid(), os.Getgid())
	if err != nil {
		return nil, err
	}
	t.Cleanup(s.stop)
	repo := filepath.Join(dir, "dependency")
	makeRepo(t, repo, map[string]string{"word": dependencyWord + "\n"})
	args = append(args, "--ssh=default="+s.key, "--build-arg=SSH_PORT="+s.port, "--build-arg=DEPENDENCY="+s.addr+repo)
	return args, os.Chmod(s.key, 0o644) // for who runs the build; fbuild asks no ssh to read it
}

// makeRepo makes a repository with one commit on main.
func makeRepo(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"commit", "-q", "-m", "one"}} {
		output(t, program("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)...))
	}
}

func goArgs(*testing.T) ([]string, error) {
	base, err := golangBase()
	if err != nil {
		return nil, err
	}
	host, err := hostFiles()
	args := append(proxyArgs(), "--build-context=golang=oci-layout://"+base, "--build-context=host="+host)
	for _, name := range []string{"GOPROXY", "GOSUMDB"} {
		v, gerr := goEnv(name)
		if gerr != nil {
			return nil, gerr
		}
		args = append(args, "--build-arg="+name+"="+v)
	}
	return args, err
}

// npmToken is the secret of the Node program.
const npmToken = "npm-t0ken-0005"

func nodeArgs(t *testing.T) ([]string, error) {
	args, err := debianArgs(t)
	if err != nil {
		return nil, err
	}
	node, err := toolchain()
	if err != nil {
		return nil, err
	}
	registry, err := osexec.CommandContext(context.Background(), "npm", "config", "get", "registry").Output()
	if err != nil {
		return nil, fmt.Errorf("npm config get registry: %w", err)
	}
	// As where the registry wants a token: both are in a file that no layer may hold.
	npmrc := filepath.Join(suite.dir, "npmrc")
	text := "registry=" + strings.TrimSpace(string(registry)) + "\n//registry.example/:_authToken=" + npmToken + "\n"
	if err := os.WriteFile(npmrc, []byte(text), 0o644); err != nil {
		return nil, err
	}
	args = append(args, "--secret=id=npmrc,src="+npmrc)
	if node == "" {
		return append(args, "--build-arg=NODE=debian"), nil
	}
	return append(args, "--build-context=toolchain="+node), nil
}

// toolchain returns where this host's node is, with npm beside it as nodejs.org
// has it; "" if that is spread over the system, as Debian has it.
func toolchain() (string, error) {
	node, err := osexec.LookPath("node")
	if err == nil {
		node, err = filepath.EvalSymlinks(node)
	}
	if err != nil {
		return "", err
	}
	prefix := filepath.Dir(filepath.Dir(node))
	if !executable(filepath.Join(prefix, "lib/node_modules/npm/bin/npm-cli.js")) || filepath.Base(node) != "node" {
		return "", nil
	}
	libs, err := osexec.CommandContext(context.Background(), "ldd", node).Output()
	if err != nil || strings.Contains(string(libs), "libnode") {
		return "", nil //nolint:nilerr // what ldd does not read is no node of nodejs.org
	}
	return prefix, nil
}

// legs are those of the test, but with FBUILD_MATRIX=ci the one that is set: the
// three inputs together then still have both users.
func (in input) legs(test string) []leg {
	if os.Getenv("FBUILD_MATRIX") != "ci" || in.ci == "" {
		return legs(test)
	}
	all := coveringLegs(test)
	i := slices.IndexFunc(all, func(l leg) bool { return l.name == in.ci })
	return all[max(0, i):][:1]
}

// requires are the programs that an input needs, beside those of the readers.
var requires = map[string][]string{
	"debian": {"debootstrap", "unshare", "tar", "git", "ssh-keygen", "sshd"},
	"go":     {"go", "busybox"},
	"node":   {"debootstrap", "unshare", "tar", "node", "npm"},
}

func TestInputs(t *testing.T) {
	var daemon *dockerd
	if os.Getuid() == 0 {
		daemon = startDockerd(t)
	}
	for _, in := range inputs {
		t.Run(in.name, func(t *testing.T) {
			for _, p := range append(requires[in.name], "skopeo", "umoci", "runc", "buildah", "podman") {
				need(t, haveProgram(p) || sbin(p) != "", p)
			}
			args, err := in.args(t)
			if err != nil {
				t.Fatal(err)
			}
			in.daemon = daemon
			var ls listings
			t.Run("as", func(t *testing.T) {
				for _, l := range in.legs(t.Name()) {
					t.Run(l.String(), func(t *testing.T) {
						t.Parallel()
						h := newHome(t, l)
						ls.add(h.leg, in.build(t, h, args))
					})
				}
			})
			ls.compare(t, in.varies)
		})
	}
}

// build builds an input, looks at the image with the programs of others, builds
// again, which must run nothing, and returns what the layers hold.
func (in input) build(t *testing.T, h *home, args []string) listing {
	t.Helper()
	if err := os.CopyFS(h.ctx, os.DirFS(filepath.Join("testdata", "inputs", in.name))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(h.ctx, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(map[string]string{"Dockerfile": strings.ReplaceAll(string(text), "registry.example", suite.reg.host())})
	reg := newRegistry(registryOptions{})
	t.Cleanup(reg.close)
	layout, name := filepath.Join(h.dir, "image"), reg.host()+"/"+in.name+":1"
	cmd := append([]string{
		"build", "--progress=plain", "-t", name, "-o", "type=oci,tar=false,dest=" + layout, "-o", "type=image", "--push",
	}, args...)
	first := h.build(append(cmd, ".")...)
	if strings.Contains(first.stdout+first.stderr, npmToken) {
		t.Error("the secret of the build is in its output")
	}
	img, err := reg.pull(in.name + ":1")
	if err != nil {
		t.Fatalf("pull: %v", err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("validate image in registry: %v", err)
	}
	h.readByOthers(t, in, layout, img)
	if h.uid == 0 {
		cmd = append(cmd, "-o", "type=docker,dest="+layout+".tar")
	}
	again := h.build(append(cmd, ".")...)
	if ran := ranSteps(again.stderr); len(ran) > 0 {
		t.Errorf("no-change rebuild ran %q", ran)
	}
	if a, b := writeRE.FindStringSubmatch(first.stderr), writeRE.FindStringSubmatch(again.stderr); a == nil || b == nil || a[1] != b[1] {
		t.Errorf("no-change rebuild: got image %q, want %q", b, a)
	}
	if h.uid == 0 {
		in.runByDaemons(t, layout+".tar", name)
	}
	if img, err = layoutImage(layout, ""); err != nil {
		t.Fatal(err)
	}
	l, err := list(img)
	if err != nil {
		t.Fatalf("list image: %v", err)
	}
	return l
}

// inputTime bounds one build of a real input, on a busy machine.
const inputTime = 15 * time.Minute

// build runs one fbuild that must succeed and may take long.
func (h *home) build(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), inputTime)
	defer cancel()
	cmd := osexec.CommandContext(ctx, "fbuild", args...)
	cmd.Dir, cmd.Env = h.ctx, h.env
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	r := h.finish(cmd)
	if r.code != 0 {
		h.t.Fatalf("fbuild %q: got exit code %d, want 0\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r
}

// listings are those of one input, by leg.
type listings struct {
	mu  sync.Mutex
	all map[leg]listing
}

func (ls *listings) add(l leg, li listing) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.all == nil {
		ls.all = map[leg]listing{}
	}
	ls.all[l] = li
}

// compare demands that every leg made the same image, file by file, whoever built
// and recorded it.
func (ls *listings) compare(t *testing.T, varies *regexp.Regexp) {
	t.Helper()
	var first leg
	for l, li := range ls.all {
		if first.recorder == "" {
			first = l
			continue
		}
		if d := diffListings(ls.all[first], li, varies); d != "" {
			t.Errorf("images of %s and %s differ:\n%s", first, l, d)
		}
	}
}

// imageUser reports whom an image runs as.
func imageUser(t *testing.T, img v1.Image) string {
	t.Helper()
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return cf.Config.User
}

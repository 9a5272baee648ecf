//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
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
	args func() ([]string, error) // named contexts and build arguments
	show []string                 // a command that shows that the image works
	want string                   // what it prints
	// varies matches the paths whose contents depend on the clock or on what ran at once.
	varies *regexp.Regexp
}

var inputs = []input{
	{
		name: "debian", args: debianArgs, show: []string{"cat", "/srv/report"},
		want: `{"git": true, "libc": true, "sha": "b55bd371", "ssl": true, "sum": 499500, "uid": 0}`,
		varies: regexp.MustCompile(`^(var/log/.*|var/lib/apt/lists/.*|var/cache/(apt|ldconfig)/.*|var/cache/debconf/.*|` +
			`srv/repo/\.git/.*|.*\.pyc|etc/ld\.so\.cache|root/.*)$`),
	},
	{name: "go", args: goArgs, show: []string{"/bin/pack", "check"}, want: "checked 4000 bytes as uid 65532"},
	{
		name: "node", args: nodeArgs, show: []string{"node", "/app/dist/main.js"}, want: `shelves {"a":7,"b":1}`,
		varies: regexp.MustCompile(`^root/\.npm/.*$`),
	},
}

func debianArgs() ([]string, error) {
	base, err := debianBase()
	if err != nil {
		return nil, err
	}
	host, err := hostFiles()
	return append(proxyArgs(), "--build-context=debian=oci-layout://"+base, "--build-context=host="+host), err
}

func goArgs() ([]string, error) {
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

func nodeArgs() ([]string, error) {
	args, err := debianArgs()
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
	args = append(args, "--build-arg=NPM_CONFIG_REGISTRY="+strings.TrimSpace(string(registry)))
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

// requires are the programs that an input needs, beside those of the readers.
var requires = map[string][]string{
	"debian": {"debootstrap", "unshare", "tar"},
	"go":     {"go", "busybox"},
	"node":   {"debootstrap", "unshare", "tar", "node", "npm"},
}

func TestInputs(t *testing.T) {
	for _, in := range inputs {
		t.Run(in.name, func(t *testing.T) {
			for _, p := range append(requires[in.name], "skopeo", "umoci", "runc", "buildah", "podman") {
				need(t, haveProgram(p) || sbin(p) != "", p)
			}
			args, err := in.args()
			if err != nil {
				t.Fatal(err)
			}
			var ls listings
			t.Run("as", func(t *testing.T) {
				eachLeg(t, func(t *testing.T, h *home) { ls.add(h.leg, in.build(t, h, args)) })
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
	if err := h.give(h.ctx); err != nil {
		t.Fatal(err)
	}
	reg := newRegistry(registryOptions{})
	t.Cleanup(reg.close)
	layout := filepath.Join(h.dir, "image")
	cmd := append([]string{
		"build", "--progress=plain", "-t", reg.host() + "/" + in.name + ":1",
		"-o", "type=oci,tar=false,dest=" + layout, "-o", "type=image", "--push",
	}, args...)
	first := h.build(append(cmd, ".")...)
	img, err := reg.pull(in.name + ":1")
	if err != nil {
		t.Fatalf("pull: %v", err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("validate image in registry: %v", err)
	}
	h.readByOthers(t, in, layout, img)
	again := h.build(append(cmd, ".")...)
	if ran := ranSteps(again.stderr); len(ran) > 0 {
		t.Errorf("no-change rebuild ran %q", ran)
	}
	if a, b := writeRE.FindStringSubmatch(first.stderr), writeRE.FindStringSubmatch(again.stderr); a == nil || b == nil || a[1] != b[1] {
		t.Errorf("no-change rebuild: got image %q, want %q", b, a)
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

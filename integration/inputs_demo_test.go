//go:build integration

package integration

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// fbuildScript is the fbuild of the demo: the one under test, with the leg's
// recorder and the comparison of layers.
const fbuildScript = `#!/bin/sh
command=$1
shift
[ "$command" != build ] || set -- --recorder=%s --check-layers "$@"
exec %s "$command" "$@"
`

var layersRE = regexp.MustCompile(`(?m)^docker\.io/library/peek:latest +linux/\w+ +[0-9.]+ MB in 2 layers$`)

// TestInputsDemo does what `make demo` does: in a copy of demo, which is the only
// thing that it may write to.
func TestInputsDemo(t *testing.T) {
	need(t, haveProgram("go") && haveProgram("busybox"), "go and busybox")
	eachLeg(t, func(t *testing.T, h *home) {
		demo := filepath.Join(h.dir, "demo")
		for _, name := range []string{"app", "base"} {
			if err := os.CopyFS(filepath.Join(demo, name), os.DirFS(filepath.Join("../demo", name))); err != nil {
				t.Fatal(err)
			}
		}
		script, err := os.ReadFile("../demo/run")
		if err == nil {
			err = os.WriteFile(filepath.Join(demo, "run"), script, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		fbuild := filepath.Join(h.dir, "fbuild.sh")
		if err := os.WriteFile(fbuild, fmt.Appendf(nil, fbuildScript, h.recorder, suite.bin), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := h.give(demo); err != nil {
			t.Fatal(err)
		}
		before := filesOf(t, h.dir)
		cmd := osexec.CommandContext(t.Context(), filepath.Join(demo, "run"), fbuild)
		cmd.Dir = h.dir
		cmd.Env = []string{"HOME=" + h.dir, "TMPDIR=" + h.tmp, "PATH=" + os.Getenv("PATH")}
		for _, name := range []string{"GOPROXY", "GOROOT"} {
			v, err := goEnv(name)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(cmd.Env, name+"="+v)
		}
		if os.Getuid() == 0 && h.uid != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.gid)}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("demo: %v\n%s", err, out)
		}
		if !layersRE.Match(out) || !strings.Contains(string(out), "first build ") {
			t.Errorf("demo printed:\n%s", out)
		}
		if after := filesOf(t, h.dir); after != before {
			t.Errorf("files beside demo/out: got %s, want %s", after, before)
		}
		if r := h.run("--root", filepath.Join(demo, "out", "store"), "cache", "verify"); r.code != 0 {
			t.Errorf("cache verify: %s%s", r.stdout, r.stderr)
		}
		// As the README says, without a mount or a file of another owner in the way.
		if err := os.RemoveAll(filepath.Join(demo, "out")); err != nil {
			t.Errorf("make clean: %v", err)
		}
	})
}

// filesOf lists what lies in a home, but for demo/out and what the go command
// keeps in every home.
func filesOf(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	for _, d := range []string{dir, filepath.Join(dir, "demo"), filepath.Join(dir, "demo", "app"), filepath.Join(dir, "demo", "base")} {
		list, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if n := e.Name(); n != "out" && n != ".config" && n != ".cache" {
				names = append(names, filepath.Join(filepath.Base(d), n))
			}
		}
	}
	return strings.Join(names, " ")
}

//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// suite is what every test shares, made once by TestMain.
var suite struct {
	dir    string // world-readable, removed at the end
	bin    string // a copy of the fbuild under test
	bases  string // OCI layouts, one directory each
	actors []actor
	reg    *registryServer // without credentials; serves busybox
}

func TestMain(m *testing.M) {
	testscript.Main(suiteRunner{m}, map[string]func(){"fbuild": supervise})
}

type suiteRunner struct{ m *testing.M }

// Run makes the suite's directory, runs the tests and removes everything.
func (r suiteRunner) Run() int {
	dir, err := os.MkdirTemp("", "fbuild-itest-")
	if err == nil {
		suite.dir = dir
		err = setup()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration: set up:", err)
		return 1
	}
	code := r.m.Run()
	suite.reg.close()
	if left := mountsUnder(dir); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "integration: mounts left behind: %q\n", left)
		code = 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "integration: clean up:", err)
		code = 1
	}
	return code
}

func setup() error {
	if err := os.Chmod(suite.dir, 0o755); err != nil {
		return err
	}
	var err error
	if suite.bin, err = binary(suite.dir); err != nil {
		return err
	}
	if suite.actors, err = findActors(); err != nil {
		return err
	}
	if suite.bases, err = makeBases(suite.dir); err != nil {
		return err
	}
	suite.reg = newRegistry(registryOptions{})
	return suite.reg.add("busybox", filepath.Join(suite.bases, "busybox"))
}

// binary copies the fbuild of $FBUILD, or one built here, to where every user may
// execute it.
func binary(dir string) (string, error) {
	out := filepath.Join(dir, "fbuild")
	from := os.Getenv("FBUILD")
	if from == "" {
		cmd := osexec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", out, "../cmd/fbuild")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build fbuild: %w\n%s", err, msg)
		}
		return out, os.Chmod(out, 0o755)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(out, data, 0o755); err != nil {
		return "", err
	}
	return out, os.Chmod(out, 0o755)
}

// need skips a test that this machine cannot run, with the reason; with CI=true
// it fails instead, so that a skip cannot hide.
func need(t interface {
	Skip(args ...any)
	Fatal(args ...any)
}, ok bool, what string,
) {
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("skip refused, CI=true: needs " + what)
	}
	t.Skip("needs " + what)
}

// haveProgram reports whether a program is installed.
func haveProgram(name string) bool {
	_, err := osexec.LookPath(name)
	return err == nil
}

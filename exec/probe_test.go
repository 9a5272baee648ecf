package exec

import (
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

func TestProbe(t *testing.T) {
	testenv.NeedUserNS(t)
	r := Probe(context.Background())
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	if !slices.Contains([]string{"root", "ranges", "single"}, r.Isolation) {
		t.Errorf("isolation: got %q", r.Isolation)
	}
	for _, c := range r.Checks {
		if !c.OK && c.Name != "ids" {
			t.Errorf("%s: got %q, want it to work", c.Name, c.Detail)
		}
		if !c.OK && c.Detail == "" {
			t.Errorf("%s: got no reason", c.Name)
		}
	}
	if got, want := len(r.Checks), 4; got != want {
		t.Errorf("checks: got %d, want %d", got, want)
	}
}

// mapped runs a child of this binary in a user namespace of its own and gives what it printed.
func runMapped(t *testing.T, single bool, name string, args ...string) string {
	t.Helper()
	testenv.NeedUserNS(t)
	var out strings.Builder
	cmd := reexec.Command(context.Background(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if _, err := reexec.StartMapped(context.Background(), cmd, unix.CLONE_NEWNS, single); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		if _, ok := errors.AsType[*osexec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return out.String()
}

func TestNested(t *testing.T) {
	for _, single := range []bool{false, true} {
		root := testenv.BusyboxRoot(t)
		if got, want := runMapped(t, single, "test-nested", root), "0\n"; got != want {
			t.Errorf("sandbox in a user namespace (single %v): got %q, want %q", single, got, want)
		}
	}
}

func TestNoMoreUserNamespaces(t *testing.T) {
	got := runMapped(t, false, "test-limited")
	for _, want := range []string{"true sandbox not available", "user.max_user_namespaces is 0", "sysctl -w"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

package exec

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

func TestMain(m *testing.M) {
	children := Children()
	for name, child := range map[string]func() int{
		"test-caller": testCaller, "test-echo": testEcho, "test-write-binary": testWriteBinary, "test-lost": testLost, "test-nested": testNested, "test-limited": testLimited,
		"test-scope": testScope, "test-setcap": testSetcap, "test-setattr": testSetattrOld, "test-chroot-caller": testChrootCaller,
	} {
		children[name] = func() int {
			status := child()
			unix.Exit(status) // os.Exit sleeps a second in a race-detecting build
			return status
		}
	}
	reexec.Main(children)
	os.Exit(m.Run())
}

// open gives a sandbox that ends with the test.
func open(t *testing.T, cfg Config) *Sandbox {
	t.Helper()
	testenv.NeedUserNS(t)
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatalf("open sandbox: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close sandbox: %v", err)
		}
	})
	return s
}

// fixture is a sandbox and a root with busybox in it.
type fixture struct {
	t    *testing.T
	s    *Sandbox
	root string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{t, open(t, Config{}), testenv.BusyboxRoot(t)}
}

func (f *fixture) spec(args ...string) Spec {
	return Spec{Root: f.root, Args: args, Env: []string{"PATH=/bin"}}
}

// sh runs a script and gives its output without the last newline.
func (f *fixture) sh(script string) string {
	f.t.Helper()
	out, err := f.run(f.spec("sh", "-c", script))
	if err != nil {
		f.t.Fatalf("run %q: %v\n%s", script, err, out)
	}
	return out
}

func (f *fixture) run(spec Spec) (string, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	var out bytes.Buffer
	spec.Stdout, spec.Stderr = &out, &out
	err := f.s.Run(ctx, spec)
	return strings.TrimSuffix(out.String(), "\n"), err
}

func TestRunExit(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		name   string
		script string
		want   ExitError
	}{
		{"one", "exit 1", ExitError{Code: 1}},
		{"high", "exit 255", ExitError{Code: 255}},
		{"137 is a status, not a signal", "exit 137", ExitError{Code: 137}},
		{"killed", "kill -9 $$", ExitError{Code: -1, Signal: 9}},
		{"terminated", "kill -15 $$", ExitError{Code: -1, Signal: 15}},
		{"segfault", "kill -11 $$", ExitError{Code: -1, Signal: 11}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.run(f.spec("sh", "-c", tt.script))
			var got *ExitError
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want %v", err, &tt.want)
			}
			if *got != tt.want {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
		})
	}
	if got, want := f.sh("echo hello; echo world >&2"), "hello\nworld"; got != want {
		t.Errorf("output: got %q, want %q", got, want)
	}
}

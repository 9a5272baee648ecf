package exec

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

// running tells whether a process with MARK in its command line exists on this machine. The test's own is not looked at.
func running(t *testing.T, mark string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), mark) {
			return true
		}
	}
	return false
}

// runInBackground runs a command that prints "ready", waits for that, and gives what Run will return.
func (f *fixture) runInBackground(ctx context.Context, spec Spec) <-chan error {
	f.t.Helper()
	pr, pw := io.Pipe()
	spec.Stdout = pw
	done := make(chan error, 1)
	go func() {
		err := f.s.Run(ctx, spec)
		pw.CloseWithError(err)
		done <- err
	}()
	if line, err := bufio.NewReader(pr).ReadString('\n'); line != "ready\n" {
		f.t.Fatalf("got %q, %v, want ready", line, err)
	}
	return done
}

// LAWS 12: when Run returns, the pid namespace is empty.
func TestRunKillsWhatIsLeft(t *testing.T) {
	f := newFixture(t)
	f.sh("setsid sleep 887761 </dev/null >/dev/null 2>&1 & trap '' HUP TERM; sleep 887761 & echo started")
	if running(t, "887761") {
		t.Error("a daemon left behind: got it running after Run, want it killed")
	}
}

func TestRunReapsOrphans(t *testing.T) {
	f := newFixture(t)
	// It ends when none is left, or with the patience of f.
	f.sh("for i in 1 2 3; do (sleep 0.05 & sleep 0.01); done; while cat /proc/[0-9]*/stat 2>/dev/null | grep -q '(sleep)'; do :; done")
}

func TestRunCancel(t *testing.T) {
	f := newFixture(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	spec := f.spec("sh", "-c", "trap '' TERM INT HUP; setsid sleep 887762 & echo ready; sleep 887762")
	done := f.runInBackground(ctx, spec)
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause of the context", err)
	}
	if running(t, "887762") {
		t.Error("command is still running after Run")
	}
	if err := f.s.Run(ctx, spec); !errors.Is(err, cause) {
		t.Errorf("run with a dead context: got %v, want its cause", err)
	}
	if got := f.sh("echo fine"); got != "fine" {
		t.Errorf("sandbox afterwards: got %q, want fine", got)
	}
}

func TestCloseKillsAll(t *testing.T) {
	f := newFixture(t)
	spec := f.spec("sh", "-c", "echo ready; sleep 887763")
	done := f.runInBackground(context.Background(), spec)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("run in a closed sandbox: got nil, want an error")
	}
	if running(t, "887763") {
		t.Error("command is still running after Close")
	}
	if err := f.s.Run(context.Background(), spec); !errors.Is(err, errClosed) {
		t.Errorf("run after Close: got %v, want %v", err, errClosed)
	}
}

func TestKeeperDies(t *testing.T) {
	f := newFixture(t)
	spec := f.spec("sh", "-c", "echo ready; sleep 887764")
	done := f.runInBackground(context.Background(), spec)
	if err := f.s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "keeper of the sandbox is gone") {
		t.Errorf("got %v, want an error that names the keeper", err)
	}
}

// SIGKILL of the caller leaves no process.
func TestCallerKilled(t *testing.T) {
	testenv.NeedUserNS(t)
	cmd := reexec.Command(context.Background(), "test-caller", testenv.BusyboxRoot(t))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "running\n" {
		t.Fatalf("caller: got %q, %v, want running", line, err)
	}
	if !running(t, "998877") {
		t.Fatal("command: got nothing, want it running")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	testenv.Until(t, "end of the command after the death of its caller", func() bool { return !running(t, "998877") })
}

func TestStart(t *testing.T) {
	t.Setenv("FBUILD_TEST_SECRET", "leak")
	if err := unix.Dup3(0, leakFD, 0); err != nil { // not close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(leakFD)
	s := open(t, Config{})
	for _, tt := range []struct {
		name, send, want string
		code             int
	}{
		{"good", "hello", "uid 0 env 0 dir / <nil> leaked false got hello", 0},
		{"bad", "fail", "uid 0 env 0 dir / <nil> leaked false", 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := pair(t)
			var said bytes.Buffer
			p, err := s.Start(context.Background(), "test-echo", []*os.File{theirs}, &said)
			if err != nil {
				t.Fatal(err)
			}
			if err := theirs.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Write([]byte(tt.send)); err != nil {
				t.Fatal(err)
			}
			if err := ours.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			err = p.Wait()
			var exit *ExitError
			if (tt.code == 0 && err != nil) || (tt.code != 0 && (!errors.As(err, &exit) || exit.Code != tt.code)) {
				t.Errorf("status: got %v, want %d", err, tt.code)
			}
			if got := said.String(); got != tt.want {
				t.Errorf("stderr: got %q, want %q", got, tt.want)
			}
			if err := p.Kill(); err != nil {
				t.Errorf("kill after the end: %v", err)
			}
		})
	}
	t.Run("killed", func(t *testing.T) {
		_, theirs := pair(t)
		p, err := s.Start(context.Background(), "test-echo", []*os.File{theirs}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.Signal != int(unix.SIGKILL) {
			t.Errorf("got %v, want killed", err)
		}
	})
	t.Run("context", func(t *testing.T) {
		_, theirs := pair(t)
		ctx, cancel := context.WithCancel(context.Background())
		p, err := s.Start(ctx, "test-echo", []*os.File{theirs}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := p.Wait(); err == nil {
			t.Error("got nil, want killed")
		}
	})
	t.Run("unknown", func(t *testing.T) {
		var said bytes.Buffer
		p, err := s.Start(context.Background(), "nonesuch", nil, &said)
		if err == nil {
			err = p.Wait()
		}
		if err == nil || !strings.Contains(said.String(), "unknown child") {
			t.Errorf("got %v, %q, want an error that names the child", err, said.String())
		}
	})
}

func pair(t *testing.T) (*net.UnixConn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "pair")
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	closeFiles([]*os.File{f})
	theirs := os.NewFile(uintptr(fds[1]), "pair")
	t.Cleanup(func() {
		_ = c.Close()
		_ = theirs.Close() // closed already by most
	})
	return c.(*net.UnixConn), theirs
}

//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is an fbuild on a terminal of its own.
type terminal struct {
	t      *testing.T
	cmd    *osexec.Cmd
	pty    *os.File
	screen *screen
	done   chan struct{}
}

// onTerminal starts fbuild itself on a terminal of a size, as the actor.
func (h *home) onTerminal(t *testing.T, width, height int, env []string, args ...string) *terminal {
	t.Helper()
	build := append([]string{"build", "--build-context=busybox=oci-layout://" + suite.bases + "/busybox", "--recorder=" + h.recorder}, args...)
	tm := &terminal{t: t, screen: newScreen(width, height), done: make(chan struct{}), cmd: program(suite.bin, build...)}
	tm.cmd.Dir = h.ctx
	tm.cmd.Env = append(append(h.env, "TERM=xterm-256color", "TTY_DISPLAY_RATE=50"), env...)
	tm.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if h.uid != os.Getuid() {
		tm.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.gid)}
	}
	var err error
	tm.pty, err = pty.StartWithAttrs(tm.cmd, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}, tm.cmd.SysProcAttr)
	if err != nil {
		t.Fatal(err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		if _, err := io.Copy(tm.screen, tm.pty); err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}()
	go func() {
		_ = tm.cmd.Wait() // the exit code tells
		<-copied
		close(tm.done)
	}()
	t.Cleanup(func() {
		select {
		case <-tm.done:
		default:
			_ = tm.cmd.Process.Kill() // the test failed
			<-tm.done
		}
		_ = tm.pty.Close() // only a terminal
	})
	return tm
}

// until waits for something to be seen.
func (tm *terminal) until(what string) {
	tm.t.Helper()
	for end := time.Now().Add(waitTime); !strings.Contains(tm.screen.text(), what); time.Sleep(5 * time.Millisecond) {
		select {
		case <-tm.done:
			tm.t.Fatalf("fbuild ended before %q was seen:\n%s", what, tm.screen.all())
		default:
		}
		if time.Now().After(end) {
			tm.t.Fatalf("%q is not seen:\n%s", what, tm.screen.all())
		}
	}
}

// end waits for the end and returns the exit code.
func (tm *terminal) end(limit time.Duration) int {
	tm.t.Helper()
	select {
	case <-tm.done:
	case <-time.After(limit):
		tm.t.Fatalf("no end after %v:\n%s", limit, tm.screen.all())
	}
	if tm.screen.hidden {
		tm.t.Errorf("the cursor is hidden at the end")
	}
	if len(tm.screen.faults) > 0 {
		tm.t.Errorf("the terminal was sent %q", tm.screen.faults)
	}
	return tm.cmd.ProcessState.ExitCode()
}

func (tm *terminal) key(k string) {
	tm.t.Helper()
	if _, err := io.WriteString(tm.pty, k); err != nil {
		tm.t.Fatal(err)
	}
}

// TestTerminalView: a person sees a header with a clock, the step that runs with
// its last lines, and nothing of what the command tries to do to the terminal.
func TestTerminalView(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {20, 24}, {200, 50}, {60, 6}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			t.Parallel()
			h := newHome(t, coveringLegs(t.Name())[0])
			g := newGate(t)
			h.write(map[string]string{"script": `printf '\033]0;title\007\033[2J\033[Hforged\r\033[31mred 你好 e\314\201\033[0m\n10%%\r20%%\r30%%\r\n\033c\033[?1049h'
for i in 1 2 3 4 5 6 7 8; do echo line $i; done; ` + g.wait})
			h.dockerfile("FROM busybox", "COPY script /", "RUN sh /script")
			tm := h.onTerminal(t, size[0], size[1], nil, "-t", "x", ".")
			if size[1] > 20 {
				tm.until("line 8")
				mid := tm.screen.text()
				for _, want := range []string{"[+] Building ", " => [3/3] RUN", " => => # line 3"} {
					if !strings.Contains(mid, want) {
						t.Errorf("while it runs: lacks %q\n%s", want, mid)
					}
				}
			}
			g.open()
			if code := tm.end(waitTime); code != 0 {
				t.Errorf("exit code: got %d, want 0\n%s", code, tm.screen.all())
			}
			all := tm.screen.all()
			if n := strings.Count(all, "[+] Building"); n != 1 {
				t.Errorf("headers: got %d, want 1\n%s", n, all)
			}
			if size[0] >= 40 && !strings.Contains(all, "FINISHED") {
				t.Errorf("the end: lacks FINISHED\n%s", all)
			}
			for _, sent := range []string{"title", "\x1b[2J", "\x1b[H", "\x1b[31m", "\x1bc", "\x1b[?1049h"} {
				if bytes.Contains(tm.screen.raw, []byte(sent)) {
					t.Errorf("the command reached the terminal with %q", sent)
				}
			}
		})
	}
}

// TestTerminalFailure: a failure ends with the last lines, the place and a hint,
// below the view.
func TestTerminalFailure(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	h.dockerfile("FROM busybox", "RUN for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; no-such-program")
	tm := h.onTerminal(t, 100, 40, []string{"NO_COLOR=1"}, ".")
	if code := tm.end(waitTime); code != 1 {
		t.Errorf("exit code: got %d, want 1", code)
	}
	all := tm.screen.all()
	for _, want := range []string{" => ERROR [2/2] RUN", "line 12", "Dockerfile:2", ">>> RUN for i", "fbuild: error: failed to build: line 2:", "fbuild: hint: is the program installed"} {
		if !strings.Contains(all, want) {
			t.Errorf("lacks %q\n%s", want, all)
		}
	}
	if strings.Contains(all, "ERROR: failed to build") {
		t.Errorf("the words for log parsers are on a terminal\n%s", all)
	}
	if tm.screen.colored {
		t.Error("colours in spite of NO_COLOR")
	}
}

// TestTerminalResize: the window changes while a step runs; the view fits again.
func TestTerminalResize(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	g := newGate(t)
	h.dockerfile("FROM busybox", "RUN echo "+strings.Repeat("wide ", 20)+"; "+g.wait)
	tm := h.onTerminal(t, 120, 30, nil, ".")
	tm.until("=> => # wide")
	tm.screen.resize(40, 10)
	if err := pty.Setsize(tm.pty, &pty.Winsize{Cols: 40, Rows: 10}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	tm.screen.resize(90, 20)
	if err := pty.Setsize(tm.pty, &pty.Winsize{Cols: 90, Rows: 20}); err != nil {
		t.Fatal(err)
	}
	g.open()
	if code := tm.end(waitTime); code != 0 {
		t.Errorf("exit code: got %d, want 0\n%s", code, tm.screen.all())
	}
	if n := strings.Count(tm.screen.text(), "[+] Building"); n != 1 || !strings.Contains(tm.screen.text(), "FINISHED") {
		t.Errorf("headers: got %d, want one, FINISHED\n%s", n, tm.screen.all())
	}
}

// TestTerminalInterrupt: Ctrl-C ends the build with 130 at once, and a second one
// does where the first hangs.
func TestTerminalInterrupt(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		h := newHome(t, coveringLegs(t.Name())[0])
		h.dockerfile("FROM busybox", "RUN trap '' INT; echo started; sleep 1000")
		tm := h.onTerminal(t, 80, 24, nil, ".")
		tm.until("# started")
		tm.key("\x03")
		if code := tm.end(soon); code != 130 {
			t.Errorf("exit code: got %d, want 130", code)
		}
		if all := tm.screen.all(); !strings.Contains(all, "fbuild: error: interrupted") || !strings.Contains(all, "CANCELED") {
			t.Errorf("the end: lacks the interruption\n%s", all)
		}
	})
	t.Run("twice", func(t *testing.T) {
		h := newHome(t, coveringLegs(t.Name())[0])
		bin := h.fakeProgram("podman", `case "$1" in version) exit 0;; esac; trap '' INT TERM; echo $$ > "$HOME/loading"; exec sleep 1000`)
		h.dockerfile("FROM busybox", "RUN true")
		tm := h.onTerminal(t, 80, 24, []string{"PATH=" + bin + ":/usr/bin:/bin", "FBUILD_LOADER=podman"}, "--load", ".")
		tm.until("loading with podman")
		name := filepath.Join(h.dir, "loading")
		for end := time.Now().Add(waitTime); ; time.Sleep(5 * time.Millisecond) {
			data, err := os.ReadFile(name)
			if pid, perr := strconv.Atoi(strings.TrimSpace(string(data))); perr == nil {
				t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) }) // nothing else ends it
				break
			}
			if time.Now().After(end) {
				t.Fatalf("podman load has not begun: %v", err)
			}
		}
		tm.key("\x03")
		// Two that come at once may count as one: again and again.
		for end := time.Now().Add(soon); time.Now().Before(end); {
			select {
			case <-tm.done:
				end = time.Time{}
			case <-time.After(400 * time.Millisecond):
				_, _ = io.WriteString(tm.pty, "\x03") // it may have just ended
			}
		}
		if code := tm.end(soon); code != 130 {
			t.Errorf("exit code: got %d, want 130", code)
		}
		h.sweep()
	})
}

// sweep lets the next fbuild remove what one that was killed has left.
func (h *home) sweep() {
	h.t.Helper()
	list, err := filepath.Glob(filepath.Join(h.store, "tmp", "*"))
	if err != nil {
		h.t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute) // what is new is left alone
	for _, name := range list {
		if err := os.Chtimes(name, old, old); err != nil {
			h.t.Fatal(err)
		}
	}
	h.ok("cache", "prune")
}

// TestTerminalStop: Ctrl-Z stops fbuild; when it goes on, the view is drawn anew
// below what the shell has said, and the build comes to its end.
func TestTerminalStop(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	g := newGate(t)
	h.dockerfile("FROM busybox", "RUN echo started; "+g.wait)
	tm := h.onTerminal(t, 80, 24, nil, ".")
	tm.until("# started")
	tm.key("\x1a")
	stopped := func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tm.cmd.Process.Pid))
		return err == nil && strings.Contains(string(data), ") T ")
	}
	for end := time.Now().Add(waitTime); !stopped(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("fbuild is not stopped:\n%s", tm.screen.all())
		}
	}
	if tm.screen.hidden {
		t.Error("the cursor is hidden while fbuild is stopped")
	}
	fmt.Fprint(tm.screen, "[1]+  Stopped  fbuild\r\n$ fg\r\n")
	if err := tm.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	g.open()
	if code := tm.end(waitTime); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	all := tm.screen.all()
	before, after, found := strings.Cut(all, "$ fg")
	if !found || !strings.Contains(before, "# started") || strings.Count(after, "[+] Building") != 1 || !strings.Contains(after, "FINISHED") {
		t.Errorf("want the view, the shell's lines, and the view anew:\n%s", all)
	}
}

// TestTerminalReaderGone: a build whose log nobody reads any more ends, and leaves
// nothing.
func TestTerminalReaderGone(t *testing.T) {
	h := newHome(t, coveringLegs(t.Name())[0])
	h.dockerfile("FROM busybox", "RUN while :; do echo y; sleep 0.01; done")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("build", "--progress=plain", ".")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the program has it
	if _, err := io.ReadFull(r, make([]byte, 300)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = r.Close()
	_ = cmd.Wait() // the exit code tells
	if code := cmd.ProcessState.ExitCode(); code != 1 || time.Since(began) > soon {
		t.Errorf("got exit code %d after %v, want 1 soon", code, time.Since(began))
	}
}

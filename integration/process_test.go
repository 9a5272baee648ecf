//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// running is an fbuild that was started.
type running struct {
	h       *home
	cmd     *osexec.Cmd
	out     bytes.Buffer
	pidFile string
	done    chan struct{}

	mu   sync.Mutex
	errs bytes.Buffer
}

// Write takes what it says on stderr.
func (p *running) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.Write(b)
}

func (p *running) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.String()
}

// start starts an fbuild.
func (h *home) start(args ...string) *running {
	h.t.Helper()
	p := &running{h: h, cmd: h.command(args...), done: make(chan struct{})}
	f, err := os.CreateTemp(h.dir, "pid-")
	if err != nil {
		h.t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		h.t.Fatal(err)
	}
	p.pidFile = f.Name()
	p.cmd.Env = append(p.cmd.Env, varPIDFile+"="+p.pidFile)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, p
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code tells
		close(p.done)
	}()
	return p
}

// wait returns how it ended.
func (p *running) wait() result {
	<-p.done
	return result{p.cmd.ProcessState.ExitCode(), p.out.String(), p.stderr()}
}

// waitTime is how long a test waits for what must happen at some time, and soon what is
// at once on a busy machine: what it is compared with lasts for minutes.
const (
	waitTime = 2 * time.Minute
	soon     = 30 * time.Second
)

// gate is where a RUN waits until the test goes on.
type gate struct {
	wait string // the command
	open func()
}

func newGate(t testing.TB) *gate {
	t.Helper()
	opened := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-opened:
		case <-r.Context().Done():
		}
	}))
	g := &gate{wait: "wget -q -O /dev/null " + srv.URL, open: sync.OnceFunc(func() { close(opened) })}
	t.Cleanup(func() {
		g.open()
		srv.Close()
	})
	return g
}

// waitReady waits until a step prints "ready".
func (p *running) waitReady() {
	p.h.t.Helper()
	p.until("output of the step", func() bool {
		for l := range strings.Lines(p.stderr()) {
			if strings.HasSuffix(strings.TrimSpace(l), " ready") && !strings.Contains(l, "] ") {
				return true
			}
		}
		return false
	})
}

// until waits for something to become true while it runs.
func (p *running) until(what string, fn func() bool) {
	p.h.t.Helper()
	for end := time.Now().Add(waitTime); !fn(); time.Sleep(2 * time.Millisecond) {
		select {
		case <-p.done:
			p.h.t.Fatalf("fbuild ended before %s:\n%s", what, p.stderr())
		default:
		}
		if time.Now().After(end) {
			_ = p.cmd.Process.Signal(unix.SIGTERM)
			p.h.t.Fatalf("no %s after %v:\n%s", what, waitTime, p.stderr())
		}
	}
}

// pid is that of fbuild itself.
func (p *running) pid() int {
	p.h.t.Helper()
	pid := 0
	p.until("process id", func() bool {
		data, err := os.ReadFile(p.pidFile)
		if err == nil {
			pid, err = strconv.Atoi(string(data))
		}
		return err == nil
	})
	return pid
}

// kill ends fbuild itself with SIGKILL.
func (p *running) kill() {
	p.h.t.Helper()
	if err := unix.Kill(p.pid(), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		p.h.t.Fatal(err)
	}
}

// child finds a descendant of fbuild by the name that it goes by.
func (p *running) child(name string) int {
	p.h.t.Helper()
	found := 0
	p.until("process "+name, func() bool {
		todo := []int{p.pid()}
		for len(todo) > 0 {
			pid := todo[0]
			todo = append(todo[1:], childrenOf(pid)...)
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err == nil && strings.HasPrefix(string(line), name) {
				found = pid
				return true
			}
		}
		return false
	})
	return found
}

// TestInterrupt: Ctrl-C ends a build with 130 and takes everything along, soon,
// whatever the command thinks of signals.
func TestInterrupt(t *testing.T) {
	commands := map[string]string{
		"a RUN":                      "RUN echo ready; sleep 1000",
		"a RUN that ignores signals": "RUN trap '' INT TERM HUP; echo ready; while :; do sleep 1000; done",
		"a RUN that writes":          "RUN echo ready; while :; do echo x >> /f; mkdir -p /d; rmdir /d; done",
	}
	for name, line := range commands {
		t.Run(name, func(t *testing.T) {
			eachLeg(t, func(t *testing.T, h *home) {
				h.dockerfile("FROM busybox", "RUN echo before > /before", line)
				p := h.start("build", "-t", "x", "-o", "type=oci,dest=out.tar", "--iidfile", "iid", ".")
				p.waitReady()
				p.interrupt(unix.SIGINT)
				if _, err := os.Stat(filepath.Join(h.ctx, "out.tar")); err == nil {
					t.Error("an interrupted build left an output")
				}
				h.dockerfile("FROM busybox", "RUN echo before > /before")
				if r := h.ok("build", "-t", "y", "."); len(ranSteps(r.stderr)) > 0 {
					t.Errorf("the step before the interrupted one is lost: %q", ranSteps(r.stderr))
				}
			})
		})
	}
}

// interrupt sends a signal and checks the end.
func (p *running) interrupt(sig unix.Signal) {
	p.h.t.Helper()
	start := time.Now()
	if err := unix.Kill(p.pid(), sig); err != nil {
		p.h.t.Fatal(err)
	}
	r := p.wait()
	if d := time.Since(start); d > soon {
		p.h.t.Errorf("the end took %v, want it at once", d)
	}
	checkFailure(p.h.t, r, 130, "interrupted", "")
}

// TestInterruptElsewhere: while a registry does not answer, while another build
// holds the step, and by the other signals.
func TestInterruptElsewhere(t *testing.T) {
	eachLeg(t, func(_ *testing.T, h *home) {
		h.dockerfile("FROM busybox", "RUN echo ready; sleep 1000")
		first := h.start("build", ".")
		first.waitReady()
		second := h.start("build", ".")
		second.until("the first line", func() bool { return second.stderr() != "" })
		second.interrupt(unix.SIGTERM)
		first.interrupt(unix.SIGHUP)
	})
}

// LAWS 11 and 30: SIGKILL at any moment leaves a usable store, nothing running,
// and no result that is not true; the next build is right.
func TestKillAnywhere(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		lines := []string{"FROM busybox", "COPY src /src"}
		for i := range 6 {
			lines = append(lines, fmt.Sprintf("RUN head -c 300000 /dev/zero | tr '\\0' %d > /big%d; cat /src/* > /all%d", i, i, i))
		}
		h.dockerfile(lines...)
		files := map[string]string{}
		for i := range 50 {
			files[fmt.Sprintf("src/%d", i)] = strings.Repeat(strconv.Itoa(i), 1000)
		}
		h.write(files)
		start := time.Now()
		h.ok("build", "-t", "whole", ".")
		whole, took := h.describe("whole", "layers"), time.Since(start)
		if err := os.RemoveAll(h.store); err != nil {
			t.Fatal(err)
		}
		const rounds = 12
		for i := range rounds {
			p := h.start("build", "-t", "killed", ".")
			p.pid()
			time.Sleep(took * time.Duration(i) / rounds)
			p.kill()
			if r := p.wait(); r.code != 137 && r.code != 0 {
				t.Fatalf("round %d: got exit code %d\n%s", i, r.code, r.stderr)
			}
			if r := h.run("cache", "verify"); r.code != 0 {
				t.Fatalf("round %d: the store is damaged:\n%s%s", i, r.stdout, r.stderr)
			}
			if i%3 == 2 { // start anew now and then, or all is cached
				if r := h.run("build", "-t", "after", "."); r.code != 0 {
					t.Fatalf("round %d: build after SIGKILL: got exit code %d\n%s", i, r.code, r.stderr)
				}
				if got := h.describe("after", "layers"); got != whole {
					t.Fatalf("round %d: build after SIGKILL: got\n%s\nwant\n%s", i, got, whole)
				}
				h.ok("cache", "prune", "--all")
				h.describe("after", "validate")
				if err := os.RemoveAll(h.store); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestConcurrentBuilds: of several builds of the same thing one runs a step and
// the others adopt its result; builds of other things do not disturb.
func TestConcurrentBuilds(t *testing.T) {
	eachLeg(t, func(t *testing.T, h *home) {
		g := newGate(t)
		h.write(map[string]string{
			"same":   "FROM busybox\nRUN echo ready; " + g.wait + "; head -c 1000 /dev/urandom > /random\nRUN cat /random > /copy\n",
			"other0": "FROM busybox\nRUN echo 0 > /x\nCOPY same /\n",
			"other1": "FROM busybox\nRUN echo 1 > /x\nCOPY same /\n",
		})
		var all []*running
		for i := range 4 {
			all = append(all, h.start("build", "-f", "same", "-t", fmt.Sprintf("same%d", i), "."))
		}
		for i := range 2 {
			all = append(all, h.start("build", "-f", fmt.Sprintf("other%d", i), "-t", fmt.Sprintf("other%d", i), "."))
		}
		// One of them is in the step that all of them need.
		for ready, end := false, time.Now().Add(waitTime); !ready && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			for _, p := range all[:4] {
				ready = ready || strings.Contains(p.stderr(), " ready\n")
			}
		}
		g.open()
		ran := 0
		for i, p := range all {
			r := p.wait()
			if r.code != 0 {
				t.Fatalf("build %d: got exit code %d\n%s", i, r.code, r.stderr)
			}
			if i < 4 {
				ran += len(ranSteps(r.stderr))
			}
		}
		if ran != 2 {
			t.Errorf("4 builds of 2 steps: got %d steps that ran, want 2", ran)
		}
		want := h.describe("same0", "id")
		for i := 1; i < 4; i++ {
			if got := h.describe(fmt.Sprintf("same%d", i), "id"); got != want {
				t.Errorf("image %d: got %s, want %s", i, got, want)
			}
		}
	})
}

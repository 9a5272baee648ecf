//go:build integration

package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// faultRounds is how often a recorder is killed at a random moment; each round prints
// its seed.
var faultRounds = flag.Int("fault-rounds", 1, "rounds of TestFaultRecorderKilled for each user")

// ready waits until steps have printed "ready" n times in all.
func (p *running) ready(n int) {
	p.h.t.Helper()
	p.until(fmt.Sprintf("word %d of a step", n), func() bool {
		count := 0
		for l := range strings.Lines(p.stderr()) {
			if strings.HasSuffix(strings.TrimSpace(l), " ready") && !strings.Contains(l, "] ") {
				count++
			}
		}
		return count >= n
	})
}

// A recorder that dies at any moment of a RUN fails the attempt, and auto runs the step
// again from its parent tree on the next rung, to the last, and says so. What it gives
// is stored under the exact key, nothing of the attempts is left, and the next build
// works (LAWS 10, 20).
func TestFaultRecorderKilled(t *testing.T) {
	for _, a := range suite.actors {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			for range *faultRounds {
				seed := rand.Uint64()
				r := rand.New(rand.NewPCG(seed, 0))
				h := newHome(t, leg{a, "auto"})
				h.dockerfile("FROM busybox", "RUN echo below > /below",
					// Busy until it is on walk, whose root is no mount of ours.
					"RUN test ! -e /d && echo ready; i=0; while grep -Eq '^fbuild / (fuse|overlay) ' /proc/mounts; do i=$((i+1)); mkdir -p /d/$i && echo $i > /d/$i/f && mv /d/$i/f /d/$i/g; done; rm -rf /d; cat /below > /above",
					"RUN cat /above > /last")
				p := h.start("build", "-t", "x", ".")
				for i, kind := range []string{"fuse", "overlay"} {
					p.ready(i + 1)
					time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
					if err := unix.Kill(p.child("fbuild:recorder-"+kind), unix.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
				got := p.wait()
				for _, want := range []string{"the fuse recorder failed", "again with overlay", "the overlay recorder failed", "again with walk"} {
					if got.code != 0 || !strings.Contains(got.stderr, want) {
						t.Fatalf("seed %d: got exit code %d, want 0 and %q\n%s", seed, got.code, want, got.stderr)
					}
				}
				if text := h.describe("x", "layers"); strings.Contains(text, " d/") {
					t.Errorf("seed %d: something of a failed attempt is in the image:\n%s", seed, text)
				}
				if r := h.ok("build", "-t", "y", "."); len(ranSteps(r.stderr)) > 0 {
					t.Errorf("seed %d: the next build ran %q", seed, ranSteps(r.stderr))
				}
				for _, name := range []string{"above", "last"} {
					if text := h.cat("y", name); text != "below\n" {
						t.Errorf("seed %d: %s: got %q, want below", seed, name, text)
					}
				}
			}
		})
	}
}

// A recorder that was asked for by name and dies has nobody who goes on: the build says so, whatever
// the command says, leaves nothing behind, and the next one works (LAWS 20).
func TestFaultNamedRecorderKilled(t *testing.T) {
	for i, r := range recorders {
		t.Run(r, func(t *testing.T) {
			t.Parallel()
			h := newHome(t, leg{suite.actors[i%len(suite.actors)], r})
			h.dockerfile("FROM busybox", "RUN echo ready; while echo x > /f; do :; done 2> /dev/null; exit 0")
			p := h.start("build", ".")
			p.ready(1)
			if err := unix.Kill(p.child("fbuild:recorder-"+r), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			checkFailure(t, p.wait(), 1, "the recorder process ended", "--recorder=auto")
			h.dockerfile("FROM busybox", "RUN echo x > /f")
			h.ok("build", ".")
		})
	}
}

// Commands that do what nobody should, on every recorder: the build goes on or says what
// is wrong, nothing hangs or is left, and all give the same layers.
func TestFaultCommands(t *testing.T) {
	processes := "1000"
	if os.Getenv("FBUILD_MATRIX") == "ci" {
		processes = "300"
	}
	lines := []string{
		"FROM busybox",
		"# hundreds of processes that stay",
		"RUN i=0; while [ $i -lt " + processes + " ]; do (echo $i > /tmp/p$i; exec sleep 1000) & i=$((i+1)); done; while [ $(cat /tmp/p* | wc -l) -lt " + processes + " ]; do sleep 0.1; done; echo done",
		"RUN rm /tmp/p*; mkdir /after",
		"# files that are left open, with a name and without",
		"RUN mkdir /d; (exec 5> /d/open; echo open >&5; exec 6> /d/gone; rm /d/gone; while :; do echo x >&6; done) & while [ ! -s /d/open ]; do sleep 0.1; done",
		"RUN echo more >> /d/open",
		"# the working directory",
		"WORKDIR /w/d",
		"RUN rm -r /w && echo x > /x && (echo y > y; true)",
		"RUN pwd > /pwd",
		"# everything",
		"RUN rm -rf /* 2> /dev/null; true",
		"COPY Dockerfile /left",
	}
	a := suite.actors[len(suite.actors)-1] // what differs is not who
	layers := make([]string, len(recorders))
	t.Run("on", func(t *testing.T) {
		for i, r := range recorders {
			t.Run(r, func(t *testing.T) {
				t.Parallel()
				h := newHome(t, leg{a, r})
				h.dockerfile(lines...)
				h.ok("build", "-t", "x", ".")
				layers[i] = h.describe("x", "layers")
				h.dockerfile(append(lines, "RUN echo")...)
				h.fails(1, "/bin/sh", "", "build", ".")
			})
		}
	})
	for i, got := range layers {
		if diff := cmp.Diff(strings.Split(layers[0], "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("layers of %s and %s:\n%s", recorders[0], recorders[i], diff)
		}
	}
}

// A fork bomb under a limit ends with its step.
func TestFaultForkBomb(t *testing.T) {
	a := suite.actors[len(suite.actors)-1]
	need(t, a.uid != 0, "an ordinary user, whom RLIMIT_NPROC binds")
	for _, r := range recorders {
		t.Run(r, func(t *testing.T) {
			t.Parallel()
			h := newHome(t, leg{a, r})
			h.dockerfile("FROM busybox", "RUN bomb() { echo x >> /x; bomb | bomb & }; bomb 2> /dev/null; sleep 0.5; echo end > /end", "RUN rm -f /x")
			h.ok("build", "--ulimit=nproc=150:150", "-t", "x", ".")
			if got := h.cat("x", "end"); got != "end\n" {
				t.Errorf("got %q, want end", got)
			}
		})
	}
}

// A whole build on one processor.
func TestFaultOneProcessor(t *testing.T) {
	for i, r := range recorders {
		t.Run(r, func(t *testing.T) {
			t.Parallel()
			h := newHome(t, leg{suite.actors[i%len(suite.actors)], r})
			h.write(map[string]string{"src/a": "a", "src/b": "b"})
			h.dockerfile("FROM busybox AS one", "COPY src /src", "RUN cp -r /bin /copy && ls -lR / | cat > /list; for i in 1 2 3 4; do (cat /src/* | sort > /out$i) & done; wait",
				"FROM busybox", "RUN --mount=from=one,target=/one cp -r /one/src /src && /one/copy/cat /src/a > /got", "COPY --from=one /out4 /")
			cmd := h.command("build", "-t", "x", ".")
			cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
			onOneProcessor(t, func() {
				if r := h.finish(cmd); r.code != 0 {
					t.Errorf("got exit code %d\n%s", r.code, r.stderr)
				}
			})
			if got := h.cat("x", "got"); got != "a" {
				t.Errorf("got %q, want a", got)
			}
		})
	}
}

// onOneProcessor calls fn on a thread that has one processor, as all have that it starts.
func onOneProcessor(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			fmt.Fprintln(os.Stderr, "give processors back:", err)
			os.Exit(1)
		}
	}()
	fn()
}

package fusefs

import (
	osexec "os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/testenv"
)

// guested is a world in which the guest serves whenever it can, whatever others do.
func guested(t *testing.T) *world {
	t.Helper()
	if runtime.NumCPU() < 2 || runtime.GOMAXPROCS(0) < 2 {
		testenv.Skip(t, "one processor: nobody hands over")
	}
	w := newWorld(t)
	w.b.(*backend).opts.core = coreAlways
	return w
}

// guest is what a step that was handed over has; nil if it was not.
func (r *running) guest() *sameCore { return r.w.b.(*backend).steps[r.id].guest }

const manyFiles = "for k in $(seq 600); do echo $k > f$k; done; "

// TestHandOver: the guest serves, hands back when nobody asks, and serves again; what was written by both is there.
func TestHandOver(t *testing.T) {
	w := guested(t)
	r := w.mount(nil, w.parent())
	c := r.guest()
	r.sh(manyFiles + "sleep 0.1; cat f* | sha256sum; mkdir g; mv f? g; sleep 0.1; rm f*; echo end > g/last")
	if c.refused.Load() {
		testenv.Skip(t, "this kernel refuses it")
	}
	res := r.finish()
	if c.turns < 2 || c.served.Load() < 500 || c.served.Load()%2 != 0 {
		t.Errorf("got %d handovers and %d requests, want both", c.turns, c.served.Load()/2)
	}
	if got, want := len(res.Changes), 12; got != want {
		t.Errorf("got %d changes, want %d", got, want)
	}
	if got := r.data(res, "g/f7") + r.data(res, "g/last"); got != "7\nend\n" {
		t.Errorf("got %q", got)
	}
}

// TestEndWhileGuestServes: a step that ends, is aborted or fails in the middle of the guest's turn ends as any other. LAWS 12.
func TestEndWhileGuestServes(t *testing.T) {
	w := guested(t)
	for _, end := range []string{"finish", "abort", "panic"} {
		t.Run(end, func(t *testing.T) {
			for range 5 {
				r := w.mount(nil, w.parent())
				s := w.b.(*backend).steps[r.id]
				if end == "panic" {
					r.sh(manyFiles)
					s.mu.Lock()
					s.baseDirs = nil // who enters something there panics
					s.mu.Unlock()
				}
				_, _ = r.try(manyFiles + "mkdir a b; mv d a") // it fails after a panic
				start := time.Now()
				switch end {
				case "finish":
					r.finish()
				case "abort":
					if err := w.b.Abort(r.id); err != nil {
						t.Error(err)
					}
				case "panic":
					_, err := w.b.Finish(t.Context(), r.id)
					if err == nil || !strings.Contains(err.Error(), "panic") {
						t.Errorf("got %v, want the panic", err)
					}
				}
				if d := time.Since(start); d > detachTime {
					t.Errorf("%s took %v", end, d)
				}
			}
		})
	}
}

// TestGuestStarves: where others take every processor, and its own first, the guest is relieved, and what it began ends in time.
func TestGuestStarves(t *testing.T) {
	w := guested(t)
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for range 2 * set.Count() {
		cmd := osexec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	r := w.mount(nil, w.parent())
	c := r.guest()
	start := time.Now()
	r.sh(manyFiles + manyFiles)
	took := time.Since(start)
	r.finish()
	t.Logf("%v, %d handovers, %d requests of the guest", took, c.turns, c.served.Load()/2)
	if took > 15*time.Second {
		t.Errorf("1200 files took %v", took)
	}
}

// TestOneProcessor: there is nobody to hand over to where there is one processor.
func TestOneProcessor(t *testing.T) {
	testenv.NeedFUSE(t)
	runtime.LockOSThread() // and never let go: the thread ends with the test
	var one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	for k := 0; one.Count() > 1; k++ {
		one.Clear(k)
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	if newSameCore(&step{core: coreAlways}) != nil {
		t.Error("got a guest, want none")
	}
}

package fusefs

import (
	"fmt"
	osexec "os/exec"
	"runtime"
	"slices"
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
	const turns = 2
	for turn := range turns {
		// How much it gets to serve in a turn is up to the scheduler.
		before := c.served.Load()
		testenv.Until(t, "request that the guest served", func() bool {
			r.sh(fmt.Sprintf("mkdir -p d%d; cd d%[1]d; %s", turn, manyFiles))
			if c.refused.Load() {
				testenv.Skip(t, "this kernel refuses it")
			}
			return c.served.Load() > before
		})
		testenv.Until(t, "end of the guest's turn", c.idle.Load)
	}
	r.sh("mkdir g; mv d1/f? g; rm d1/f*; echo end > g/last")
	res := r.finish()
	if c.turns < turns || c.served.Load()%2 != 0 {
		t.Errorf("got %d handovers and %d halves of requests, want %d and no odd number", c.turns, c.served.Load(), turns)
	}
	// d0 and its files, d1, g and its files
	if got, want := len(res.Changes), 601+1+11; got != want {
		t.Errorf("got %d changes, want %d", got, want)
	}
	for k := 1; k <= 600; k++ {
		if got, want := r.data(res, fmt.Sprint("d0/f", k)), fmt.Sprintln(k); got != want {
			t.Errorf("d0/f%d: got %q, want %q", k, got, want)
		}
	}
	if got := r.data(res, "g/f7") + r.data(res, "g/last"); got != "7\nend\n" {
		t.Errorf("got %q", got)
	}
}

// TestRelief: a guest that could run and is waited for is relieved at once, one that waits for a disk or for somebody to ask is not.
func TestRelief(t *testing.T) {
	testenv.NeedUserNS(t)
	proc, err := ownProc()
	if err != nil {
		t.Fatal(err)
	}
	var asked, nobody [2]int // pipes: what can be read is a request
	for _, p := range []*[2]int{&asked, &nobody} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.Write(asked[1], []byte("request")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		script string // of a process that stands for the guest
		state  string
		device int
		served uint64
		want   bool
	}{
		{"spins, asked", "while :; do :; done", " R", asked[0], 0, true},
		{"spins, in a request", "while :; do :; done", " R", nobody[0], 1, true},
		{"spins, nobody asks", "while :; do :; done", " R", nobody[0], 0, false},
		{"sleeps, asked", "read x", " S", asked[0], 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := osexec.CommandContext(t.Context(), "sh", "-c", "echo; "+c.script)
			in, err := cmd.StdinPipe() // never written to
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = in.Close()
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			g := &sameCore{proc: proc, device: c.device}
			g.thread.Store(int32(cmd.Process.Pid))
			g.served.Store(c.served)
			g.on.Store(true)
			var buf [1024]byte
			testenv.Until(t, "state"+c.state, func() bool {
				stat, err := g.own.read(proc, uint32(cmd.Process.Pid), buf[:])
				return err == nil && strings.HasPrefix(string(stat), c.state)
			})
			if got := g.until(); got != c.want {
				t.Errorf("starved: got %v, want %v", got, c.want)
			}
			g.own.close()
		})
	}
	for _, fd := range []int{proc, asked[0], asked[1], nobody[0], nobody[1]} {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
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
			}
		})
	}
}

// TestGuestStarves: where others take every processor, and its own first, what the guest began ends all the same.
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
	r.sh(manyFiles)
	res := r.finish()
	t.Logf("%d handovers, %d requests of the guest", c.turns, c.served.Load()/2)
	if got, want := len(res.Changes), 600; got != want {
		t.Errorf("got %d changes, want %d", got, want)
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

// TestGuestEndsFirst: where the guest is told of the end of the root before the first worker would watch it, those that rest are told as well.
func TestGuestEndsFirst(t *testing.T) {
	s := loose(t, 0, false)
	s.root = t.TempDir() // no mount: it can't be disconnected either
	s.spool.start(1, s.fail)
	defer func() {
		if err := s.spool.drop(); err != nil {
			t.Error(err)
		}
	}()
	c := &sameCore{s: s, proc: -1, device: -1, start: make(chan uint32, 1)}
	c.back.L = &c.mu
	c.worker = s.newWorker(nil)
	c.worker.device, c.worker.guest, c.worker.core = -1, true, c
	c.on.Store(true)
	rested := make(chan struct{})
	go func() {
		c.rest()
		close(rested)
	}()
	testenv.Until(t, "worker that rests", func() bool {
		stack := make([]byte, 1<<20)
		return slices.ContainsFunc(strings.Split(string(stack[:runtime.Stack(stack, true)]), "\n\n"), func(one string) bool {
			return strings.Contains(one, "(*Cond).Wait") && strings.Contains(one, "(*sameCore).rest")
		})
	})
	s.workers.Add(1)
	c.start <- 0
	close(c.start)
	go c.serve() // its thread ends with it
	select {
	case <-rested:
	case <-time.After(testenv.Patience):
		t.Error("a worker still rests, and nobody serves")
	}
	s.workers.Wait()
}

// TestStay: where the machine is full the first worker is on the processor of who asked twice in a row, else anywhere.
func TestStay(t *testing.T) {
	c := newSameCore(&step{})
	if c == nil {
		testenv.Skip(t, "one processor: nobody is anywhere else")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for ever: the thread ends with it
		var err error
		if c.proc, err = ownProc(); err != nil {
			t.Errorf("open proc: %v", err)
			return
		}
		defer c.close()
		want := func(what string, cpus unix.CPUSet) {
			var got unix.CPUSet
			if err := unix.SchedGetaffinity(0, &got); err != nil || got != cpus {
				t.Errorf("%s: got processors %v, %v, want %v", what, got, err, cpus)
			}
		}
		for cpu := range 1024 {
			if !c.all.IsSet(cpu) {
				continue
			}
			var one unix.CPUSet
			one.Set(cpu)
			pid := threadOn(t, one)
			c.stay(pid, true)
			want("asked once", c.all)
			c.stay(pid, true)
			want("asked twice", one)
			c.stay(pid+1, true)
			want("somebody else asked", c.all)
			c.stay(pid, true)
			c.stay(pid, true)
			want("asked twice again", one)
			c.stay(pid, false)
			want("with room", c.all)
		}
		c.stay(1<<30, true)
		c.stay(1<<30, true)
		want("nobody that there is", c.all)
	}()
	<-ended
}

// threadOn is a thread that ran last on the one processor of cpus, till the test ends.
func threadOn(t *testing.T, cpus unix.CPUSet) uint32 {
	t.Helper()
	pid, end := make(chan int), make(chan struct{})
	t.Cleanup(func() { close(end) })
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with it
		if err := unix.SchedSetaffinity(0, &cpus); err != nil {
			t.Errorf("pin a thread: %v", err)
		}
		pid <- unix.Gettid()
		<-end
	}()
	return uint32(<-pid)
}

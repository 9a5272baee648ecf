package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in /proc: USER_HZ is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// process is one line of /proc/PID/stat.
type process struct {
	pid, parent int
	state       byte
	cpu         time.Duration // its own and that of children it waited for
	rss         int64
}

// parseStat reads /proc/PID/stat. The name may hold anything, so fields count
// from the last parenthesis.
func parseStat(data []byte) (process, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("parse stat %q: no name", data)
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) < 22 {
		return process{}, fmt.Errorf("parse stat %q: too short", data)
	}
	var err error
	num := func(s string) int64 {
		n, perr := strconv.ParseInt(s, 10, 64)
		err = errors.Join(err, perr)
		return n
	}
	p := process{pid: int(num(strings.TrimSpace(string(data[:open])))), parent: int(num(f[1])), state: f[0][0]}
	for _, ticks := range f[11:15] { // utime stime cutime cstime
		p.cpu += time.Duration(num(ticks)) * clockTick
	}
	p.rss = num(f[21]) * int64(os.Getpagesize())
	return p, err
}

// descendants are all processes below pid, but for the trees of except.
func descendants(pid int, except []int) ([]process, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]process{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		if p, err := parseStat(data); err == nil {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	skip := map[int]bool{}
	for _, p := range except {
		skip[p] = true
	}
	var out []process
	for todo := []int{pid}; len(todo) > 0; {
		next := children[todo[0]]
		todo = todo[1:]
		for _, p := range next {
			if !skip[p.pid] {
				out, todo = append(out, p), append(todo, p.pid)
			}
		}
	}
	return out, nil
}

// becomeReaper makes orphans (container shims) our children, so that their time
// is counted and that they can be found.
func becomeReaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become reaper of orphans: %w", err)
	}
	return nil
}

// meter measures runs. The processes of a run are all descendants of this one,
// without the daemons of other sides.
type meter struct {
	others []int         // daemons of other sides
	every  time.Duration // between two looks at memory
}

// usage is what a run took.
type usage struct {
	wall, cpu time.Duration
	rss       int64
	stderr    string
}

// run runs cmd to its end.
func (m meter) run(ctx context.Context, cmd *osexec.Cmd) (usage, error) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	before, err := m.cpu()
	if err != nil {
		return usage{}, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	peak := m.watch(ctx)
	err = cmd.Wait()
	u := usage{wall: time.Since(start)}
	u.rss = peak()
	u.stderr = log.String()
	if err != nil {
		return u, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, tail(u.stderr, 15))
	}
	m.settle(cmd.Process.Pid)
	after, err := m.cpu()
	u.cpu = after - before
	return u, err
}

// watch looks at memory until the function that it returns is called, which
// gives the highest sum.
func (m meter) watch(ctx context.Context) (stop func() int64) {
	done := make(chan struct{})
	var peak int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := 2 * time.Millisecond; ; tick = min(2*tick, m.every) { // short runs are seen too
			var sum int64
			all, err := descendants(os.Getpid(), m.others)
			for _, p := range all {
				sum += p.rss
			}
			if err == nil {
				peak = max(peak, sum)
			}
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-time.After(tick):
			}
		}
	})
	return func() int64 {
		close(done)
		wg.Wait()
		return peak
	}
}

// cpu is the time of all living descendants and of all that ended; only
// differences mean something. Daemons of other sides are left out while they live.
func (m meter) cpu() (time.Duration, error) {
	all, err := descendants(os.Getpid(), m.others)
	if err != nil {
		return 0, err
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ru); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	sum := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	for _, p := range all {
		sum += p.cpu
	}
	return sum, nil
}

// settle gives shims of a daemon a moment to end, and reaps orphans. Children
// that the harness started itself are waited for where they were started.
func (m meter) settle(started int) {
	for end := time.Now().Add(200 * time.Millisecond); ; time.Sleep(5 * time.Millisecond) {
		all, err := descendants(os.Getpid(), m.others)
		if err != nil {
			return
		}
		orphans := 0
		for _, p := range all {
			if p.parent != os.Getpid() || p.pid == started || isDaemon(p.pid) {
				continue
			}
			orphans++
			if p.state == 'Z' {
				_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil) // gone is as good
			}
		}
		if orphans == 0 || time.Now().After(end) {
			return
		}
	}
}

// daemons are the processes that are meant to live from run to run.
var daemons = struct {
	sync.Mutex
	pids map[int]bool
}{pids: map[int]bool{}}

func isDaemon(pid int) bool {
	daemons.Lock()
	defer daemons.Unlock()
	return daemons.pids[pid]
}

// endAll ends every process that is left below this one, by its id.
func endAll() error {
	for range 50 {
		all, err := descendants(os.Getpid(), nil)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, p := range all {
			if p.state == 'Z' && p.parent == os.Getpid() {
				_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil) // gone is as good
				continue
			}
			_ = unix.Kill(p.pid, unix.SIGKILL) // gone is as good
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("processes are left that do not end")
}

// tail is the end of a text, for error messages.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

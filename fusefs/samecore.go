package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sameCore lets a second thread serve a step on the processor of whoever asks.
//
// A request that crosses processors takes two to three times the time of one that does
// not, and the scheduler sends a caller whom a normal thread wakes to another processor.
// A processor on which only SCHED_IDLE threads run counts as idle: woken by such a
// thread, the caller stays. But that thread starves where somebody else wants its
// processor, and can't leave its class again without privileges. So there are two, and
// one of them serves at a time:
//
//   - The normal workers (loop.go) serve first. The first of them looks every lookEvery
//     requests; where those came fast twice in a row, and the machine is not full, it
//     hands over.
//   - The guest, SCHED_IDLE for ever, reads a clone of the device that does not block,
//     on the processor of its caller, which it follows. Meanwhile the first worker
//     sleeps a tick at a time, and the others till they are called.
//   - Only the first worker takes back: when little is asked for, when the guest could
//     run, is waited for and does not get on, or when the guest says that more than the
//     machine has room for want to run. The guest may then run anywhere, to end what it
//     began. After the latter two there is a pause until the next turn, which doubles,
//     but for a turn that was worth it.
//   - What the guest wakes, its processor takes at once, and a sleeper that the scheduler
//     has not let go of counts as one who runs: so the number of those who run says less
//     than a request that nobody gets on with.
//
// Where the machine is full there is no guest, and no idle processor that a caller could
// be sent to: there the first worker stays on the processor of who asks again and again,
// and waits for its turn among the others.
//
// Two that serve at once, as in the moment of taking back, are as right as two normal
// workers are. Where the kernel refuses something, the normal workers stay. There is
// no guest where there is one processor.
type sameCore struct {
	s       *step
	force   bool // of tests: hand over at once and whatever others do
	device  int  // a clone
	load    int  // /proc/loadavg
	proc    int  // a proc of the pid namespace that requests name threads in
	all     unix.CPUSet
	allowed int // others that may run beside

	on      atomic.Bool   // the guest serves
	leave   atomic.Bool   // it asks not to
	refused atomic.Bool   // it can't
	idle    atomic.Bool   // it waits for its turn
	served  atomic.Uint64 // requests that it took or answered, so that odd is one in its hands
	thread  atomic.Int32  // of the guest
	start   chan uint32   // a caller's thread, for the guest to start with
	ended   sync.WaitGroup
	turns   int // handovers

	mu   sync.Mutex
	back sync.Cond // the normal workers serve again

	// Of the first worker.
	calm      int
	since     time.Time // of its last look
	notBefore time.Time
	pause     time.Duration // after the guest's turn
	own       statFile      // of the guest
	asked     uint32        // the thread that asked at its last look
	stays     pin
	locked    bool // to its thread

	// Of the guest.
	worker  *worker
	busy    int // looks at which others wanted to run, less those at which nobody did
	follows pin
	astray  int // times that it ran for nothing since it last looked
}

// coreMode is whether a sameCore may be used.
type coreMode int

const (
	coreWhereFree coreMode = iota
	coreNever
	coreAlways
)

const (
	lookEvery  = 16 // requests of the first worker
	calmLooks  = 2
	fastLook   = lookEvery * 250 * time.Microsecond // a look comes this soon where requests are most of what is done
	followLook = 128                                // requests of the guest
	strayed    = 4                                  // times that the guest ran and found nothing: its caller is elsewhere
	busyLooks  = 8                                  // those that were not taken off
	tick       = time.Millisecond
	mostNap    = 4 * time.Millisecond // while nobody asks
	stuckTicks = 2                    // in which the guest did nothing although somebody waits
	stuckLong  = 8                    // in which it worked, and ended nothing
	window     = 20 * time.Millisecond
	fewServed  = 2 * 40 // in a window, counted twice
	worthIt    = 100 * time.Millisecond
	leastPause = 4 * time.Millisecond
	mostPause  = 2 * time.Second

	ioctlClone = 0x8004e500 // FUSE_DEV_IOC_CLONE
)

// newSameCore returns nil where there is nothing to choose.
func newSameCore(s *step) *sameCore {
	c := &sameCore{s: s, force: s.core == coreAlways, device: -1, load: -1, proc: -1, stays: unpinned, pause: leastPause, start: make(chan uint32, 1)}
	if s.core == coreNever || unix.SchedGetaffinity(0, &c.all) != nil || c.all.Count() < 2 || runtime.GOMAXPROCS(0) < 2 {
		return nil
	}
	c.allowed = c.all.Count() / 2
	c.back.L = &c.mu
	c.idle.Store(true)
	return c
}

// open is called when requests come fast for the first time: most steps end before.
func (c *sameCore) open() (err error) {
	if c.load, err = unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if c.proc, err = ownProc(); err != nil {
		return err
	}
	if c.device, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	from := uint32(c.s.device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.device), ioctlClone, uintptr(unsafe.Pointer(&from))); errno != 0 { //nolint:gosec // G103: what the system call takes
		return errno
	}
	return nil
}

// end is called when every worker is through.
func (c *sameCore) end() {
	if c != nil {
		close(c.start)
		c.ended.Wait()
		c.close()
	}
}

func (c *sameCore) close() {
	c.follows.stat.close()
	c.stays.stat.close()
	c.own.close()
	for _, fd := range []int{c.device, c.load, c.proc} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written
		}
	}
}

// ownProc opens a proc file system that knows threads by the numbers that requests
// name them with: that of this process's pid namespace.
func ownProc() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1, err
	}
	_, pids, _ := bytes.Cut(status, []byte("\nNSpid:"))
	pids, _, _ = bytes.Cut(pids, []byte("\n"))
	if len(bytes.Fields(pids)) == 1 {
		return unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// others is how many threads of the machine want to run beside the one that asks and
// the spool's writer.
func (c *sameCore) others() (int, error) {
	var buf [128]byte
	n, err := unix.Pread(c.load, buf[:], 0)
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(buf[:n], []byte(" "))
	_, rest, _ = bytes.Cut(rest, []byte(" "))
	_, rest, _ = bytes.Cut(rest, []byte(" "))
	count, ok := leadingNumber(rest)
	if !ok {
		return 0, fmt.Errorf("parse load %q", buf[:n])
	}
	count--
	if c.s.spool.busy.Load() {
		count--
	}
	if c.s.settling.busy.Load() { // it makes room for everybody
		count--
	}
	return max(0, count), nil
}

// leadingNumber parses the digits that b starts with.
func leadingNumber(b []byte) (n int, ok bool) {
	for _, d := range b {
		if d < '0' || d > '9' {
			break
		}
		n, ok = n*10+int(d-'0'), true
	}
	return n, ok
}

// answered is told of each answer of the first worker and of the guest before it is
// sent: whoever asked has gone to sleep by now and does not count.
func (c *sameCore) answered(w *worker) {
	// What nobody waits for comes from nobody.
	every := lookEvery
	if w.guest {
		every = followLook
	}
	if w.looks++; w.looks >= every && w.header().Pid != 0 {
		w.looks = 0
		if c.look(w.header().Pid, w.guest) {
			c.handOver(w)
		}
	}
}

// look reports whether the first worker, if that asks, should hand over.
func (c *sameCore) look(pid uint32, guest bool) (handOver bool) {
	if guest {
		c.lookAsGuest(pid)
		return false
	}
	if c.refused.Load() || !c.idle.Load() {
		return false
	}
	now := time.Now()
	fast := now.Sub(c.since) < fastLook
	c.since = now
	if !c.force && !fast {
		c.calm = 0
		c.unpin()
		return false
	}
	if c.device < 0 && c.open() != nil {
		c.refused.Store(true)
		return false
	}
	if c.force {
		return true
	}
	// Whoever asked may just fall asleep on another processor, and count.
	n, err := c.others()
	full := err != nil || n > c.allowed+1
	c.stay(pid, full)
	if full || now.Before(c.notBefore) {
		c.calm = 0
		return false
	}
	c.calm++
	return c.calm >= calmLooks
}

// stay keeps the first worker, where the machine is full, on the processor of the thread
// that asked at the last look as well.
func (c *sameCore) stay(pid uint32, full bool) {
	again := pid == c.asked
	c.asked = pid
	if !full || !again {
		c.unpin()
		return
	}
	cpu, err := c.stays.find(c.proc, pid)
	if err != nil {
		c.unpin()
		return
	}
	if !c.locked {
		runtime.LockOSThread() // for ever: the thread ends with it
		c.locked = true
	}
	_ = c.stays.to(cpu) // else it stays where it is
}

// unpin lets the first worker run anywhere.
func (c *sameCore) unpin() {
	if c.stays.cpu >= 0 && unix.SchedSetaffinity(0, &c.all) == nil {
		c.stays.cpu = -1
	}
}

func (c *sameCore) handOver(w *worker) {
	c.unpin()
	if c.turns == 0 {
		c.worker = w.s.newWorker(w.cold)
		c.worker.device, c.worker.guest, c.worker.core = c.device, true, c
		c.ended.Go(c.serve)
	}
	c.calm = 0
	c.turns++
	c.idle.Store(false)
	c.s.workers.Add(1) // the guest
	c.leave.Store(false)
	c.on.Store(true)
	c.start <- w.header().Pid
}

// watch is the first worker while the guest serves.
func (c *sameCore) watch() {
	began := time.Now()
	harm := c.until()
	c.takeBack()
	now := time.Now()
	if now.Sub(began) > worthIt {
		c.pause = leastPause
	}
	if harm {
		c.notBefore = now.Add(c.pause)
		c.pause = min(2*c.pause, mostPause)
	}
}

// until returns when the guest should not serve any longer, and whether that did harm:
// it starves, or others want its processor.
func (c *sameCore) until() (harm bool) {
	seen, ran := c.served.Load(), c.ran()
	start, napped := seen, time.Duration(0)
	for stuck, nap := 0, tick; c.on.Load(); {
		if c.leave.Load() {
			return true
		}
		spec := unix.NsecToTimespec(int64(nap))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &spec, nil) // a signal ends it sooner
		now, had := c.served.Load(), ran
		ran = c.ran()
		switch napped += nap; {
		case now != seen:
			stuck, nap = 0, tick
		case !c.wanted():
			stuck, nap = 0, min(2*nap, mostNap)
		case ran-had > tick/2: // a long request
			stuck, nap = stuck+1, tick
		default:
			stuck, nap = stuck+stuckLong/stuckTicks, tick
		}
		if stuck >= stuckLong && c.runnable() {
			return true
		}
		seen = now
		if napped >= window {
			if now-start < fewServed {
				return false
			}
			start, napped = now, 0
		}
	}
	return false
}

// ran is how long the guest had a processor.
func (c *sameCore) ran() time.Duration {
	const perThread, scheduled = 4, 2 // CPUCLOCK_PERTHREAD_MASK, CPUCLOCK_SCHED
	var t unix.Timespec
	if unix.ClockGettime(^c.thread.Load()<<3|perThread|scheduled, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// runnable says that the guest could go on, if only it had a processor: it does not
// wait for a disk.
func (c *sameCore) runnable() bool {
	var buf [1024]byte
	stat, err := c.own.read(c.proc, uint32(c.thread.Load()), buf[:])
	return err != nil || bytes.HasPrefix(stat, []byte(" R"))
}

// takeBack lets the normal workers serve again, and the guest end what it does
// wherever there is room.
func (c *sameCore) takeBack() {
	c.release()
	if id := c.thread.Load(); id != 0 {
		_ = unix.SchedSetaffinity(int(id), &c.all) // then it ends where it is
	}
}

// release ends the guest's turn for all who rest meanwhile.
func (c *sameCore) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on.Store(false)
	c.back.Broadcast()
}

// wanted says that somebody waits for the guest.
func (c *sameCore) wanted() bool {
	fds := []unix.PollFd{{Fd: int32(c.device), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return c.served.Load()%2 != 0 || err == nil && n > 0
}

// rest is a normal worker other than the first while the guest serves.
func (c *sameCore) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.on.Load() {
		c.back.Wait()
	}
}

// serve is the guest.
func (c *sameCore) serve() {
	runtime.LockOSThread() // for ever: the thread ends with it
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
		c.refused.Store(true)
	}
	c.thread.Store(int32(unix.Gettid()))
	for pid := range c.start {
		c.follows.cpu, c.busy = -1, 0
		c.follow(pid)
		if c.refused.Load() {
			c.leave.Store(true)
		}
		for c.on.Load() {
			if !c.worker.once() {
				// The others are told the same, but those that rest: the first worker may
				// see that nobody serves any more before it would watch.
				c.release()
			}
		}
		c.idle.Store(true)
		c.s.workers.Done()
	}
}

// lookAsGuest is look.
func (c *sameCore) lookAsGuest(pid uint32) {
	c.follow(pid)
	c.astray = 0
	if c.force {
		return
	}
	if n, err := c.others(); err == nil && n <= c.all.Count() {
		c.busy = max(0, c.busy-1)
	} else if c.busy++; c.busy >= busyLooks {
		c.leave.Store(true)
	}
}

// follow pins the guest to the processor that the thread pid ran on last. Where that
// can't be known, it asks to leave.
func (c *sameCore) follow(pid uint32) {
	cpu, err := c.follows.find(c.proc, pid)
	if err != nil {
		c.leave.Store(true)
		return
	}
	if c.follows.to(cpu) != nil {
		c.refused.Store(true)
		c.leave.Store(true)
	}
}

// await waits until there is a request for the guest, or a while.
func (c *sameCore) await() {
	if c.astray++; c.astray >= strayed {
		c.worker.looks = followLook
	}
	fds := []unix.PollFd{{Fd: int32(c.device), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, 20) // ms; the next read says what is wrong
}

package exec

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names of this package's children.
const (
	keeperName = "keeper"
	initName   = "init"
)

// Children are the re-exec entries of this package.
func Children() map[string]func() int {
	return map[string]func() int{
		keeperName: func() int { return keeperMain(false) }, initName: initMain, probeName: probeMain,
		chrootKeeperName: func() int { return keeperMain(true) }, chrootInitName: chrootInitMain, chrootCommandName: chrootCommandMain,
	}
}

// keeper is K: pid 1 of the sandbox's pid namespace, or, without namespaces, the subreaper of everything in the sandbox.
type keeper struct {
	link   *link
	null   *os.File
	exe    string // this binary, not writable by whoever gets at it
	binary *os.File
	chroot bool
	placed map[uint64][]abandoned // what A has in roots, by its number for them; of serve

	handlers int // a binfmt_misc of this namespace, 0 for none; of serve

	mu   sync.Mutex
	pids map[int]uint64 // children by pid; INVARIANT: a pid is here until it was reaped, so that a kill never hits another process
	ids  map[uint64]int
}

func keeperMain(chroot bool) int {
	// What dies with its parent dies with the thread that forked it.
	runtime.LockOSThread()
	l, err := newLink(os.NewFile(3, "keeper socket"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		return 1
	}
	k := &keeper{link: l, chroot: chroot, placed: map[uint64][]abandoned{}, pids: map[int]uint64{}, ids: map[uint64]int{}}
	if err := k.prepare(); err != nil {
		if serr := l.send(reply{Kind: "failed", Error: err.Error()}, nil); serr != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err, serr)
		}
		return 1
	}
	// The reaper needs no end of its own: this process ends with serve, and everything in its pid namespace with it.
	childEnded := make(chan os.Signal, 1)
	signal.Notify(childEnded, unix.SIGCHLD)
	go func() {
		for range childEnded {
			k.reap()
		}
	}()
	if err := l.send(reply{Kind: "ready"}, nil); err != nil {
		return 1
	}
	k.serve()
	if chroot {
		k.mu.Lock() // for good: nothing is started and nothing else reaps any more
		if err := endDescendants(); err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
		}
		k.takeOut()
	}
	unix.Exit(0) // at once: see initMain
	return 0
}

// prepare cuts this process off from what it inherited: descriptors of the caller's caller, and mounts that would propagate.
func (k *keeper) prepare() error {
	if err := closeOnExecFrom(3); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open null device: %w", err)
	}
	k.null = null
	if k.chroot {
		return k.prepareChroot()
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if k.binary, err = protectedBinary(); err != nil {
		return err
	}
	k.exe = fmt.Sprintf("/proc/self/fd/%d", k.binary.Fd())
	return nil
}

// prepareChroot takes the place of namespaces: whatever is below this process stays below it. What it starts cannot make device nodes, which are the real ones here
// (LAWS 19): those of an image stay in its tree and never are on a disk.
func (k *keeper) prepareChroot() error {
	k.exe = "/proc/self/exe" // commands have no /proc, and so no way to it
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make keeper undumpable: %w", err)
	}
	if err := becomeSubreaper(); err != nil {
		return err
	}
	return dropForGood(unix.CAP_MKNOD)
}

// takeOut does what is left to do in the roots where A was killed.
func (k *keeper) takeOut() {
	for _, list := range k.placed {
		for _, a := range slices.Backward(list) {
			if err := a.takeOut(); err != nil {
				fmt.Fprintln(os.Stderr, "keeper:", err)
			}
		}
	}
}

// serve answers requests until the socket closes.
func (k *keeper) serve() {
	for {
		var req request
		files, err := k.link.receive(&req)
		if err != nil {
			return
		}
		switch req.Op {
		case "start":
			k.start(req, files)
		case "kill":
			k.kill(req.ID)
		case "placed":
			k.placed[req.ID] = append(k.placed[req.ID], *req.Placed)
		case "emulate":
			k.emulateFor(req)
		case "taken":
			delete(k.placed, req.ID)
		}
		closeFiles(files)
	}
}

func (k *keeper) start(req request, files []*os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rep := reply{Kind: "started", ID: req.ID}
	if pid, err := k.fork(req, files); err != nil {
		rep = reply{Kind: "failed", ID: req.ID, Error: err.Error()}
	} else {
		k.pids[pid], k.ids[req.ID] = req.ID, pid
	}
	k.tell(rep)
}

func (k *keeper) fork(req request, files []*os.File) (int, error) {
	if len(files) < 2 {
		return 0, fmt.Errorf("start %s: got %d files, want at least 2", req.Name, len(files))
	}
	fds := []uintptr{k.null.Fd()}
	for _, f := range files {
		fds = append(fds, f.Fd())
	}
	// A child that must not outlive this process needs to know which one it was.
	pid, err := syscall.ForkExec(k.exe, []string{"fbuild:" + req.Name, strconv.Itoa(os.Getpid())}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: fds,
		Sys: &syscall.SysProcAttr{Cloneflags: req.Flags, Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", req.Name, err)
	}
	return pid, nil
}

func (k *keeper) kill(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if pid, ok := k.ids[id]; ok {
		// Not reaped yet, so the pid is its own; ESRCH is impossible and nothing else can go wrong.
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// reap collects every child that ended, its own and the orphans that came to it.
func (k *keeper) reap() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		ended := k.collect()
		if k.chroot && len(ended) > 0 {
			// What an init that was killed has left behind.
			ended = append(ended, k.endOrphans()...)
		}
		for _, r := range ended {
			k.tell(r)
		}
		if len(ended) == 0 {
			return
		}
	}
}

// collect waits for what has ended already.
func (k *keeper) collect() []reply {
	var ended []reply
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return ended
		}
		id, ok := k.pids[pid]
		if !ok {
			continue
		}
		delete(k.pids, pid)
		delete(k.ids, id)
		rep := reply{Kind: "exited", ID: id, Code: ws.ExitStatus()}
		if ws.Signaled() {
			rep.Signal = int(ws.Signal())
		}
		ended = append(ended, rep)
	}
}

// endOrphans kills everything below this process that no living child is responsible for, and returns the children that ended in the meantime.
func (k *keeper) endOrphans() []reply {
	var ended []reply
	for {
		left, err := descendants(os.Getpid(), k.pids)
		if err == nil {
			err = killAll(left)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
		}
		if err != nil || len(left) == 0 {
			return ended
		}
		time.Sleep(pause)
		ended = append(ended, k.collect()...)
	}
}

// tell sends a reply; if A is gone, serve ends and so does everything here.
func (k *keeper) tell(r reply) {
	if err := k.link.send(r, nil); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
	}
}

// closeOnExecFrom marks every descriptor from FIRST on, whoever opened it.
func closeOnExecFrom(first int) error {
	err := unix.CloseRange(uint(first), ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Kernels before 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

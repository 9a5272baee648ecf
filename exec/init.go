package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptors of C.
const (
	jobFD    = 3
	statusFD = 4
)

// setupError is a refusal of the host, not a fault of the command.
type setupError struct{ err error }

func (e *setupError) Error() string { return e.err.Error() }
func (e *setupError) Unwrap() error { return e.err }

// initMain is C: pid 1 of a command's pid namespace.
func initMain() int {
	// Capabilities and seccomp belong to a thread; the command is forked from this one.
	runtime.LockOSThread()
	var watch netWatch
	o := runInit(&watch)
	o.Network = watch.last()
	return tell(o)
}

// tell writes the last word of C to its status and ends the process.
func tell(o outcome) int {
	o.Error = o.Error[:min(len(o.Error), maxOutcome/8)]
	if err := json.NewEncoder(os.NewFile(statusFD, "status")).Encode(o); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return 1
	}
	// At once, and not by way of os.Exit: what the command left behind runs until this process is gone, and a race-detecting build would sleep a second first.
	unix.Exit(0)
	return 0
}

func runInit(watch *netWatch) outcome {
	j, err := readJob()
	if err == nil {
		err = prepareInit(j)
	}
	if err != nil {
		var host *setupError
		return outcome{Error: err.Error(), Unavailable: errors.As(err, &host)}
	}
	if err := unix.Chdir(j.Dir); err != nil {
		return outcome{Error: fmt.Sprintf("chdir to working directory %q: %v", j.Dir, err)}
	}
	name, err := lookPath(j.Args[0], j.Env)
	if err != nil {
		return commandError(err)
	}
	if j.WatchNet {
		watch.watchNetwork(func(err error) {
			watch.last()
			tell(outcome{Error: err.Error()})
		})
	}
	if err := confine(); err != nil {
		return outcome{Error: err.Error(), Unavailable: true}
	}
	pid, err := fork(name, j)
	if err != nil {
		return commandError(startError(name, err))
	}
	return reapUntil(pid)
}

func readJob() (job, error) {
	var j job
	f := os.NewFile(jobFD, "job")
	defer func() { _ = f.Close() }() // only read
	if err := closeOnExecFrom(jobFD); err != nil {
		return j, err
	}
	if err := json.NewDecoder(f).Decode(&j); err != nil && err != io.EOF {
		return j, fmt.Errorf("decode job: %w", err)
	}
	return j, nil
}

// prepareInit makes everything that the command will find, with all the capabilities of the sandbox.
func prepareInit(j job) error {
	// A process of the command must not reach this binary through /proc/1 (CVE-2019-5736), nor trace this process.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make init undumpable: %w", err)
	}
	unix.Umask(0o022)
	if err := enterRoot(j); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(j.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if j.NoNet {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	if err := setLimits(j.Limits); err != nil {
		return err
	}
	if err := resetSignals(); err != nil {
		return err
	}
	return giveOutput(int(j.UID), int(j.GID))
}

// giveOutput makes the user of the command the owner of its output pipes, so that it can open /dev/stdout, as in docker. Nothing else is given away: the null
// device is the host's.
func giveOutput(uid, gid int) error {
	for _, fd := range []int{1, 2} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("look at output: %w", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("give away output: %w", err)
		}
	}
	return nil
}

// lastSignal is the highest real-time signal.
const lastSignal = 64

// unignore gives a signal that is ignored its default action. Go leaves alone the
// few that C libraries keep for themselves, which a caller may have ignored too.
func unignore(sig uintptr) error {
	var act struct{ handler, flags, restorer, mask uintptr } // the kernel's struct sigaction
	const maskSize = 8
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&act)), maskSize, 0, 0) //nolint:gosec // what the system call takes
	const ignored = 1
	if errno != 0 || act.handler != ignored {
		return nonzero(errno)
	}
	act.handler = 0                                                                                              // the default
	_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, maskSize, 0, 0) //nolint:gosec // as above
	return nonzero(errno)
}

func nonzero(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// resetSignals makes every signal's action in the command the default and its mask empty: an action that is caught here is reset by execve, one that was ignored
// (nohup) would stay ignored.
func resetSignals() error {
	signal.Notify(make(chan os.Signal, 1))
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		if err := unignore(sig); err != nil {
			return fmt.Errorf("reset signal %d: %w", sig, err)
		}
	}
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return fmt.Errorf("clear signal mask: %w", err)
	}
	return nil
}

// fork starts the command. It returns only after its execve, whose error is that of the fork.
func fork(name string, j job) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("open null device: %w", err)
	}
	defer func() { _ = null.Close() }() // only read
	noGroups, err := setgroupsDenied()
	if err != nil {
		return 0, err
	}
	if noGroups && slices.ContainsFunc(j.Groups, func(g uint32) bool { return g != j.GID }) {
		return 0, fmt.Errorf("set supplementary groups %v: the user namespace of this host has setgroups denied", j.Groups)
	}
	return syscall.ForkExec(name, j.Args, &syscall.ProcAttr{
		Env:   j.Env,
		Files: []uintptr{null.Fd(), 1, 2},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Credential: &syscall.Credential{Uid: j.UID, Gid: j.GID, Groups: j.Groups, NoSetGroups: noGroups},
		},
	})
}

// setgroupsDenied tells whether the kernel refuses setgroups, as it does where one id is mapped and in namespaces below.
func setgroupsDenied() (bool, error) {
	data, err := os.ReadFile("/proc/self/setgroups")
	if err != nil {
		return false, fmt.Errorf("look at setgroups: %w", err)
	}
	return strings.TrimSpace(string(data)) == "deny", nil
}

// reapUntil reaps everything until the command itself has ended. The kernel kills what is left when this process, pid 1, ends.
func reapUntil(command int) outcome {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return outcome{Error: fmt.Sprintf("wait for command: %v", err)}
		case pid != command:
		case ws.Signaled():
			return outcome{Signal: int(ws.Signal())}
		default:
			return outcome{Code: ws.ExitStatus()}
		}
	}
}

// loopbackUp brings up the only device of a fresh network namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	defer func() { _ = unix.Close(s) }() // only a handle
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

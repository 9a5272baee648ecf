package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Names of the children where there are no namespaces.
const (
	chrootKeeperName  = "chroot-keeper"
	chrootInitName    = "chroot-init"
	chrootCommandName = "chroot-command"
)

// runChroot places what the command finds in its root, runs it, and takes everything out again. It is A that does so: whatever happens to the children, A puts back
// what was in the way; and only a killed A leaves a root as it is, but for what abandoned is about, which is then thrown away with the work directory around it.
func (s *Sandbox) runChroot(ctx context.Context, j job, spec Spec) (err error) {
	taken, err := s.announce(j)
	if err != nil {
		return err
	}
	defer func() {
		if terr := taken(); err == nil && terr != nil {
			err = terr
		}
	}()
	p, err := place(j)
	if _, ok := errors.AsType[*setupError](err); ok {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err != nil {
		return err
	}
	err = s.run(ctx, j, spec)
	return errors.Join(err, p.takeOut())
}

// chrootInitMain is C without namespaces: parent of the command and of every process that comes of it, all of which it ends.
func chrootInitMain() int {
	// The parent death signal of the command goes by this thread.
	runtime.LockOSThread()
	var watch netWatch
	o := runChrootInit(&watch)
	o.Network = watch.last()
	if err := endDescendants(); err != nil {
		o = outcome{Error: err.Error()}
	}
	return tell(o)
}

func runChrootInit(watch *netWatch) outcome {
	if err := closeOnExecFrom(jobFD); err != nil {
		return outcome{Error: err.Error()}
	}
	if err := prepareChrootInit(); err != nil {
		return outcome{Error: err.Error(), Unavailable: true}
	}
	ours, theirs, err := socketPair("command socket")
	if err != nil {
		return outcome{Error: err.Error()}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return outcome{Error: fmt.Sprintf("open null device: %v", err)}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"fbuild:" + chrootCommandName}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: []uintptr{null.Fd(), 1, 2, jobFD, theirs.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL},
	})
	closeFiles([]*os.File{theirs, null})
	if err != nil {
		return outcome{Error: fmt.Sprintf("start command: %v", err)}
	}
	l, err := newLink(ours)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	listening := false
	for {
		var m commandMessage
		files, err := l.receive(&m)
		switch {
		case errors.Is(err, io.EOF): // the execve of the command
			if !listening {
				watch.note()
			}
			return reapUntil(pid)
		case err != nil:
			return outcome{Error: fmt.Sprintf("start command: %v", err)}
		case m.Failed != nil:
			return *m.Failed
		case len(files) == 1:
			listening = true
			watch.serve(&listener{fd: int(files[0].Fd()), watch: watch, links: &linkServer{root: m.Root}}, func(err error) {
				watch.last()
				_ = endDescendants() // the error says more
				tell(outcome{Error: err.Error()})
			})
		}
	}
}

// commandMessage is what D tells C before it becomes the command: why it could not, or, with the descriptor of a listener, where the root is for C.
type commandMessage struct {
	Failed *outcome
	Root   string
}

// prepareChrootInit sees to it that nothing below this process outlives it, or K.
func prepareChrootInit() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make init undumpable: %w", err)
	}
	if err := becomeSubreaper(); err != nil {
		return err
	}
	// K forks from one thread, which lives as long as K. When K is killed, this process has to end what it started.
	orphaned := make(chan os.Signal, 1)
	signal.Notify(orphaned, unix.SIGTERM)
	go func() {
		<-orphaned
		_ = endDescendants() // nobody is there to be told
		unix.Exit(1)
	}()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	if len(os.Args) < 2 || os.Args[1] != strconv.Itoa(os.Getppid()) {
		return errors.New("the keeper of the sandbox is gone")
	}
	return nil
}

// chrootCommandMain is D: it enters the root, gives up everything that the command must not have, and becomes the command.
func chrootCommandMain() int {
	// Capabilities, ids, Landlock and seccomp belong to a thread, and it is this one that executes the command.
	runtime.LockOSThread()
	l, err := newLink(os.NewFile(statusFD, "command socket"))
	if err == nil {
		o := becomeCommand(l)
		o.Error = o.Error[:min(len(o.Error), maxOutcome/8)]
		err = l.send(commandMessage{Failed: &o}, nil)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	unix.Exit(1)
	return 1
}

// becomeCommand returns only if the command cannot be started.
func becomeCommand(l *link) outcome {
	j, err := readJob()
	if err != nil {
		return outcome{Error: err.Error()}
	}
	root, at, err := enterChroot(j)
	if err != nil {
		return outcome{Error: err.Error(), Unavailable: true}
	}
	if err := unix.Chdir(j.Dir); err != nil {
		return outcome{Error: fmt.Sprintf("chdir to working directory %q: %v", j.Dir, err)}
	}
	name, err := lookPath(j.Args[0], j.Env)
	if err != nil {
		return commandError(err)
	}
	if err := confineChroot(j, root); err != nil {
		return outcome{Error: err.Error(), Unavailable: true}
	}
	sections := []func(abi) program{linkSection}
	if j.WatchNet {
		sections = append(sections, socketSection)
	}
	if fd := listen(listenerProgram(sections...)); fd >= 0 {
		if err := l.send(commandMessage{Root: at}, []*os.File{os.NewFile(uintptr(fd), "listener")}); err != nil {
			return outcome{Error: err.Error()}
		}
	}
	return commandError(startError(name, syscall.Exec(name, j.Args, j.Env)))
}

// enterChroot makes the command's root this process' root and returns a descriptor of it, and its name outside.
func enterChroot(j job) (int, string, error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return -1, "", fmt.Errorf("make init undumpable: %w", err)
	}
	root, err := unix.Open(j.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open root %s: %w", j.Root, err)
	}
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", root))
	if err != nil {
		return -1, "", fmt.Errorf("find root: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return -1, "", fmt.Errorf("enter root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return -1, "", fmt.Errorf("chroot: %w", err)
	}
	unix.Umask(0o022)
	if err := setLimits(j.Limits); err != nil {
		return -1, "", err
	}
	if err := resetSignals(); err != nil {
		return -1, "", err
	}
	return root, at, giveOutput(int(j.UID), int(j.GID))
}

// keptWithoutNamespaces are docker's capabilities but for two: CAP_SYS_CHROOT, with which one leaves a chroot, and CAP_MKNOD, with which one reaches a disk.
func keptWithoutNamespaces() uint64 {
	return capabilitySet(capabilities) &^ (1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_MKNOD)
}

// confineChroot leaves the calling thread with the ids of the command, with what remains of docker's capabilities, with the files below its root, and with no_new_privs:
// without a user namespace that is the price of the filters (LAWS 35).
func confineChroot(j job, root int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	have, err := permitted()
	if err != nil {
		return err
	}
	keep := keptWithoutNamespaces() & have
	if err := boundCapabilities(keep); err != nil {
		return err
	}
	landlocked, err := landlockRoot(root)
	if err != nil {
		return err
	}
	if err := setIDs(j); err != nil {
		return err
	}
	if j.UID != 0 {
		keep = 0
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	// Again, since a change of ids clears it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	return installSeccomp(seccompProgram(refusals{tracing: !landlocked, network: j.NoNet}))
}

// setIDs changes the ids of this thread alone.
func setIDs(j job) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(j.Groups)), uintptr(unsafe.Pointer(unsafe.SliceData(j.Groups))), 0); errno != 0 { //nolint:gosec // what the system call takes
		return fmt.Errorf("set supplementary groups %v: %w", j.Groups, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(j.GID), uintptr(j.GID), uintptr(j.GID)); errno != 0 {
		return fmt.Errorf("set group %d: %w", j.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(j.UID), uintptr(j.UID), uintptr(j.UID)); errno != 0 {
		return fmt.Errorf("set user %d: %w", j.UID, errno)
	}
	return nil
}

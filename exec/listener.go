package exec

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A listener is told of the calls that a seccomp filter picks out, one after the other, and lets each go on in the kernel unless it answers it itself. It is C that
// listens: where C dies, everything that could wait for an answer dies with it. A filter cannot be taken away again, and without its listener the calls would fail with
// ENOSYS, so it lives as long as the command.
type listener struct {
	fd    int
	watch *netWatch
	links *linkServer // nil: links are not answered
}

// notification and answer are the kernel's struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// The ioctls of a listener, and what an answer says that lets the call go on.
const (
	notifRecv     = 0xc0502100
	notifSend     = 0xc0182101
	notifIDValid  = 0x40082102
	notifContinue = 1
)

// waitKillable (5.19) keeps signals other than SIGKILL from a call whose notification was received: it would be made, and asked about, again.
const waitKillable = 1 << 5

// listen installs PROG on this thread and returns the descriptor to listen on, -1 where the kernel has no such thing or somebody listens already.
func listen(prog program) int {
	if len(prog) == 0 || !kernelLetsGoOn() {
		return -1
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	for _, flags := range []uintptr{unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | waitKillable, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER} {
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog))) //nolint:gosec // G103: what the system call takes
		if errno == 0 {
			return int(fd)
		}
	}
	return -1
}

// kernelLetsGoOn tells whether a listener may let a call go on: kernels before 5.5 have listeners that cannot, and every call would fail.
func kernelLetsGoOn() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	return releaseLetsGoOn(unix.ByteSliceToString(u.Release[:]))
}

func releaseLetsGoOn(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 { // a release that is none is an old one
		return false
	}
	return major > 5 || major == 5 && minor >= 5
}

// serve answers until nobody is left to listen to, which is nil, or listening fails.
func (l *listener) serve() error {
	runtime.LockOSThread() // never unlocked: links changes the ids of this thread
	for {
		var n notification
		err := ioctl(l.fd, notifRecv, unsafe.Pointer(&n)) //nolint:gosec // G103: what the system call takes
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT): // the caller is gone, or all are
			if l.deserted() {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("listen to calls of the command: %w", err)
		}
		a := answer{id: n.id, flags: notifContinue}
		if l.links != nil {
			if val, ok := l.links.answer(l.fd, &n); ok {
				a.val, a.flags = val, 0
			}
		}
		if isSocketCall(&n) {
			l.watch.letGoOn(func() { l.send(&a) })
			continue
		}
		l.send(&a)
	}
}

func (l *listener) send(a *answer) {
	_ = ioctl(l.fd, notifSend, unsafe.Pointer(a)) //nolint:gosec // G103; a caller that is gone needs no answer
}

// deserted tells whether no process is left that the filter is on.
func (l *listener) deserted() bool {
	fds := []unix.PollFd{{Fd: int32(l.fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// listenerProgram sends each call that SECTION picks for an ABI to whoever listens, and allows the others.
func listenerProgram(sections ...func(abi) program) program {
	var prog program
	prog.load(dataArch)
	for _, a := range abis {
		var section program
		section.load(dataNumber)
		for _, s := range sections {
			section = append(section, s(a)...)
		}
		section.ret(unix.SECCOMP_RET_ALLOW)
		prog.jump(unix.BPF_JEQ, a.audit, 1, 0)
		prog.skip(uint32(len(section)))
		prog = append(prog, section...)
	}
	prog.ret(unix.SECCOMP_RET_ALLOW)
	return prog
}

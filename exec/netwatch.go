package exec

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// What a command got from the network is not in what it read of its root, so a build wants to know whether there was anything (LAWS 6). Nothing reaches a network without
// a socket: none is inherited, io_uring is refused, and so is taking one from another process. A seccomp filter hands C each call for a socket of a family that can lead
// out of the machine; C notes the first and lets all of them go on. Until then, and for every other call, the filter costs nothing (the kernel keeps a bitmap of what
// is always allowed); each later socket costs the exchange with C, some microseconds.
//
// Unix and netlink sockets do not count: the one leads to processes of the same command (and to an agent that it was given), the other asks the kernel about the machine, as
// /proc does. With network "none" nothing is watched, since nothing outside can be reached. Of a 32-bit program that uses socketcall, the family lies behind a pointer: any
// socket counts.

// localFamilies are sockets that lead to no other machine.
var localFamilies = []uint32{unix.AF_UNSPEC, unix.AF_UNIX, unix.AF_NETLINK}

// callSocket is the first argument of a socketcall that makes a socket.
const callSocket = 1

// netWatch knows whether a command asked for a socket.
type netWatch struct {
	mu   sync.Mutex
	used bool
}

// letGoOn notes the use and lets the call go on.
func (w *netWatch) letGoOn(send func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = true
	send()
}

// note says that the network may have been used.
func (w *netWatch) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = true
}

// last tells whether the network was used. What is left of the command and asks for a socket afterwards waits for its end: the lock is never given back, so that the
// answer stays true.
func (w *netWatch) last() bool {
	w.mu.Lock()
	return w.used
}

// socketSection picks the calls that make a socket to the outside.
func socketSection(a abi) program {
	var socket program
	socket.load(dataArg0)
	for _, f := range localFamilies {
		socket.jump(unix.BPF_JEQ, f, 0, 1)
		socket.ret(unix.SECCOMP_RET_ALLOW)
	}
	socket.ret(unix.SECCOMP_RET_USER_NOTIF)
	var p program
	p.when(a.socket, socket)
	for _, c := range socketCalls {
		n := c.numbers[a.numbers]
		if n < 0 {
			continue
		}
		var call program
		call.load(dataArg0)
		call.jump(unix.BPF_JEQ, callSocket, 0, 1)
		call.ret(unix.SECCOMP_RET_USER_NOTIF)
		call.ret(unix.SECCOMP_RET_ALLOW)
		p.when(uint32(n), call)
	}
	return p
}

// isSocketCall tells the calls of socketSection from those that read links.
func isSocketCall(n *notification) bool {
	return slices.ContainsFunc(abis, func(a abi) bool {
		return a.audit == n.arch && (a.socket == uint32(n.nr) || slices.ContainsFunc(socketCalls, func(c call) bool { return c.numbers[a.numbers] == int(n.nr) }))
	})
}

// watchNetwork puts the filter on this thread, and what is forked from it, and answers until this process ends: it belongs to the init of a command, which does nothing
// that the filter picks out. BROKEN is called when the listener fails.
func (w *netWatch) watchNetwork(broken func(error)) {
	fd := listen(listenerProgram(socketSection))
	if fd < 0 {
		w.note()
		return
	}
	w.serve(&listener{fd: fd, watch: w}, broken)
}

// serve answers for a listener until this process ends.
func (w *netWatch) serve(l *listener, broken func(error)) {
	go func() { // it ends with this process
		if err := l.serve(); err != nil {
			broken(err)
		}
	}()
}

package exec

import (
	"golang.org/x/sys/unix"
)

// abi is one way to call the kernel, with the numbers of the calls that are treated apart.
type abi struct {
	audit   uint32
	numbers int // column of refusedCalls
	clone, clone3, personality,
	socket uint32
	// private calls of arm lie far above the others.
	privateFrom, privateTo uint32
}

const (
	// lastKnown is the newest call that the profile was decided for (removexattrat). What comes later, and calls of the x32 ABI (bit 30), does not exist: ENOSYS,
	// upon which libraries fall back.
	lastKnown = 466

	// newNamespaces are the flags of clone that make namespaces.
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

	seccompErrno = uint32(unix.SECCOMP_RET_ERRNO)
)

// Offsets in struct seccomp_data; the low half of an argument comes first on the (little endian) machines that we run on.
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16
)

// personalities that may be set: none, UNAME26 or 32 bit words of it (as docker), and asking.
var personalities = []uint32{0, 0x0008, 0x20000, 0x20008, 0xffffffff}

// refusedDomains are sockets into the kernel's cryptography and to a hypervisor: docker refuses them too.
var refusedDomains = []uint32{unix.AF_ALG, unix.AF_VSOCK}

// refusals are what is refused beyond docker's profile where there are no namespaces.
type refusals struct {
	// tracing refuses to look into other processes, for kernels without Landlock, which confines it to the command's own.
	tracing bool
	// network leaves unix sockets only: the others do not exist (EAFNOSUPPORT).
	network bool
}

// seccompProgram is docker's default profile for its default capabilities, turned around: the calls that it does not allow are refused with EPERM. Both the native
// and the 32 bit calls of the machine are filtered, each by their own numbers.
func seccompProgram(more refusals) program {
	var prog program
	prog.load(dataArch)
	for _, a := range abis {
		section := a.section(more)
		prog.jump(unix.BPF_JEQ, a.audit, 1, 0)
		prog.skip(uint32(len(section)))
		prog = append(prog, section...)
	}
	prog.ret(unix.SECCOMP_RET_KILL_PROCESS)
	return prog
}

func (a abi) section(more refusals) program {
	var p program
	p.load(dataNumber)
	if a.privateTo != 0 {
		p.jump(unix.BPF_JGE, a.privateFrom, 0, 2)
		p.jump(unix.BPF_JGT, a.privateTo, 1, 0)
		p.ret(unix.SECCOMP_RET_ALLOW)
	}
	p.jump(unix.BPF_JGT, lastKnown, 0, 1)
	p.ret(seccompErrno | uint32(unix.ENOSYS))
	p.refuse(a.numbers, refusedCalls, unix.EPERM)
	if more.tracing {
		p.refuse(a.numbers, tracingCalls, unix.EPERM)
	}
	if more.network {
		p.refuse(a.numbers, socketCalls, unix.ENOSYS) // libc then uses socket
	}
	// As docker: flags of clone3 lie behind a pointer, and without it libc uses clone.
	p.jump(unix.BPF_JEQ, a.clone3, 0, 1)
	p.ret(seccompErrno | uint32(unix.ENOSYS))

	var clone program
	clone.load(dataArg0)
	clone.jump(unix.BPF_JSET, newNamespaces, 0, 1)
	clone.ret(seccompErrno | uint32(unix.EPERM))
	clone.ret(unix.SECCOMP_RET_ALLOW)
	p.when(a.clone, clone)

	var personality program
	personality.load(dataArg0)
	for _, v := range personalities {
		personality.jump(unix.BPF_JEQ, v, 0, 1)
		personality.ret(unix.SECCOMP_RET_ALLOW)
	}
	personality.ret(seccompErrno | uint32(unix.EPERM))
	p.when(a.personality, personality)

	var socket program
	socket.load(dataArg0)
	if more.network {
		socket.jump(unix.BPF_JEQ, unix.AF_UNIX, 1, 0)
		socket.ret(seccompErrno | uint32(unix.EAFNOSUPPORT))
	}
	for _, d := range refusedDomains {
		socket.jump(unix.BPF_JEQ, d, 0, 1)
		socket.ret(seccompErrno | uint32(unix.EPERM))
	}
	socket.ret(unix.SECCOMP_RET_ALLOW)
	p.when(a.socket, socket)

	p.ret(unix.SECCOMP_RET_ALLOW)
	return p
}

// program is classic BPF on struct seccomp_data.
type program []unix.SockFilter

func (p *program) load(offset uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (p *program) jump(op uint16, k uint32, yes, no uint8) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | op, Jt: yes, Jf: no, K: k})
}

func (p *program) skip(n uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: n})
}

func (p *program) ret(action uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
}

// refuse answers calls with ERRNO; COLUMN is the ABI.
func (p *program) refuse(column int, calls []call, errno unix.Errno) {
	for _, c := range calls {
		if n := c.numbers[column]; n >= 0 {
			p.jump(unix.BPF_JEQ, uint32(n), 0, 1)
			p.ret(seccompErrno | uint32(errno))
		}
	}
}

// when runs SECTION, which returns, for call NUMBER.
func (p *program) when(number uint32, section program) {
	p.jump(unix.BPF_JEQ, number, 1, 0)
	p.skip(uint32(len(section)))
	*p = append(*p, section...)
}

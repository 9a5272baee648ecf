package exec

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A command in a chroot has no /proc, but programs find themselves by reading the link /proc/self/exe: Go's tools, Rust's, Java's. So C answers that one question: a
// seccomp filter hands it each readlink of the command, and where the name is one of a process' own links, it writes the answer; every other call goes on as if nothing
// were there. It is a convenience and no border: what a process sees of itself can only be about itself, and the kernel still decides everything.

// linkCalls read links; the argument that holds the path differs.
var linkCalls = []struct {
	call
	path int
}{
	{call{"readlink", [4]int{89, 85, -1, 85}}, 0},
	{call{"readlinkat", [4]int{267, 305, 78, 332}}, 1},
}

// linkSection picks the calls that read links.
func linkSection(a abi) program {
	var p program
	for _, c := range linkCalls {
		if n := c.numbers[a.numbers]; n >= 0 {
			p.jump(unix.BPF_JEQ, uint32(n), 0, 1)
			p.ret(unix.SECCOMP_RET_USER_NOTIF)
		}
	}
	return p
}

// linkServer answers for the processes of one command. It runs on a thread of its own, whose ids it changes to those of whom it looks at: nothing else may.
type linkServer struct {
	root     string // the command's root, as this process sees it
	uid, gid uint32
}

// answer writes the target of a process' own link into its buffer; false is for everything else.
func (s *linkServer) answer(fd int, n *notification) (int64, bool) {
	args, ok := linkArgs(n)
	if !ok || args[2] == 0 || args[2] > unix.PathMax*2 {
		return 0, false
	}
	pid := int(n.pid)
	if !s.become(pid) {
		return 0, false
	}
	// Not process_vm_readv, which docker's profile had for tracers only until 2021.
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return 0, false
	}
	defer func() { _ = mem.Close() }() // only a handle
	name, ok := selfLink(pid, readName(mem, args[0]))
	if !ok {
		return 0, false
	}
	to, err := os.Readlink(name)
	if err != nil {
		return 0, false
	}
	if path.IsAbs(to) {
		inside, ok := strings.CutPrefix(to, s.root)
		if !ok || inside != "" && inside[0] != '/' {
			return 0, false
		}
		to = path.Join("/", inside)
	}
	// Still the process that asked, and not another that got its number.
	if err := ioctl(fd, notifIDValid, unsafe.Pointer(&n.id)); err != nil { //nolint:gosec // G103: what the system call takes
		return 0, false
	}
	data := []byte(to)[:min(uint64(len(to)), args[2])]
	wrote, err := mem.WriteAt(data, int64(args[1]))
	return int64(wrote), err == nil && wrote > 0
}

// linkArgs are path, buffer and size of a call.
func linkArgs(n *notification) ([]uint64, bool) {
	for _, a := range abis {
		for _, c := range linkCalls {
			if a.audit == n.arch && c.numbers[a.numbers] == int(n.nr) {
				return n.args[c.path:][:3], true
			}
		}
	}
	return nil, false
}

// become gives this thread, for what it does with files, the ids of a process, which is what lets it look into that without CAP_SYS_PTRACE.
func (s *linkServer) become(pid int) bool {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d", pid), &st) != nil {
		return false
	}
	if st.Uid != s.uid || st.Gid != s.gid {
		// They cannot fail but by doing nothing, which the kernel will notice later.
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(st.Gid), 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(st.Uid), 0, 0)
		s.uid, s.gid = st.Uid, st.Gid
	}
	return true
}

// maxSelfLink is longer than any name that is answered: /proc/thread-self/fd/ and a number.
const maxSelfLink = 40

// readName reads a name from the memory of a process, "" if it is longer than one that matters, or cannot be read.
func readName(mem *os.File, at uint64) string {
	buf := make([]byte, maxSelfLink)
	n, _ := mem.ReadAt(buf, int64(at)) // short where the memory ends behind the name
	if i := bytes.IndexByte(buf[:n], 0); i >= 0 {
		return string(buf[:i])
	}
	return ""
}

// selfLink is where this process finds the link that NAME is for the thread TID.
func selfLink(tid int, name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "/proc/")
	who, link, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return "", false
	}
	if who != "self" && who != "thread-self" {
		// Its own number is as good.
		if _, err := strconv.ParseUint(who, 10, 31); err != nil {
			return "", false
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%s/task/%d", who, tid)); err != nil {
			return "", false
		}
	}
	number, isFD := strings.CutPrefix(link, "fd/")
	if _, err := strconv.ParseUint(number, 10, 31); isFD && err == nil || link == "exe" || link == "cwd" || link == "root" {
		return fmt.Sprintf("/proc/%d/%s", tid, link), true
	}
	return "", false
}

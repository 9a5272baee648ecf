// Command escape tries to get out of a root, or to look out of it. Its arguments are the id of a process outside and the name of an abstract socket outside; "BROKE"
// in what it prints is a trick that worked.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Println("BROKE: no process id:", err)
		return
	}
	for fd := 3; fd < 1024; fd++ {
		var st unix.Stat_t
		// The runtime of this program has an epoll and an eventfd of its own, which are no inodes of a file system.
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != 0 && st.Mode&unix.S_IFMT != unix.S_IFIFO {
			fmt.Println("BROKE: descriptor", fd, "is open")
		}
	}
	byte1 := make([]byte, 1)
	for _, t := range []struct {
		name string
		try  func() error
	}{
		{"chroot in a chroot", leaveChroot},
		{"ptrace", func() error { return unix.PtraceAttach(pid) }},
		{"process_vm_readv", func() error {
			local := []unix.Iovec{{Base: &byte1[0], Len: 1}}
			_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&byte1[0])), Len: 1}}, 0)
			return err
		}},
		{"signal", func() error { return unix.Kill(pid, 0) }},
		{"environment", func() error { _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); return err }},
		{"own environment by /proc", func() error { _, err := os.ReadFile("/proc/self/environ"); return err }},
		{"binary of another", func() error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); return err }},
		{"root of another", func() error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid)); return err }},
		{"disk device", func() error { return unix.Mknod("/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))) }},
		{"mount", func() error { return unix.Mount("proc", "/proc", "proc", 0, "") }},
		{"user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"descriptor of another", func() error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			_, err = unix.PidfdGetfd(fd, 0, 0)
			return err
		}},
		{"file handle", func() error {
			_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}), 0)
			return err
		}},
		{"abstract socket", func() error {
			if len(os.Args) < 3 || !strings.HasPrefix(os.Args[2], "@") {
				return unix.ENOENT
			}
			_, err := net.Dial("unix", os.Args[2])
			return err
		}},
	} {
		if err := t.try(); err == nil {
			fmt.Println("BROKE:", t.name)
		} else {
			fmt.Println(t.name+":", err)
		}
	}
	for name, want := range map[string]string{"/proc/self/exe": "/probe", "/proc/self/root": "/", "/proc/thread-self/cwd": "/", fmt.Sprintf("/proc/%d/exe", os.Getpid()): "/probe"} {
		if got, err := os.Readlink(name); got != want {
			fmt.Printf("BROKE: %s leads to %q, %v, want %s\n", name, got, err, want)
		}
	}
	_, err = net.Dial("tcp", "127.0.0.1:1")
	fmt.Println("network:", err)
	if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || nnp != 1 {
		fmt.Println("BROKE: no_new_privs is", nnp, err)
	}
	fmt.Println("done")
}

// leaveChroot is the classic: a second chroot leaves the working directory outside of the root.
func leaveChroot() error {
	if err := os.MkdirAll("/tmp/jail", 0o755); err != nil {
		return err
	}
	if err := unix.Chroot("/tmp/jail"); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	return unix.Chroot(".")
}

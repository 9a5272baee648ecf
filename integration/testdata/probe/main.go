// Command probe says, from inside a RUN, what only a program can see.
package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	var err error
	switch cmd, args := os.Args[1], os.Args[2:]; cmd {
	case "euid":
		fmt.Println(syscall.Geteuid())
	case "status":
		err = status(args)
	case "fds":
		err = fds()
	case "setcap": // FILE: cap_net_raw+ep, revision 2
		err = syscall.Setxattr(args[0], "security.capability", []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0)
	case "setxattr": // FILE NAME VALUE
		err = syscall.Setxattr(args[0], args[1], []byte(args[2]), 0)
	case "socket": // FILE
		err = syscall.Mknod(args[0], syscall.S_IFSOCK|0o755, 0)
	case "list":
		err = list(args[0])
	case "dirty": // FILE: leave a process with a dirty shared mapping behind
		err = dirty(args[0])
	case "dirtychild":
		err = dirtyChild(args[0])
	case "unlinked": // FILE: leave a process behind that writes to an unlinked file
		err = unlinked(args[0])
	case "agent": // list the keys of $SSH_AUTH_SOCK, and try to remove them
		err = agent()
	default:
		err = fmt.Errorf("unknown command %q", cmd)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// agent asks the ssh agent for its keys and prints their comments.
func agent() error {
	c, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return err
	}
	defer c.Close()
	ask := func(kind byte) ([]byte, error) {
		if _, err := c.Write([]byte{0, 0, 0, 1, kind}); err != nil {
			return nil, err
		}
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return nil, err
		}
		reply := make([]byte, binary.BigEndian.Uint32(size[:]))
		_, err := io.ReadFull(c, reply)
		return reply, err
	}
	const removeAll, failure, list, answer = 19, 5, 11, 12
	if reply, err := ask(removeAll); err != nil || reply[0] != failure {
		return fmt.Errorf("remove all keys: got %v, %v, want a refusal", reply, err)
	}
	reply, err := ask(list)
	if err != nil || reply[0] != answer {
		return fmt.Errorf("list keys: got %v, %v", reply, err)
	}
	next := func() string {
		n := binary.BigEndian.Uint32(reply)
		s := string(reply[4 : 4+n])
		reply = reply[4+n:]
		return s
	}
	n := binary.BigEndian.Uint32(reply[1:])
	reply = reply[5:]
	fmt.Println(n, "keys")
	for range n {
		next() // the key itself
		fmt.Println("key", next())
	}
	return nil
}

// status prints lines of /proc/self/status.
func status(keys []string) error {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(data), "\n") {
		for _, k := range keys {
			if strings.HasPrefix(line, k+":") {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return nil
}

// fds prints what the descriptors are that this process was started with.
func fds() error {
	for fd := 0; fd < 4096; fd++ {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			continue
		}
		kind, _, _ := strings.Cut(name, ":")
		if kind == "anon_inode" || strings.HasPrefix(kind, "/sys/fs/cgroup/") { // Go's own: epoll, limits of the CPU
			continue
		}
		fmt.Println(fd, kind)
	}
	return nil
}

// list prints every attribute of every file below a directory.
func list(root string) error {
	var lines []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (p == "/proc" || p == "/sys" || p == "/dev") {
			return filepath.SkipDir
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q %o %d:%d links %d rdev %d mtime %d.%09d", p, st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec)
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			line += fmt.Sprintf(" size %d", st.Size)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		} else {
			for _, name := range []string{"security.capability", "user.probe", "trusted.probe"} {
				buf := make([]byte, 1024)
				if n, err := syscall.Getxattr(p, name, buf); err == nil {
					line += " " + name + "=" + hex.EncodeToString(buf[:n])
				}
			}
		}
		lines = append(lines, line)
		return nil
	})
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
	return err
}

// dirty starts a process that outlives this one.
func dirty(name string) error {
	cmd := exec.Command("/proc/self/exe", "dirtychild", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	for range 500 {
		if _, err := os.Stat(name + ".ready"); err == nil {
			return os.Remove(name + ".ready")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the child never got ready")
}

func dirtyChild(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := f.Truncate(8192); err != nil {
		return err
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, 8192, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(mem, "first page")
	copy(mem[4096:], "second page")
	_ = *(*byte)(unsafe.Pointer(&mem[0]))
	if err := os.WriteFile(name+".ready", nil, 0o644); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

func unlinked(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-c", "while :; do echo garbage; done")
	cmd.Stdout = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return nil
}

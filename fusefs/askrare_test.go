package fusefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rareOps are ways to look at files that few programs know, and a few programs that many know.
var rareOps = map[string]func(a []string) (string, error){
	"openat2": func(a []string) (string, error) {
		fd, err := unix.Openat2(unix.AT_FDCWD, a[0], &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: uint64(number(a[1]))})
		if err != nil {
			return "", err
		}
		out, err := readFD(fd)
		return out, errors.Join(err, unix.Close(fd))
	},
	"faccessat2": func(a []string) (string, error) {
		return "", unix.Faccessat2(unix.AT_FDCWD, a[0], unix.R_OK, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW)
	},
	"statxfd": func(a []string) (string, error) {
		return opened(a[0], unix.O_PATH, func(fd int) (string, error) {
			var st unix.Statx_t
			err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_DIOALIGN, &st)
			return fmt.Sprintf("%o %d:%d size %d", st.Mode, st.Uid, st.Gid, st.Size), err
		})
	},
	"readahead": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			_, _, e := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 1<<20)
			return "", nonzero(e)
		})
	},
	"preadv2": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			buf := make([]byte, 16)
			n, err := unix.Preadv2(fd, [][]byte{buf}, 0, int(number(a[1])))
			return sum(buf[:max(n, 0)]), err
		})
	},
	"advise": func(a []string) (string, error) { // madvise of a mapping
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
			if err != nil {
				return "", err
			}
			return "", errors.Join(unix.Madvise(m, int(number(a[1]))), unix.Munmap(m))
		})
	},
	"mapx": func(a []string) (string, error) { // as a loader maps: private, to execute, at once
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_POPULATE)
			if err != nil {
				return "", err
			}
			return sum(m[:4]), unix.Munmap(m)
		})
	},
	"execfd": func(a []string) (string, error) {
		return opened(a[0], unix.O_PATH, func(fd int) (string, error) {
			out, err := (&osexec.Cmd{Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)}).CombinedOutput()
			return sum(out), err
		})
	},
	"handleopen": func(a []string) (string, error) {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, a[0], 0)
		if err != nil {
			return "", err
		}
		return opened(".", unix.O_RDONLY|unix.O_DIRECTORY, func(mount int) (string, error) {
			fd, err := unix.OpenByHandleAt(mount, h, unix.O_RDONLY|unix.O_CLOEXEC)
			if err != nil {
				return "", err
			}
			out, err := readFD(fd)
			return out, errors.Join(err, unix.Close(fd))
		})
	},
	"ficlone": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(from int) (string, error) {
			return opened(a[1], unix.O_WRONLY|unix.O_CREAT, func(to int) (string, error) { return "", unix.IoctlFileClone(to, from) })
		})
	},
	"fiemap":     ioctl(0xc020660b, 32),
	"fsgetxattr": ioctl(0x801c581f, 28),
	"fionread":   ioctl(unix.TIOCINQ, 4),
	"getversion": ioctl(0x80087601, 8),
	"lease": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			n, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
			return fmt.Sprint(n), err
		})
	},
	"getlock": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			lock := unix.Flock_t{Type: unix.F_WRLCK}
			err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock)
			return fmt.Sprint(lock.Type), err
		})
	},
	"dnotify": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) (string, error) {
			n, err := unix.FcntlInt(uintptr(fd), unix.F_NOTIFY, 0)
			return fmt.Sprint(n), err
		})
	},
	"fanotify": func(a []string) (string, error) {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_ACCESS|unix.FAN_OPEN, unix.AT_FDCWD, a[0])
		return "", errors.Join(err, unix.Close(fd))
	},
	"getcwd": func([]string) (string, error) {
		buf := make([]byte, 4096)
		_, err := unix.Getcwd(buf)
		return "", err
	},
	"bind": func(a []string) (string, error) { // reads a[2] below a[1], where a[0] is mounted
		if err := unix.Mount(a[0], a[1], "", unix.MS_BIND, ""); err != nil {
			return "", err
		}
		out, err := opened(a[1]+"/"+a[2], unix.O_RDONLY, readFD)
		return out, errors.Join(err, unix.Unmount(a[1], 0))
	},
	"bindsocket": func(a []string) (string, error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		return "", errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: a[0]}), unix.Close(fd))
	},
	"whiteout": func(a []string) (string, error) { return "", renameat(a, unix.RENAME_WHITEOUT) },
	"tmplink": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDWR|unix.O_TMPFILE, func(fd int) (string, error) {
			return "", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, a[1], unix.AT_SYMLINK_FOLLOW)
		})
	},
	"uringread":  uringRead,
	"uringstatx": uringStatx,
	"box": func(a []string) (string, error) { // a program of busybox, with arguments
		words := slices.DeleteFunc(slices.Clone(a), func(s string) bool { return s == "" })
		cmd := &osexec.Cmd{Path: "./bin/busybox", Args: append([]string{"busybox"}, words...)}
		out, err := cmd.CombinedOutput()
		lines := strings.Split(string(out), "\n")
		slices.Sort(lines)
		return sum([]byte(strings.Join(lines, "\n"))), err
	},
	// evict takes everything that nobody uses out of the kernel's caches.
	"evict": func([]string) (string, error) { return "", evict() },
}

// dropCaches is for root.
const dropCaches = "/proc/sys/vm/drop_caches"

func evict() error { return os.WriteFile(dropCaches, []byte("3"), 0) }

func nonzero(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// ioctl is one with an argument of size bytes; what it says is not looked at.
func ioctl(request uintptr, size int) func([]string) (string, error) {
	return func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			arg := make([]byte, size)
			_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&arg[0])))
			return "", nonzero(e)
		})
	}
}

// The requests of an io_uring, from linux/io_uring.h.
const (
	uringOpenat = 18
	uringStat   = 21
	uringReadOp = 22
)

// uring is an io_uring for one request at a time.
type uring struct {
	fd         int
	sq, cq, es []byte
	p          [120]byte // struct io_uring_params
}

func newUring() (*uring, error) {
	u := &uring{}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&u.p[0])), 0)
	if e != 0 {
		return nil, e
	}
	u.fd = int(fd)
	var err [3]error
	const ring = unix.MAP_SHARED | unix.MAP_POPULATE
	u.sq, err[0] = unix.Mmap(u.fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, ring)
	u.cq, err[1] = unix.Mmap(u.fd, 0x8000000, 4096, unix.PROT_READ|unix.PROT_WRITE, ring)
	u.es, err[2] = unix.Mmap(u.fd, 0x10000000, 4096, unix.PROT_READ|unix.PROT_WRITE, ring)
	return u, errors.Join(err[:]...)
}

func (u *uring) close() error {
	return errors.Join(unix.Munmap(u.sq), unix.Munmap(u.cq), unix.Munmap(u.es), unix.Close(u.fd))
}

// at is a word of a ring, whose place the kernel wrote to the parameters at off.
func (u *uring) at(ring []byte, off int) *uint32 {
	return (*uint32)(unsafe.Pointer(&ring[binary.NativeEndian.Uint32(u.p[off:])]))
}

// do submits one request and waits for its result.
func (u *uring) do(op byte, fd int32, off uint64, addr unsafe.Pointer, n, flags uint32) (int32, error) {
	e := u.es[:64]
	clear(e)
	e[0] = op
	binary.NativeEndian.PutUint32(e[4:], uint32(fd))
	binary.NativeEndian.PutUint64(e[8:], off)
	binary.NativeEndian.PutUint64(e[16:], uint64(uintptr(addr)))
	binary.NativeEndian.PutUint32(e[24:], n)
	binary.NativeEndian.PutUint32(e[28:], flags)
	*u.at(u.sq, 64) = 0 // array[0]
	*u.at(u.sq, 44)++   // tail
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, 1, 0, 0); e != 0 {
		return 0, e
	}
	head := u.at(u.cq, 80)
	if *head == *u.at(u.cq, 84) {
		return 0, errors.New("io_uring: no result")
	}
	*head++
	entry := binary.NativeEndian.Uint32(u.p[100:]) + 16*((*head-1)&1) // a ring of two
	res := int32(binary.NativeEndian.Uint32(u.cq[entry+8:]))
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return res, nil
}

func uringRead(a []string) (string, error) {
	u, err := newUring()
	if err != nil {
		return "", err
	}
	name, buf := append([]byte(a[0]), 0), make([]byte, 64)
	fd, err := u.do(uringOpenat, unix.AT_FDCWD, 0, unsafe.Pointer(&name[0]), 0, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return "", errors.Join(err, u.close())
	}
	n, err := u.do(uringReadOp, fd, 0, unsafe.Pointer(&buf[0]), uint32(len(buf)), 0)
	runtime.KeepAlive(name)
	return sum(bytes.Clone(buf[:max(n, 0)])), errors.Join(err, unix.Close(int(fd)), u.close())
}

func uringStatx(a []string) (string, error) {
	u, err := newUring()
	if err != nil {
		return "", err
	}
	name := append([]byte(a[0]), 0)
	var st unix.Statx_t
	_, err = u.do(uringStat, unix.AT_FDCWD, uint64(uintptr(unsafe.Pointer(&st))), unsafe.Pointer(&name[0]), unix.STATX_BASIC_STATS, uint32(number(a[1])))
	runtime.KeepAlive(name)
	return fmt.Sprintf("%o size %d", st.Mode, st.Size), errors.Join(err, u.close())
}

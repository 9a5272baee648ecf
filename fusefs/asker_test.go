package fusefs

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	osexec "os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

// An asker is a process that does operations in the roots of steps and tells all that
// it saw of them, but for times. It is not the process that serves them.
type asker struct {
	t   *testing.T
	cmd *osexec.Cmd
	enc *json.Encoder
	dec *json.Decoder
}

type askJob struct {
	Root string
	Ops  []string
}

func newAsker(t *testing.T) *asker {
	t.Helper()
	a := &asker{t: t, cmd: reexec.Command(context.Background(), "test-ask")}
	a.cmd.Dir, a.cmd.Stderr = "/", os.Stderr
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.enc, a.dec = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), a.cmd.Wait()); err != nil {
			t.Errorf("asker: %v", err)
		}
	})
	return a
}

// do returns what each operation saw, one line for each.
func (a *asker) do(root string, ops []string) []string {
	a.t.Helper()
	var seen []string
	if err := a.enc.Encode(askJob{root, ops}); err != nil {
		a.t.Fatal(err)
	}
	if err := a.dec.Decode(&seen); err != nil {
		a.t.Fatalf("asker, %q: %v", ops, err)
	}
	return seen
}

// runAsk is the process of an asker.
func runAsk() int {
	debug.SetPanicOnFault(true)
	runtime.LockOSThread()
	unix.Umask(0o022)
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var job askJob
		err := dec.Decode(&job)
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err == nil {
			err = os.Chdir(job.Root)
		}
		seen := []string{}
		for _, op := range job.Ops {
			seen = append(seen, ask(strings.Fields(op)))
		}
		if err == nil {
			err = os.Chdir("/")
		}
		if err == nil {
			err = enc.Encode(seen)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "ask:", err)
			return 1
		}
	}
}

// ask does one operation and returns what a program sees of it.
func ask(op []string) (seen string) {
	defer func() {
		if v := recover(); v != nil {
			if _, fault := v.(interface{ Addr() uintptr }); !fault {
				panic(v)
			}
			seen = fmt.Sprintf("%q: fault", op)
		}
	}()
	do, ok := askOps[op[0]]
	if !ok {
		do, ok = rareOps[op[0]]
	}
	if !ok {
		return fmt.Sprintf("%q: no such operation", op)
	}
	arg := append(append([]string(nil), op[1:]...), "", "", "", "")
	out, err := do(arg)
	return fmt.Sprintf("%q: %s %v", op, out, err)
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 0, 64)
	return n
}

// opened opens a file for the time of fn.
func opened(p string, flags int, fn func(fd int) (string, error)) (string, error) {
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644) // a pipe would wait
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }() // fn may fault
	return fn(fd)
}

func looks(st *unix.Stat_t) string {
	return fmt.Sprintf("%o %d:%d links %d size %d blocks %d ino %x dev %x", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Blocks, st.Ino, st.Rdev)
}

// sum names bytes by a text of a few, or a checksum.
func sum(b []byte) string {
	if len(b) < 40 {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%d bytes %x", len(b), crc32.ChecksumIEEE(b))
}

func readFD(fd int) (string, error) {
	var all []byte
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return sum(all), err
		}
		all = append(all, buf[:n]...)
	}
}

func writeFD(data string) func(int) (string, error) {
	return func(fd int) (string, error) {
		n, err := unix.Write(fd, []byte(data))
		return fmt.Sprint(n), err
	}
}

func nothing(int) (string, error) { return "", nil }

func statFD(fd int) (string, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return looks(&st), err
}

func seek(whence int) func([]string) (string, error) {
	return func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			at, err := unix.Seek(fd, number(a[1]), whence)
			return fmt.Sprint(at), err
		})
	}
}

// mapped maps n bytes of a file and touches every page.
func mapped(p string, n int) (string, error) {
	return opened(p, unix.O_RDONLY, func(fd int) (string, error) {
		m, err := unix.Mmap(fd, 0, n, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return "", err
		}
		defer func() { _ = unix.Munmap(m) }()
		s := sum(m)
		return s, nil
	})
}

// listed is what getdents64 says, buf bytes at a time, at most so many times.
func listed(p string, buf, times int) (string, error) {
	return opened(p, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) (string, error) {
		var out strings.Builder
		b := make([]byte, buf)
		for range times {
			n, err := unix.Getdents(fd, b)
			if err != nil || n == 0 {
				return out.String(), err
			}
			for at := 0; at < n; {
				d := b[at:] // inode number, offset, length, kind, name
				size := int(binary.LittleEndian.Uint16(d[16:]))
				name, _, _ := bytes.Cut(d[19:size], []byte{0})
				fmt.Fprintf(&out, "%q %d %x %x, ", name, d[18], binary.LittleEndian.Uint64(d), binary.LittleEndian.Uint64(d[8:]))
				at += size
			}
		}
		return out.String(), nil
	})
}

// asUser does what a user without rights can.
func asUser(fn func() (string, error)) (string, error) {
	if err := unix.Setfsgid(1000); err != nil {
		return "", err
	}
	if err := unix.Setfsuid(1000); err != nil {
		return "", err
	}
	out, err := fn()
	return out, errors.Join(err, unix.Setfsuid(0), unix.Setfsgid(0))
}

func getx(p, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(p, name, buf)
	return fmt.Sprintf("%q", buf[:max(n, 0)]), err
}

func pipe(fn func(r, w int) (string, error)) (string, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return "", err
	}
	out, err := fn(p[0], p[1])
	return out, errors.Join(err, unix.Close(p[0]), unix.Close(p[1]))
}

var askOps = map[string]func(a []string) (string, error){
	"stat": func(a []string) (string, error) {
		var st unix.Stat_t
		err := unix.Stat(a[0], &st)
		return looks(&st), err
	},
	"lstat": func(a []string) (string, error) {
		var st unix.Stat_t
		err := unix.Lstat(a[0], &st)
		return looks(&st), err
	},
	"dontsync": func(a []string) (string, error) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, a[0], unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
		return fmt.Sprintf("%o %d:%d links %d size %d blocks %d ino %x", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Blocks, st.Ino), err
	},
	"btime": func(a []string) (string, error) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, a[0], unix.AT_STATX_FORCE_SYNC, unix.STATX_BTIME, &st)
		return fmt.Sprint(st.Mask&unix.STATX_BTIME, st.Btime), err
	},
	"access": func(a []string) (string, error) { return "", unix.Access(a[0], uint32(number(a[1]))) },
	"statfs": func(a []string) (string, error) {
		var st unix.Statfs_t
		err := unix.Statfs(a[0], &st)
		return fmt.Sprint(st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree, st.Namelen), err
	},
	"open":    func(a []string) (string, error) { return opened(a[0], unix.O_RDONLY, nothing) },
	"opath":   func(a []string) (string, error) { return opened(a[0], unix.O_PATH|unix.O_NOFOLLOW, statFD) },
	"read":    func(a []string) (string, error) { return opened(a[0], unix.O_RDONLY, readFD) },
	"odirect": func(a []string) (string, error) { return opened(a[0], unix.O_RDONLY|unix.O_DIRECT, readFD) },
	"uread": func(a []string) (string, error) {
		return asUser(func() (string, error) { return opened(a[0], unix.O_RDONLY, readFD) })
	},
	"uwrite": func(a []string) (string, error) {
		return asUser(func() (string, error) { return opened(a[0], unix.O_WRONLY, writeFD("u")) })
	},
	"pread": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			buf := make([]byte, number(a[2]))
			n, err := unix.Pread(fd, buf, number(a[1]))
			return sum(buf[:max(n, 0)]), err
		})
	},
	"fadvise": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) { return "", unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
	},
	"mmap":  func(a []string) (string, error) { return mapped(a[0], int(number(a[1]))) },
	"mmap0": func(a []string) (string, error) { return opened(a[0], unix.O_RDONLY, untouched) },
	"sendfile": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			return pipe(func(r, w int) (string, error) {
				n, err := unix.Sendfile(w, fd, nil, 1<<12)
				buf := make([]byte, max(n, 1))
				if n > 0 {
					_, err = unix.Read(r, buf)
				}
				return sum(buf[:max(n, 0)]), err
			})
		})
	},
	"splice": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			return pipe(func(r, w int) (string, error) {
				n, err := unix.Splice(fd, nil, w, nil, 1<<12, 0)
				buf := make([]byte, max(n, 1))
				if n > 0 {
					_, err = unix.Read(r, buf)
				}
				return sum(buf[:max(n, 0)]), err
			})
		})
	},
	"copy": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(from int) (string, error) {
			return opened(a[1], unix.O_WRONLY|unix.O_CREAT, func(to int) (string, error) {
				n, err := unix.CopyFileRange(from, nil, to, nil, 1<<20, 0)
				return fmt.Sprint(n), err
			})
		})
	},
	"seekdata": seek(unix.SEEK_DATA),
	"seekhole": seek(unix.SEEK_HOLE),
	"seekend":  seek(unix.SEEK_END),
	"exec": func(a []string) (string, error) {
		cmd := &osexec.Cmd{Path: "./" + a[0], Args: []string{a[0]}}
		out, err := cmd.CombinedOutput()
		return sum(out), err
	},
	"readlink": func(a []string) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Readlink(a[0], buf)
		return fmt.Sprintf("%q", buf[:max(n, 0)]), err
	},
	"list":  func(a []string) (string, error) { return listed(a[0], 1<<15, 1<<10) },
	"list1": func(a []string) (string, error) { return listed(a[0], 64, 1) },
	"lslong": func(a []string) (string, error) {
		all, err := os.ReadDir(a[0])
		var out strings.Builder
		for _, e := range all {
			var st unix.Stat_t
			lerr := unix.Lstat(a[0]+"/"+e.Name(), &st)
			fmt.Fprint(&out, e.Name(), " ", looks(&st), lerr, "; ")
		}
		return out.String(), err
	},
	"chdir": func(a []string) (string, error) {
		back, err := unix.Open(".", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		err = unix.Chdir(a[0])
		return "", errors.Join(err, unix.Fchdir(back), unix.Close(back))
	},
	"opendir": func(a []string) (string, error) { return opened(a[0], unix.O_RDONLY|unix.O_DIRECTORY, nothing) },
	"getx":    func(a []string) (string, error) { return getx(a[0], a[1]) },
	"listx": func(a []string) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(a[0], buf)
		return fmt.Sprintf("%q", buf[:max(n, 0)]), err
	},
	"setx": func(a []string) (string, error) {
		return "", unix.Lsetxattr(a[0], a[1], []byte(a[2]), int(number(a[3])))
	},
	"rmx":    func(a []string) (string, error) { return "", unix.Lremovexattr(a[0], a[1]) },
	"chmod":  func(a []string) (string, error) { return "", unix.Chmod(a[0], uint32(number(a[1]))) },
	"chown":  func(a []string) (string, error) { return "", unix.Lchown(a[0], int(number(a[1])), int(number(a[1]))) },
	"trunc":  func(a []string) (string, error) { return "", unix.Truncate(a[0], number(a[1])) },
	"otrunc": func(a []string) (string, error) { return opened(a[0], unix.O_WRONLY|unix.O_TRUNC, nothing) },
	"rewrite": func(a []string) (string, error) {
		out, err := opened(a[0], unix.O_WRONLY|unix.O_TRUNC, writeFD(a[1]+"\n"))
		return out, errors.Join(err, old(a[0]))
	},
	"append": func(a []string) (string, error) {
		return opened(a[0], unix.O_WRONLY|unix.O_APPEND, writeFD(a[1]))
	},
	"write": func(a []string) (string, error) { return opened(a[0], unix.O_WRONLY, writeFD(a[1])) },
	"create": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, writeFD(a[1]))
	},
	"creat": func(a []string) (string, error) {
		return opened(a[0], unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, writeFD(a[1]))
	},
	"mwrite": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDWR, func(fd int) (string, error) {
			m, err := unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return "", err
			}
			defer func() { _ = unix.Munmap(m) }()
			m[0] = 'M'
			return "", nil
		})
	},
	"falloc": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDWR, func(fd int) (string, error) {
			return "", unix.Fallocate(fd, uint32(number(a[3])), number(a[1]), number(a[2]))
		})
	},
	"mkdir":     func(a []string) (string, error) { return "", unix.Mkdir(a[0], 0o755) },
	"rmdir":     func(a []string) (string, error) { return "", unix.Rmdir(a[0]) },
	"unlink":    func(a []string) (string, error) { return "", unix.Unlink(a[0]) },
	"rename":    func(a []string) (string, error) { return "", unix.Rename(a[0], a[1]) },
	"exchange":  func(a []string) (string, error) { return "", renameat(a, unix.RENAME_EXCHANGE) },
	"noreplace": func(a []string) (string, error) { return "", renameat(a, unix.RENAME_NOREPLACE) },
	"link":      func(a []string) (string, error) { return "", unix.Link(a[0], a[1]) },
	"symlink":   func(a []string) (string, error) { return "", unix.Symlink(a[0], a[1]) },
	"mkfifo":    func(a []string) (string, error) { return "", unix.Mknod(a[0], unix.S_IFIFO|0o644, 0) },
	"utimes":    func(a []string) (string, error) { return "", old(a[0]) },
	"fraction": func(a []string) (string, error) {
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, a[0], []unix.Timespec{{Sec: 1000}, {Sec: 1000, Nsec: 500}}, 0)
	},
	"flock": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			lock := unix.Flock_t{Type: unix.F_RDLCK}
			return "", errors.Join(unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lock))
		})
	},
	"inotify": func(a []string) (string, error) {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return "", err
		}
		_, err = unix.InotifyAddWatch(fd, a[0], unix.IN_ALL_EVENTS)
		return "", errors.Join(err, unix.Close(fd))
	},
	"handle": func(a []string) (string, error) {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, a[0], 0)
		return fmt.Sprintf("%x", h.Bytes()), err
	},
	"flags": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) {
			n, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
			return fmt.Sprint(n), err
		})
	},
	"tmpfile": func(a []string) (string, error) { return opened(a[0], unix.O_RDWR|unix.O_TMPFILE, writeFD("t")) },
	"fsync": func(a []string) (string, error) {
		return opened(a[0], unix.O_RDONLY, func(fd int) (string, error) { return "", unix.Fsync(fd) })
	},
}

func untouched(fd int) (string, error) {
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	return "", unix.Munmap(m)
}

// old gives p the time of everything in the trees of these tests.
func old(p string) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 1000}, {Sec: 1000}}, unix.AT_SYMLINK_NOFOLLOW)
}

func renameat(a []string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, a[0], unix.AT_FDCWD, a[1], flags)
}

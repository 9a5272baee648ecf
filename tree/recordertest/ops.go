package recordertest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The helpers of laws panic: they run in a process of their own, whose failure
// fails the law.

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func write(p, s string) { must(os.WriteFile(p, []byte(s), 0o644)) }

func appendTo(p, s string) {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	_, err = f.WriteString(s)
	must(err)
	must(f.Close())
}

func writeAt(p, s string, off int64) {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE, 0o644)
	must(err)
	_, err = f.WriteAt([]byte(s), off)
	must(err)
	must(f.Close())
}

func read(p string) string {
	data, err := os.ReadFile(p)
	must(err)
	return string(data)
}

func truncate(p string, size int64)    { must(os.Truncate(p, size)) }
func rename(from, to string)           { must(unix.Rename(from, to)) }
func link(from, to string)             { must(os.Link(from, to)) }
func symlink(target, p string)         { must(os.Symlink(target, p)) }
func remove(p string)                  { must(os.Remove(p)) }
func removeAll(p string)               { must(os.RemoveAll(p)) }
func mkdir(p string)                   { must(os.Mkdir(p, 0o755)) }
func chmod(p string, mode uint32)      { must(unix.Chmod(p, mode)) }
func chown(p string, uid, gid int)     { must(os.Lchown(p, uid, gid)) }
func setXattr(p, name, value string)   { must(unix.Lsetxattr(p, name, []byte(value), 0)) }
func removeXattr(p, name string)       { must(unix.Lremovexattr(p, name)) }
func utimes(p string, sec, nsec int64) { utimesAt(p, unix.Timespec{Sec: sec, Nsec: nsec}) }

func utimesAt(p string, ts unix.Timespec) {
	must(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

func exchange(a, b string) {
	must(unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
}

func expectErr(err, want error) {
	if !errors.Is(err, want) {
		panic(fmt.Sprintf("got error %v, want %v", err, want))
	}
}

func expect(what, got, want string) {
	if got != want {
		panic(fmt.Sprintf("%s: got %s, want %s", what, short(got), short(want)))
	}
}

// fallocate changes the allocation of a file.
func fallocate(p string, mode uint32, off, n int64) {
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o644)
	must(err)
	must(unix.Fallocate(int(f.Fd()), mode, off, n))
	must(f.Close())
}

// mapShared maps the whole of a file for reading and writing.
func mapShared(p string) []byte {
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(err)
	info, err := f.Stat()
	must(err)
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(err)
	must(f.Close())
	return m
}

// tmpFile writes s to a file without a name and gives it one. Where there are no
// such files it does what programs do then.
func tmpFile(dir, p, s string) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EISDIR) {
		write(p, s)
		return
	}
	must(err)
	_, err = unix.Write(fd, []byte(s))
	must(err)
	must(unix.Linkat(procFD, strconv.Itoa(fd), unix.AT_FDCWD, p, unix.AT_SYMLINK_FOLLOW))
	must(unix.Close(fd))
}

// listen binds a socket to p.
func listen(p string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Bind(fd, &unix.SockaddrUnix{Name: p}))
	must(unix.Close(fd))
}

// everything calls fn for every name below the root.
func everything(fn func(p string, info fs.FileInfo)) {
	must(filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		must(err)
		info, err := e.Info()
		must(err)
		fn(p, info)
		return nil
	}))
}

// forever is where a daemon waits for its end.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

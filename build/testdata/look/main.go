// Command look does what shells do not: it looks at files, and changes them, by the calls that are easily forgotten.
package main

import (
	"bytes"
	"fmt"
	"os"
	"sort"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[2:]
	for len(args) < 3 {
		args = append(args, "")
	}
	err := looks[os.Args[1]](args[0], args[1], args[2])
	if err != nil {
		fmt.Println(os.Args[1], err)
	}
}

var looks = map[string]func(a, b, c string) error{
	"statx": func(a, _, _ string) error { // with AT_STATX_DONT_SYNC
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, a, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
			return err
		}
		fmt.Printf("statx %s %o %d:%d %d %d\n", a, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size)
		return nil
	},
	"blocks": func(a, _, _ string) error {
		var st syscall.Stat_t
		if err := syscall.Lstat(a, &st); err != nil {
			return err
		}
		fmt.Println("blocks", a, st.Blocks)
		return nil
	},
	"mmap": func(a, _, _ string) error {
		f, err := os.Open(a)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil || st.Size() == 0 {
			return err
		}
		m, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
		if err == nil {
			fmt.Printf("mmap %s %q\n", a, m)
		}
		return err
	},
	"mwrite": func(a, b, _ string) error { // through a shared mapping
		f, err := os.OpenFile(a, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil || st.Size() == 0 {
			return err
		}
		m, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		if err == nil {
			copy(m, b)
		}
		return err
	},
	"access": func(a, _, _ string) error { return syscall.Access(a, 4) },
	"opendir": func(a, _, _ string) error {
		f, err := os.OpenFile(a, syscall.O_DIRECTORY, 0)
		if err == nil {
			err = f.Close()
		}
		return err
	},
	"names": func(a, _, _ string) error {
		list, err := os.ReadDir(a)
		for _, e := range list {
			fmt.Println("name", e.Name(), e.Type())
		}
		return err
	},
	"create": func(a, _, _ string) error { // O_EXCL
		f, err := os.OpenFile(a, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
		if err == nil {
			err = f.Close()
		}
		return err
	},
	"trunc": func(a, b, _ string) error { // without O_CREAT
		f, err := os.OpenFile(a, os.O_TRUNC|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(b)
		}
		return err
	},
	"at": func(a, b, c string) error { // write C at B
		f, err := os.OpenFile(a, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		off, _ := strconv.Atoi(b)
		_, err = f.WriteAt([]byte(c), int64(off))
		return err
	},
	"size": func(a, b, _ string) error {
		n, _ := strconv.Atoi(b)
		return os.Truncate(a, int64(n))
	},
	"fallocate": func(a, b, _ string) error {
		f, err := os.OpenFile(a, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(b)
		return syscall.Fallocate(int(f.Fd()), 0, 0, int64(n))
	},
	"end": func(a, _, _ string) error { // SEEK_HOLE
		f, err := os.Open(a)
		if err != nil {
			return err
		}
		n, err := f.Seek(0, 4)
		fmt.Println("hole", a, n)
		return err
	},
	"copy": func(a, b, _ string) error { // copy_file_range
		from, err := os.Open(a)
		if err != nil {
			return err
		}
		to, err := os.OpenFile(b, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		n, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 100, 0)
		fmt.Println("copied", n, err)
		return nil
	},
	"exchange": func(a, b, _ string) error {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	},
	"getxattr": func(a, b, _ string) error {
		v := make([]byte, 100)
		n, err := syscall.Getxattr(a, b, v)
		if err == nil {
			fmt.Printf("xattr %s %s %q\n", a, b, v[:n])
		}
		return err
	},
	"listxattr": func(a, _, _ string) error {
		v := make([]byte, 1000)
		n, err := syscall.Listxattr(a, v)
		if err != nil {
			return err
		}
		names := bytes.Split(v[:n], []byte{0})
		sort.Slice(names, func(i, j int) bool { return bytes.Compare(names[i], names[j]) < 0 })
		fmt.Printf("xattrs %s %q\n", a, names)
		return nil
	},
	"setxattr":    func(a, b, c string) error { return syscall.Setxattr(a, b, []byte(c), 0) },
	"newxattr":    func(a, b, c string) error { return syscall.Setxattr(a, b, []byte(c), 1) },
	"removexattr": func(a, b, _ string) error { return syscall.Removexattr(a, b) },
	// one name is looked at, the other is read
	"both": func(a, b, _ string) error {
		var st syscall.Stat_t
		if err := syscall.Lstat(a, &st); err != nil {
			return err
		}
		data, err := os.ReadFile(b)
		fmt.Printf("both %q\n", data)
		return err
	},
}

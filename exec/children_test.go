package exec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// leakFD is a descriptor that whoever started us left open.
const leakFD = 77

// testEcho copies what comes from descriptor 3 back to it, in upper case, and says on stderr who it is.
func testEcho() int {
	f := os.NewFile(3, "socket")
	data, err := io.ReadAll(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.Getwd()
	var st unix.Stat_t
	leaked := unix.Fstat(leakFD, &st) == nil
	fmt.Fprintf(os.Stderr, "uid %d env %d dir %s %v leaked %v", os.Getuid(), len(os.Environ()), dir, err, leaked)
	if bytes.Equal(data, []byte("fail")) {
		return 7
	}
	fmt.Fprintf(os.Stderr, " got %s", data)
	return 0
}

// testCaller is an A of its own: it runs a command in the root that its argument names and waits to be killed.
func testCaller() int {
	s, err := Open(context.Background(), Config{})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	err = s.Run(context.Background(), Spec{
		Root: os.Args[1], Args: []string{"sh", "-c", "setsid sleep 998877 & echo running; sleep 998877"},
		Env: []string{"PATH=/bin"}, Stdout: os.Stdout, Stderr: os.Stdout,
	})
	fmt.Println("error:", err)
	return 1
}

// testNested runs a command from within a user namespace, as a rootless container would.
func testNested() int {
	s, err := Open(context.Background(), Config{})
	if err == nil {
		defer s.Close()
		err = s.Run(context.Background(), Spec{Root: os.Args[1], Args: []string{"id", "-u"}, Env: []string{"PATH=/bin"}, Stdout: os.Stdout, Stderr: os.Stdout})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// testLimited opens a sandbox where no more user namespaces are allowed.
func testLimited() int {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		fmt.Println(err)
		return 1
	}
	_, err := Open(context.Background(), Config{Isolation: IsolationNamespaces})
	fmt.Println(errors.Is(err, ErrUnavailable), err)
	fmt.Println(Probe(context.Background()).Err)
	return 0
}

// testScope connects to the abstract socket that its standard input names, before and after confine.
func testScope() int {
	runtime.LockOSThread()
	name, err := io.ReadAll(os.NewFile(3, "socket"))
	if err != nil {
		return 1
	}
	connect := func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: string(name)})
	}
	before := connect()
	err = confine()
	fmt.Fprintf(os.Stderr, "before %v, confine %v, after %v", before, err, connect())
	return 0
}

// testSetcap gives the file named by descriptor 3 the file capability CAP_NET_RAW, in the form that setcap writes in a container.
func testSetcap() int {
	var data [20]byte
	binary.LittleEndian.PutUint32(data[0:], 0x02000000|1)
	binary.LittleEndian.PutUint32(data[4:], 1<<unix.CAP_NET_RAW)
	if err := unix.Fsetxattr(3, "security.capability", data[:], 0); err != nil {
		fmt.Fprint(os.Stderr, err)
		return 1
	}
	return 0
}

// testSetattrOld binds a tree of two mounts and makes it read-only as kernels before 5.12 have to.
func testSetattrOld() int {
	dir := os.Args[1]
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") },
		func() error { return os.Mkdir(dir+"/a b", 0o755) },
		func() error { return unix.Mount("tmpfs", dir+"/a b", "tmpfs", unix.MS_NOSUID, "") },
		func() error { return setattrOldAt(dir) },
	} {
		if err := step(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	for _, d := range []string{dir, dir + "/a b"} {
		var st unix.Statfs_t
		if err := unix.Statfs(d, &st); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Printf("ro %v nodev %v nosuid %v\n", st.Flags&unix.ST_RDONLY != 0, st.Flags&unix.ST_NODEV != 0, st.Flags&unix.ST_NOSUID != 0)
	}
	return 0
}

func setattrOldAt(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setattrOld(fmt.Sprintf("/proc/self/fd/%d", fd), unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, true)
}

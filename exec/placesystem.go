package exec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shownProc and shownSys are the files of /proc and /sys that a command finds, as they were when it started. There is nothing about processes, its own included: a false
// /proc/self would mislead where an absent one makes programs take another way or say what they lack.
var (
	shownProc = []string{
		"cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "swaps", "uptime", "version", "vmstat",
		"sys/fs/file-max", "sys/fs/nr_open", "sys/fs/pipe-max-size", "sys/kernel/cap_last_cap", "sys/kernel/ngroups_max", "sys/kernel/osrelease", "sys/kernel/ostype",
		"sys/kernel/pid_max", "sys/kernel/random/boot_id", "sys/kernel/random/entropy_avail", "sys/kernel/random/uuid", "sys/kernel/threads-max", "sys/kernel/version",
		"sys/net/core/somaxconn", "sys/net/ipv4/ip_local_port_range", "sys/vm/max_map_count", "sys/vm/overcommit_memory",
	}
	shownSys = []string{
		"devices/system/cpu/online", "devices/system/cpu/possible", "devices/system/cpu/present", "kernel/mm/transparent_hugepage/enabled",
		"kernel/mm/transparent_hugepage/hpage_pmd_size",
	}
)

// shownMounts is what /proc/mounts says: the one file system that a command sees.
const shownMounts = "none / chroot rw 0 0\n"

// system puts /dev, /proc and /sys into the root.
func (p *placement) system(j job) error {
	for _, s := range []struct {
		name string
		fill func(at *os.Root, j job) error
	}{{"dev", fillDev}, {"proc", fillProc}, {"sys", fillSys}} {
		_, err := p.add("/"+s.name, func(e *placed) error {
			if err := e.mkdir(0o755); err != nil {
				return err
			}
			at, err := e.parent.OpenRoot(e.name)
			if err != nil {
				return err
			}
			return errors.Join(s.fill(at, j), at.Close())
		})
		if err != nil {
			return fmt.Errorf("make /%s: %w", s.name, err)
		}
	}
	return nil
}

// fillDev makes the devices that every program expects. The links are docker's and lead nowhere without a /proc: better than a file of that name, which is what
// `> /dev/stdout` would leave.
func fillDev(at *os.Root, j job) error {
	dir, err := at.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only a handle
	for _, name := range devices {
		var st unix.Stat_t
		if err := unix.Stat("/dev/"+name, &st); err != nil {
			return fmt.Errorf("look at /dev/%s: %w", name, err)
		}
		if err := unix.Mknodat(int(dir.Fd()), name, unix.S_IFCHR|0o666, int(st.Rdev)); err != nil {
			return fmt.Errorf("make device %s: %w", name, err)
		}
		if err := unix.Fchmodat(int(dir.Fd()), name, 0o666, 0); err != nil {
			return fmt.Errorf("make device %s: %w", name, err)
		}
	}
	if err := tryNull(at); err != nil {
		return err
	}
	if j.TTYGroup {
		if err := at.Lchown("tty", 0, ttyGroup); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]fs.FileMode{"pts": 0o755, "shm": 0o777 | fs.ModeSticky, "mqueue": 0o777 | fs.ModeSticky} {
		if err := errors.Join(at.Mkdir(dir, 0o755), at.Chmod(dir, mode)); err != nil {
			return err
		}
	}
	for name, to := range devLinks {
		if err := at.Symlink(to, name); err != nil {
			return err
		}
	}
	return nil
}

// tryNull finds out whether device nodes and programs can be used on the file system of the work directory at all.
func tryNull(at *os.Root) error {
	f, err := at.OpenFile("null", os.O_WRONLY, 0)
	if err == nil {
		err = f.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return &setupError{errors.New("the file system of the store is mounted nodev, so that a chroot in it has no /dev/null: put the store elsewhere (--root), or mount it with dev and exec (docker: --tmpfs DIR:dev,exec)")}
	}
	return err
}

func fillProc(at *os.Root, _ job) error {
	if err := show(at, "/proc", shownProc); err != nil {
		return err
	}
	host, err := os.Hostname() // there is no namespace for another one
	if err != nil {
		return err
	}
	return errors.Join(write(at, "sys/kernel/hostname", host+"\n"), write(at, "mounts", shownMounts))
}

func fillSys(at *os.Root, _ job) error { return show(at, "/sys", shownSys) }

// show copies files of a kernel file system, as far as they exist.
func show(at *os.Root, dir string, names []string) error {
	for _, name := range names {
		data, err := readSmall(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		if err := write(at, name, string(data)); err != nil {
			return err
		}
	}
	return nil
}

// maxShown bounds one file of the kernel.
const maxShown = 4 << 20

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxShown))
}

func write(at *os.Root, name, text string) error {
	if dir := path.Dir(name); dir != "." {
		if err := at.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for ; dir != "."; dir = path.Dir(dir) {
			if err := at.Chmod(dir, 0o755); err != nil { // whatever the umask
				return err
			}
		}
	}
	if err := at.WriteFile(name, []byte(text), 0o444); err != nil {
		return err
	}
	return at.Chmod(name, 0o444)
}

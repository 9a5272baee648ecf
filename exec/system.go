package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What of /proc and /sys a command does not see, and what it cannot write, where it exists: docker's lists.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// devices are those of the host that a command finds in /dev.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// devLinks are docker's symlinks in /dev.
var devLinks = map[string]string{
	"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
}

func (r *root) mountProc() error {
	err := r.mount("proc", "/proc", safe, "")
	if errors.Is(err, unix.EPERM) {
		return &setupError{err}
	}
	return err
}

// mountDev makes a minimal /dev. Terminals belong to group tty where it exists.
func (r *root) mountDev(ttyGroupExists bool, shmSize int64) error {
	if err := r.mount("tmpfs", "/dev", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return err
	}
	err := r.at("/dev", func(dev string) error {
		for _, name := range devices {
			f, err := os.OpenFile(filepath.Join(dev, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666) //nolint:gosec // a device goes on top
			if err != nil {
				return fmt.Errorf("create device: %w", err)
			}
			if err := f.Close(); err != nil {
				return fmt.Errorf("create device: %w", err)
			}
		}
		for _, dir := range []string{"pts", "shm", "mqueue"} {
			if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil { //nolint:gosec // whoever a RUN runs as passes
				return fmt.Errorf("create device directory: %w", err)
			}
		}
		for name, to := range devLinks {
			if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
				return fmt.Errorf("create device link: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range devices {
		// Read-only leaves the device writable, but not its mode and owner: as real root those would be the host's.
		err := r.bind("/dev/"+name, "/dev/"+name)
		if err == nil {
			err = r.restrict("/dev/"+name, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, false)
		}
		if err != nil {
			return err
		}
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	if ttyGroupExists {
		pts += fmt.Sprintf(",gid=%d", ttyGroup)
	}
	if err := r.mount("devpts", "/dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC, pts); err != nil {
		return err
	}
	if err := r.mount("tmpfs", "/dev/shm", safe, fmt.Sprintf("mode=1777,size=%d", shmSize)); err != nil {
		return err
	}
	return r.mount("mqueue", "/dev/mqueue", safe, "")
}

// mountSys shows the devices of the network namespace that the command is in: a new sysfs where that is its own, else the host's. Read-only in both cases.
func (r *root) mountSys(ownNet bool) error {
	err := error(unix.EPERM)
	if ownNet {
		err = r.mount("sysfs", "/sys", safe|unix.MS_RDONLY, "")
	}
	if errors.Is(err, unix.EPERM) {
		err = r.bind("/sys", "/sys")
	}
	if err != nil {
		return err
	}
	return r.restrict("/sys", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, true)
}

// mask covers what a command must not see and makes read-only what it must not write.
func (r *root) mask() error {
	for _, p := range maskedPaths {
		err := r.at(p, func(at string) error {
			var st unix.Stat_t
			if err := unix.Stat(at, &st); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return unix.Mount("tmpfs", at, "tmpfs", safe|unix.MS_RDONLY, "size=0k")
			}
			return unix.Mount("/dev/null", at, "", unix.MS_BIND, "")
		})
		if err == nil {
			err = r.restrict(p, unix.MOUNT_ATTR_RDONLY, false)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	for _, p := range readOnlyPaths {
		err := r.bindSelf(p)
		if err == nil {
			err = r.restrict(p, unix.MOUNT_ATTR_RDONLY, true)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	return nil
}

func (r *root) bindSelf(p string) error {
	return r.at(p, func(at string) error { return unix.Mount(at, at, "", unix.MS_BIND|unix.MS_REC, "") })
}

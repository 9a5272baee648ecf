// Package probe finds out what this host can do for a build, and why not more:
// the rungs of the ladders that `auto` climbs and `fbuild doctor` shows.
//
// Invariants: a probe changes nothing on the host and leaves nothing behind.
//
// Concurrency: every function may be called at any time.
package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/exec"
)

// ErrNoFUSE says that the fuse recorder cannot work here; the error around it
// says why and what would help.
var ErrNoFUSE = errors.New("FUSE is not available")

// FUSE reports whether /dev/fuse can be used by the caller.
func FUSE() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: /dev/fuse does not exist: load the kernel module (modprobe fuse), or give the container the device (--device /dev/fuse)", ErrNoFUSE)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: /dev/fuse may not be opened: its mode is usually 0666 (chmod 666 /dev/fuse)", ErrNoFUSE)
	case err != nil:
		return fmt.Errorf("%w: open /dev/fuse: %w", ErrNoFUSE, err)
	}
	return f.Close()
}

// Check is one line of a report: what was found, or why not and what would help.
type Check = exec.Check

// Report is what a host can do.
type Report struct {
	Checks   []Check
	Recorder string // what auto chooses, "" if RUN cannot work at all
	IDs      string // the class of ids in a RUN: root, ranges or single, or chroot where there are no namespaces
}

// Host looks at everything that a build may need; store is the directory of the
// store, which need not exist.
func Host(ctx context.Context, store string) Report {
	var r Report
	r.add(kernel())
	sandbox := exec.Probe(ctx)
	r.IDs = sandbox.Isolation
	for _, c := range sandbox.Checks {
		r.add(c)
	}
	if sandbox.Err == nil {
		r.Recorder = "walk"
	}
	if sandbox.Err == nil && sandbox.Isolation != exec.IsolationChroot { // which has no mounts
		if r.add(overlay(ctx, store)) {
			r.Recorder = "overlay"
		}
		if r.add(fuse()) {
			r.Recorder = "fuse"
		}
	}
	r.add(place(store))
	return r
}

func (r *Report) add(c Check) bool {
	r.Checks = append(r.Checks, c)
	return c.OK
}

func kernel() Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Check{Name: "kernel", Detail: err.Error()}
	}
	who := "ordinary user"
	if os.Geteuid() == 0 {
		who = "root"
	}
	return Check{Name: "kernel", OK: true, Detail: fmt.Sprintf("%s, %s (uid %d)", unix.ByteSliceToString(u.Release[:]), who, os.Geteuid())}
}

func fuse() Check {
	if err := FUSE(); err != nil {
		return Check{Name: "fuse", Detail: err.Error() + "; without it another recorder is used: slower, same images"}
	}
	return Check{Name: "fuse", OK: true, Detail: "/dev/fuse can be used"}
}

// place names the file system of the store and what is known to be wrong with it.
func place(dir string) Check {
	c := Check{Name: "store", Detail: dir}
	at := existing(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		c.Detail = fmt.Sprintf("%s: %v", dir, err)
		return c
	}
	name, bad := fsName(st.Type)
	c.Detail = fmt.Sprintf("%s on %s, %s free", dir, name, gib(st.Bavail*uint64(st.Bsize)))
	if bad != "" {
		c.Detail += ": " + bad
		return c
	}
	c.OK = true
	return c
}

func fsName(magic int64) (name, problem string) {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", ""
	case unix.XFS_SUPER_MAGIC:
		return "xfs", ""
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", ""
	case unix.TMPFS_MAGIC:
		return "tmpfs", ""
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay", ""
	case unix.NFS_SUPER_MAGIC:
		return "NFS", "locks and owners are unreliable there: choose a local directory with --root"
	case unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC:
		return "FAT", "it has no owners and no holes: choose another directory with --root"
	}
	return fmt.Sprintf("file system %#x", magic), ""
}

func gib(n uint64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<30)), ".0") + " GiB"
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	osexec "os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// overlayChild is the first argument of this program as the inside of a chroot.
const overlayChild = "overlay-chroot"

// overlaySpec is one command on a fresh overlay mount: what a RUN would be
// without a recorder, and without a layer.
type overlaySpec struct {
	Lower    string // directories by colons, the uppermost first
	Dir      string // holds upper, work and root, all empty
	Volatile bool   // no syncs at all, not even at the unmount
	Env      []string
	Workdir  string
	Context  string // shown at /context, read-only; "": none
	Command  string // for /bin/sh -c
}

// overlayCommand prepares the helper: new user (all ids mapped to themselves),
// mount, pid, ipc, uts and network namespaces, as a RUN without network has.
func (e *env) overlayCommand(ctx context.Context, s overlaySpec) (*osexec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"upper", "work", "root"} {
		if err := openDirs(filepath.Join(s.Dir, d)); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := e.command(ctx, []string{self, overlayChild, string(text)})
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: math.MaxUint32}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
	}
	return cmd, nil
}

// enterOverlay mounts, changes the root and becomes the command. The mounts end
// with the process.
func enterOverlay(text string) error {
	var s overlaySpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("read arguments: %w", err)
	}
	root := filepath.Join(s.Dir, "root")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,userxattr", s.Lower, filepath.Join(s.Dir, "upper"), filepath.Join(s.Dir, "work"))
	if s.Volatile {
		opts += ",volatile"
	}
	if err := unix.Mount("overlay", root, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	if err := mountContext(root, s.Context); err != nil {
		return err
	}
	if err := mountSystem(root); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(root), unix.Chdir(s.Workdir)); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	unix.Umask(0o022)
	return fmt.Errorf("run /bin/sh: %w", unix.Exec("/bin/sh", []string{"sh", "-c", s.Command}, s.Env))
}

func mountContext(root, dir string) error {
	if dir == "" {
		return nil
	}
	at := filepath.Join(root, "context")
	err := os.Mkdir(at, 0o755) //nolint:gosec // as a mount point is
	if err == nil {
		err = unix.Mount(dir, at, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("show context: %w", err)
	}
	return nil
}

// mountSystem gives the root a proc and a small dev, beside the overlay.
func mountSystem(root string) error {
	dev := filepath.Join(root, "dev")
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mount dev: %w", err)
	}
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		f, err := os.OpenFile(filepath.Join(dev, n), os.O_CREATE|os.O_RDONLY, 0o600)
		if err == nil {
			err = errors.Join(f.Close(), unix.Mount("/dev/"+n, f.Name(), "", unix.MS_BIND, ""))
		}
		if err != nil {
			return fmt.Errorf("bind /dev/%s: %w", n, err)
		}
	}
	err := errors.Join(os.Symlink("/proc/self/fd", filepath.Join(dev, "fd")), os.Mkdir(filepath.Join(dev, "shm"), 0o1777)) //nolint:gosec // as /dev/shm is
	if err != nil {
		return fmt.Errorf("fill dev: %w", err)
	}
	return nil
}

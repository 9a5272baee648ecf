// Package testenv tells tests what this machine can do, and gives them a user namespace of their own.
//
// Invariants: a test that this machine cannot run is skipped with the reason, and fails instead when CI=true, so that a skip cannot hide.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

// innerVar marks the run of a test binary inside the user namespace that InUserNS made.
const innerVar = "FBUILD_TESTENV_INNER"

// initUserNS is the link of the initial user namespace, the same on every kernel (PROC_USER_INIT_INO).
const initUserNS = "user:[4026531837]"

// NeedRoot skips the test unless this process is root of the machine: uid 0 in the initial user namespace. An ordinary user skips it even when CI=true, since CI
// runs every test as both; root in a user namespace does not, since no leg of CI would ever run it.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if ns, err := os.Readlink("/proc/self/ns/user"); err != nil || ns != initUserNS {
		Skip(t, "needs root of the machine, not of a user namespace")
	}
}

// NeedUserNS skips the test unless this process may make a user namespace with a mount namespace in it.
func NeedUserNS(t testing.TB) {
	t.Helper()
	if err := userNS(); err != nil {
		Skip(t, "needs user namespaces: "+err.Error())
	}
}

// NeedFUSE skips the test unless this process can mount FUSE: it opens /dev/fuse, and it is root, in a user namespace of its own, or may make one.
func NeedFUSE(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		Skip(t, "needs FUSE: open /dev/fuse: "+err.Error())
		return
	}
	if err := unix.Close(fd); err != nil {
		t.Fatalf("close /dev/fuse: %v", err)
	}
	if os.Geteuid() != 0 {
		NeedUserNS(t)
	}
}

// Skip skips the test, and fails it where CI=true: there nothing hides.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("skip refused, CI=true: %s", reason)
	}
	t.Skip(reason)
}

var userNS = sync.OnceValue(func() error {
	cmd := osexec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		return reexec.Diagnose(err)
	}
	return nil
})

// InUserNS is the whole of a TestMain: it runs the re-executed child that argv[0] names, if any; else it runs the tests in a new user and mount namespace
// (the identity as root, subordinate ranges or one id as an ordinary user) where every mount is private, and returns their status. Where the host has no user
// namespaces the tests run where they are, and those that call NeedUserNS say so.
func InUserNS(m *testing.M, children map[string]func() int) int {
	reexec.Main(children)
	// The death signal below follows the thread that starts the child, so that thread has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getenv(innerVar) != "" {
		if err := prepareInner(); err != nil {
			fmt.Fprintln(os.Stderr, "testenv:", err)
			return 1
		}
		return m.Run()
	}
	ctx := context.Background()
	cmd := osexec.CommandContext(ctx, os.Args[0], os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), innerVar+"=1")
	if _, err := reexec.StartMapped(ctx, cmd, unix.CLONE_NEWNS, false); err != nil {
		if errors.Is(err, reexec.ErrForbidden) {
			return m.Run()
		}
		fmt.Fprintln(os.Stderr, "testenv:", err)
		return 1
	}
	var exit *osexec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "testenv: tests in user namespace:", err)
		return 1
	}
	return 0
}

func prepareInner() error {
	if err := os.Unsetenv(innerVar); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set death signal: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

package reexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrForbidden says that this host does not let the caller make a user namespace.
var ErrForbidden = errors.New("user namespaces are not available")

// HostError is a refusal of the host with what to do about it. It wraps ErrForbidden.
type HostError struct {
	Cause string
	Cure  string
	Err   error
}

// Error gives cause, cure and the kernel's word.
func (e *HostError) Error() string {
	s := fmt.Sprintf("%v: %s", ErrForbidden, e.Cause)
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	if e.Cure != "" {
		s += ": " + e.Cure
	}
	return s
}

// Unwrap gives ErrForbidden and the kernel's error.
func (e *HostError) Unwrap() []error { return []error{ErrForbidden, e.Err} }

const enterName = "enter"

// StartMapped starts CMD (made by Command, or any run of this binary that calls Main first) in a new user namespace, and in the new namespaces of FLAGS, with
// the best mapping that the host gives, which it returns. CMD runs with every capability of that namespace.
func StartMapped(ctx context.Context, cmd *osexec.Cmd, flags uintptr, single bool) (Map, error) {
	m, err := HostMap(single)
	if err != nil {
		return Map{}, err
	}
	gateR, gateW, err := os.Pipe()
	if err != nil {
		return Map{}, fmt.Errorf("create pipe: %w", err)
	}
	defer func() { _ = gateW.Close() }() // its one byte is in the pipe
	defer func() { _ = gateR.Close() }() // the child has a duplicate
	cmd.ExtraFiles = append(cmd.ExtraFiles, gateR)
	gate := 2 + len(cmd.ExtraFiles)
	cmd.Path = self
	cmd.Args = append([]string{prefix + enterName, strconv.Itoa(gate)}, cmd.Args...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER | flags
	if err := cmd.Start(); err != nil {
		return Map{}, Diagnose(fmt.Errorf("create user namespace: %w", err))
	}
	m, err = mapChild(ctx, cmd.Process.Pid, m)
	if err == nil {
		_, err = gateW.Write([]byte{1})
	}
	if err != nil {
		return Map{}, errors.Join(Diagnose(err), abandon(cmd))
	}
	return m, nil
}

// mapChild gives the child its ids; where root lacks the right to the identity (a container without CAP_SETUID or CAP_SETFCAP), or the tools fail, one id is left.
func mapChild(ctx context.Context, pid int, m Map) (Map, error) {
	err := m.write(ctx, pid)
	if err == nil || m.Class != ClassRoot || !errors.Is(err, unix.EPERM) {
		return m, err
	}
	one, err2 := HostMap(true)
	if err2 != nil {
		return Map{}, err2
	}
	one.Why = err.Error()
	if err2 := one.write(ctx, pid); err2 != nil {
		return Map{}, errors.Join(err, err2)
	}
	return one, nil
}

func abandon(cmd *osexec.Cmd) error {
	err := cmd.Process.Kill()
	var exit *osexec.ExitError
	if werr := cmd.Wait(); werr != nil && !errors.As(werr, &exit) {
		return errors.Join(err, werr)
	}
	return err
}

// enter is the first life of a child in a new user namespace: it waits for its ids and executes itself again. It returns if that failed.
func enter() {
	if len(os.Args) < 3 {
		return
	}
	gate, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return
	}
	var b [1]byte
	n, err := unix.Read(gate, b[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(gate, b[:])
	}
	if n != 1 || err != nil {
		return // the parent gave up and says why
	}
	unix.CloseOnExec(gate)
	err = unix.Exec(self, os.Args[2:], os.Environ())
	fmt.Fprintln(os.Stderr, "fbuild: error: execute child:", err)
}

// Diagnose finds out why the host refused a user namespace or a mount in it, and makes ERR a *HostError.
func Diagnose(err error) error {
	if _, ok := errors.AsType[*HostError](err); ok {
		return err
	}
	return diagnose(err, host{euid: os.Geteuid(), sysctl: sysctl, seccomp: seccompMode()})
}

// host is what a diagnosis looks at.
type host struct {
	euid    int
	sysctl  func(name string) string
	seccomp string
}

func diagnose(err error, on host) *HostError {
	h := &HostError{Cause: "the kernel refused", Err: err}
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	text := err.Error()
	// What comes from a child has lost its type.
	refused = refused || strings.Contains(text, unix.EPERM.Error()) || strings.Contains(text, unix.EACCES.Error())
	switch {
	case on.sysctl("user/max_user_namespaces") == "0":
		h.Cause, h.Cure = "user.max_user_namespaces is 0", "as root: sysctl -w user.max_user_namespaces=15000"
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL):
		h.Cause, h.Cure = "this kernel has no user namespaces", "use a kernel with CONFIG_USER_NS"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS):
		h.Cause, h.Cure = "too many user namespaces, or nested too deeply", "raise user.max_user_namespaces, or run one level higher"
	case on.euid != 0 && on.sysctl("kernel/unprivileged_userns_clone") == "0":
		h.Cause, h.Cure = "kernel.unprivileged_userns_clone is 0", "as root: sysctl -w kernel.unprivileged_userns_clone=1"
	case strings.Contains(text, "newuidmap") || strings.Contains(text, "newgidmap"):
		h.Cause, h.Cure = "newuidmap could not map the ranges of /etc/subuid and /etc/subgid", "check these files, and that newuidmap and newgidmap are setuid root (package uidmap)"
	case refused && on.euid != 0 && on.sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		h.Cause, h.Cure = "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
			"as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give fbuild an AppArmor profile with \"userns,\""
	case strings.Contains(text, "mount proc"):
		// The kernel refuses a new /proc where the one in sight is partly covered.
		h.Cause, h.Cure = "something covers parts of /proc here, as in a container", "run the container with --security-opt systempaths=unconfined (docker) or procMount: Unmasked (Kubernetes)"
	case refused && on.seccomp == "2":
		h.Cause, h.Cure = "a seccomp filter (of the surrounding container?) forbids it",
			"run the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or with a profile that allows clone(CLONE_NEWUSER) and mount"
	case refused:
		h.Cure = "user namespaces cannot be made inside a chroot, nor where a security module forbids them"
	default:
		h.Cause = "the sandbox could not start"
	}
	return h
}

func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func seccompMode() string {
	data, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

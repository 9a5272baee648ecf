package exec

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

// The kinds of sandbox: what Config.Isolation may be, beside "" for IsolationAuto.
const (
	// IsolationAuto is namespaces where they can be made, else a chroot.
	IsolationAuto = "auto"
	// IsolationNamespaces is a user, mount and pid namespace.
	IsolationNamespaces = "namespaces"
	// IsolationChroot is a directory entered by chroot, for root where no namespace is allowed.
	IsolationChroot = "chroot"
)

// Choose names the kind of sandbox that Open would make: IsolationNamespaces or IsolationChroot. It starts no program, takes less than a millisecond, and wraps
// ErrUnavailable when the host allows neither. For an ordinary user the answer is namespaces, whether they can be made or not: there is nothing else.
func Choose(isolation string) (string, error) {
	switch isolation {
	case IsolationNamespaces:
		return isolation, nil
	case IsolationChroot:
		if err := chrootWorks(); err != nil {
			return "", fmt.Errorf("%w: isolation %s: %w", ErrUnavailable, IsolationChroot, err)
		}
		return isolation, nil
	case "", IsolationAuto:
	default:
		return "", fmt.Errorf("unknown isolation %q: use %s, %s or %s", isolation, IsolationAuto, IsolationNamespaces, IsolationChroot)
	}
	if os.Geteuid() != 0 {
		return IsolationNamespaces, nil
	}
	no := namespacesWork()
	if no == nil {
		return IsolationNamespaces, nil
	}
	if err := chrootWorks(); err != nil {
		return "", fmt.Errorf("%w: no namespaces (%w), and no chroot (%w)", ErrUnavailable, no, err)
	}
	return IsolationChroot, nil
}

// namespacesWork tells why root cannot have the namespaces of a sandbox, nil if it can; asked once, since the answer does not change.
var namespacesWork = sync.OnceValue(func() error {
	// The child makes a user and pid namespace, then a mount namespace whose mounts it makes private, and only then fails to execute nothing at all.
	_, err := syscall.ForkExec("", []string{"probe"}, &syscall.ProcAttr{
		Dir: "/", Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS},
	})
	if !errors.Is(err, unix.ENOENT) {
		return reexec.Diagnose(err)
	}
	return procVisible()
})

// procVisible tells why a new /proc could not be mounted in a user namespace: where a container runtime masks parts of ours, the kernel gives no clean one. (Its
// rule is mount_too_revealing: what is hidden here must stay hidden.)
func procVisible() error {
	mounts, err := mountsBelow("/proc")
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if strings.HasPrefix(m, "/proc/") && m != "/proc/sys/fs/binfmt_misc" {
			return fmt.Errorf("%s is masked, so that the kernel refuses a new /proc (docker: --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked)", m)
		}
	}
	return nil
}

// chrootNeeds are the capabilities without which a chroot is of no use: all are among docker's and containerd's defaults.
var chrootNeeds = []struct {
	number int
	name   string
}{
	{unix.CAP_CHOWN, "CHOWN"},
	{unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"},
	{unix.CAP_FOWNER, "FOWNER"},
	{unix.CAP_SETGID, "SETGID"},
	{unix.CAP_SETUID, "SETUID"},
	{unix.CAP_KILL, "KILL"},
	{unix.CAP_SYS_CHROOT, "SYS_CHROOT"},
	{unix.CAP_MKNOD, "MKNOD"},
}

// chrootWorks tells why this process cannot run commands in a chroot, nil if it can.
func chrootWorks() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can chroot: run the container as user 0 (docker: --user 0; Kubernetes: runAsUser: 0), or allow user namespaces in it")
	}
	have, err := permitted()
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range chrootNeeds {
		if have&(1<<c.number) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("capabilities missing: %s (docker: --cap-add %s; Kubernetes: securityContext.capabilities.add: [%[1]s])",
			strings.Join(missing, ", "), strings.Join(missing, " --cap-add "))
	}
	return nil
}

// permitted are the capabilities that the calling thread has.
func permitted() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("get capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

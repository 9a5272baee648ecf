package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/tail"
)

const probeName = "exec-probe"

// Check is one thing that a sandbox needs or would like.
type Check struct {
	Name string
	OK   bool
	// Detail says what was found; why not, and what to do about it, if not OK.
	Detail string
}

// ProbeResult is what this host lets the caller do.
type ProbeResult struct {
	// Isolation is the class of ids that a sandbox would have: "root", "ranges" or "single", or IsolationChroot; "" if there can be none.
	Isolation string
	Checks    []Check
	// Err wraps ErrUnavailable if no command can run in a sandbox here.
	Err error
}

// Probe opens a sandbox, tries what each command needs, and says what works and why not more. It takes a few milliseconds and leaves nothing.
func Probe(ctx context.Context) ProbeResult {
	var r ProbeResult
	kind, err := Choose(IsolationAuto)
	if err != nil || kind == IsolationChroot {
		r.add("namespaces", namespacesWork(), "")
		return r.chroot(ctx)
	}
	s, err := Open(ctx, Config{})
	if err != nil {
		r.Err = err
		r.add("user namespace", err, "")
		r.add("chroot", chrootWorks(), "")
		return r
	}
	r.Isolation = s.Isolation()
	r.add("user namespace", nil, "with mount and pid namespaces")
	switch s.ids.Class {
	case reexec.ClassSingle:
		r.add("ids", errors.New("one id only: "+s.ids.Why), "")
	case reexec.ClassRanges:
		r.add("ids", nil, fmt.Sprintf("%d user and %d group ids through newuidmap and newgidmap", count(s.ids.UIDs), count(s.ids.GIDs)))
	default:
		r.add("ids", nil, "every id, as root")
	}
	for _, c := range []struct {
		name   string
		flags  uintptr
		needed bool
	}{
		{"mount of /proc and /dev", unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS, true},
		{"network namespace", unix.CLONE_NEWNS | unix.CLONE_NEWNET, false},
	} {
		err := s.probe(ctx, c.flags)
		r.add(c.name, err, "")
		if err != nil && c.needed {
			r.Isolation, r.Err = "", err
		}
	}
	if err := s.Close(); err != nil && r.Err == nil {
		r.Err = err
	}
	return r
}

// chroot looks at the rung without namespaces.
func (r ProbeResult) chroot(ctx context.Context) ProbeResult {
	s, err := Open(ctx, Config{Isolation: IsolationChroot})
	r.add("chroot", err, "RUN happens in a chroot under the work directory, without a /proc of its own")
	if err != nil {
		r.Err = err
		return r
	}
	r.Isolation = s.Isolation()
	switch abi := landlockABI(); {
	case abi < referABI:
		r.add("landlock", errors.New("none (Linux 5.19 has it, unless a seccomp profile forbids it): a command that left its chroot would see this container, and as root it can send signals to it"), "")
	case abi < scopedABI:
		r.add("landlock", nil, fmt.Sprintf("version %d: a command sees nothing but its root; as root it can still send signals into this container (Linux 6.12 ends that)", abi))
	default:
		r.add("landlock", nil, fmt.Sprintf("version %d: a command sees nothing but its root", abi))
	}
	if err := s.Close(); err != nil {
		r.Isolation, r.Err = "", err
	}
	return r
}

func (r *ProbeResult) add(name string, err error, detail string) {
	if err != nil {
		detail = err.Error()
	}
	r.Checks = append(r.Checks, Check{Name: name, OK: err == nil, Detail: detail})
}

func count(ranges []reexec.Range) uint64 {
	var n uint64
	for _, r := range ranges {
		n += uint64(r.Size)
	}
	return n
}

// probe runs the probing child in new namespaces.
func (s *Sandbox) probe(ctx context.Context, flags uintptr) error {
	said := &tail.Buffer{}
	out, err := newOutputs(said, said)
	if err != nil {
		return err
	}
	p, err := s.start(ctx, probeName, flags, nil, out)
	if err == nil {
		err = p.Wait()
	}
	if err == nil {
		return nil
	}
	if text := said.String(); text != "" {
		err = errors.New(text)
	}
	return unavailable(err)
}

// probeMain tries the mounts that depend on more than the namespace itself. In a child of the keeper that is not pid 1, only the network is new.
func probeMain() int {
	err := func() error {
		if os.Getpid() != 1 {
			return loopbackUp()
		}
		if err := unix.Mount("proc", "/proc", "proc", safe, ""); err != nil {
			return fmt.Errorf("mount proc: %w", err)
		}
		for _, m := range []struct{ fstype, options string }{{"tmpfs", "mode=755"}, {"devpts", "newinstance,ptmxmode=0666"}, {"mqueue", ""}} {
			if err := unix.Mount(m.fstype, "/dev", m.fstype, unix.MS_NOSUID, m.options); err != nil {
				return fmt.Errorf("mount %s: %w", m.fstype, err)
			}
		}
		return nil
	}()
	if err != nil {
		fmt.Fprint(os.Stderr, strings.TrimSpace(err.Error()))
		return 1
	}
	return 0
}

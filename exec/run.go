package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

// Mount is something that a command finds at Target, and that is no part of its root.
type Mount struct {
	// Type is "bind", "tmpfs" or "file".
	Type string
	// Source is what is bound: a path as the sandbox sees it (the host's, and what helpers mounted in the sandbox).
	Source string
	// Target is absolute inside the root, and no component is a symlink. It exists, unless it lies below /dev or below an earlier mount: there it is made.
	Target   string
	ReadOnly bool
	// Options are those of a tmpfs (size=..., mode=...).
	Options string
	// Data is what a "file" holds; it is never on a disk. Perm, UID and GID are its attributes.
	Data     []byte
	Perm     uint32
	UID, GID uint32
}

// Spec is one command.
type Spec struct {
	Root string
	Args []string
	// Env is the whole environment of the command; PATH in it is where Args[0] is looked for.
	Env []string
	// Dir is the working directory, "" for /.
	Dir      string
	UID, GID uint32
	// Groups are the supplementary groups; those that do not exist in the sandbox are left out.
	Groups []uint32
	// Hostname is "" for the constant one.
	Hostname string
	// Network is "host" ("") or "none".
	Network        string
	Mounts         []Mount
	Stdout, Stderr io.Writer
	// Limits stand in for some of the usual resource limits.
	Limits []Limit
	// ShmSize is the size of /dev/shm in bytes, 0 for docker's 64 MiB. Without namespaces it is a directory that has none.
	ShmSize int64
	// OnNetwork, if not nil, is called once before Run returns, if a process of the command asked for a socket that can lead to another machine, or if this kernel
	// cannot tell. It is never called with Network "none", nor of a Run that could not say how the command ended.
	OnNetwork func()
}

const defaultShmSize = 64 << 20

// defaultHostname is constant: what varies from machine to machine must not reach a command.
const defaultHostname = "fbuild"

const ttyGroup = 5

// job is what C reads.
type job struct {
	Root     string
	Args     []string
	Env      []string
	Dir      string
	UID, GID uint32
	Groups   []uint32
	Hostname string
	NoNet    bool
	WatchNet bool // tell in outcome.Network
	Mounts   []Mount
	TTYGroup bool // group 5, docker's owner of terminals, exists
	Limits   []Limit
	ShmSize  int64
}

// outcome is what C says when it ends.
type outcome struct {
	// Error says why the command never ran: of the host if Unavailable, of the command (Code 126, 127) if Code is set, of the spec else.
	Error       string
	Unavailable bool
	Code        int
	Signal      int
	// Network says that the command asked for a socket of a network, or that nobody knows.
	Network bool
}

const maxOutcome = 32 << 10

// Run runs one command to its end; when it returns no process of it is left (its pid namespace is empty). A non-zero end is *ExitError. ctx done kills it, and Run
// returns ctx's cause.
func (s *Sandbox) Run(ctx context.Context, spec Spec) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	j, err := s.job(spec)
	if err != nil {
		return err
	}
	if s.chroot {
		return s.runChroot(ctx, j, spec)
	}
	return s.run(ctx, j, spec)
}

// run starts C and waits for it.
func (s *Sandbox) run(ctx context.Context, j job, spec Spec) error {
	specFile, err := writeJob(j)
	if err != nil {
		return err
	}
	defer func() { _ = specFile.Close() }() // the child has a duplicate
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	defer func() { _ = statusR.Close() }() // only read
	defer func() { _ = statusW.Close() }() // again where the start failed
	out, err := newOutputs(spec.Stdout, spec.Stderr)
	if err != nil {
		return err
	}
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if j.NoNet {
		flags |= unix.CLONE_NEWNET
	}
	name := initName
	if s.chroot {
		name, flags = chrootInitName, 0
	}
	p, err := s.start(ctx, name, flags, []*os.File{specFile, statusW}, out)
	if err != nil {
		return err
	}
	if err := statusW.Close(); err != nil {
		return errors.Join(fmt.Errorf("close pipe: %w", err), p.Kill(), p.Wait())
	}
	// A status fits into a pipe, so reading it afterwards cannot block C.
	werr := p.Wait()
	data, rerr := io.ReadAll(io.LimitReader(statusR, maxOutcome+1))
	return s.verdict(ctx, data, errors.Join(werr, rerr), func() {
		if j.WatchNet {
			spec.OnNetwork()
		}
	})
}

// verdict turns what C said, and how it ended, into the error of Run, and calls NETWORK if it said so.
func (s *Sandbox) verdict(ctx context.Context, data []byte, ended error, network func()) error {
	var o outcome
	if len(data) == 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var exit *ExitError
		if errors.As(ended, &exit) && exit.Signal != 0 {
			return fmt.Errorf("run command: the init of the sandbox was killed (out of memory?): %w", ended)
		}
		return fmt.Errorf("run command: the init of the sandbox ended without a word: %w", ended)
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return fmt.Errorf("decode status of command: %w", err)
	}
	if o.Network {
		network()
	}
	switch {
	case o.Unavailable:
		return unavailable(errors.New(o.Error))
	case o.Error != "" && o.Code != 0:
		return &ExitError{Code: o.Code, Reason: o.Error}
	case o.Error != "":
		return fmt.Errorf("run command: %s", o.Error)
	case o.Signal != 0:
		return &ExitError{Code: -1, Signal: o.Signal}
	case o.Code != 0:
		return &ExitError{Code: o.Code}
	}
	return nil
}

// job checks the spec as far as it can be without the root.
func (s *Sandbox) job(spec Spec) (job, error) {
	j := job{
		Root: spec.Root, Args: spec.Args, Env: spec.Env, Dir: spec.Dir, UID: spec.UID, GID: spec.GID, Groups: spec.Groups,
		Hostname: spec.Hostname, Mounts: spec.Mounts, TTYGroup: mapped(s.ids.GIDs, ttyGroup),
	}
	if len(j.Args) == 0 || j.Args[0] == "" {
		return j, errors.New("run command: no command given")
	}
	if !path.IsAbs(j.Root) {
		return j, fmt.Errorf("run command: root %q is not absolute", j.Root)
	}
	for _, a := range append(append([]string{}, j.Args...), j.Env...) {
		if strings.ContainsRune(a, 0) {
			return j, fmt.Errorf("run command: a NUL byte in %q", a)
		}
	}
	if j.Dir == "" {
		j.Dir = "/"
	}
	if j.Limits, j.ShmSize = spec.Limits, spec.ShmSize; j.ShmSize == 0 {
		j.ShmSize = defaultShmSize
	}
	if j.Hostname == "" {
		j.Hostname = defaultHostname
	}
	if len(j.Hostname) > 64 {
		return j, fmt.Errorf("run command: host name %q is longer than 64 bytes", j.Hostname)
	}
	switch spec.Network {
	case "", "host":
	case "none":
		j.NoNet = true
	default:
		return j, fmt.Errorf("run command: unknown network mode %q (host, none)", spec.Network)
	}
	j.WatchNet = spec.OnNetwork != nil && !j.NoNet
	for _, m := range j.Mounts {
		if m.Type != "bind" && m.Type != "tmpfs" && m.Type != "file" {
			return j, fmt.Errorf("run command: unknown mount type %q", m.Type)
		}
		if m.Type == "file" && (!mapped(s.ids.UIDs, m.UID) || !mapped(s.ids.GIDs, m.GID)) {
			return j, fmt.Errorf("run command: the owner %d:%d of mount %s does not exist in the sandbox", m.UID, m.GID, m.Target)
		}
		if m.Type == "bind" && !path.IsAbs(m.Source) {
			return j, fmt.Errorf("run command: mount source %q is not absolute", m.Source)
		}
		if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
			return j, fmt.Errorf("run command: mount target %q is not a clean absolute path below /", m.Target)
		}
	}
	j.Groups = s.groups(j)
	return j, s.checkIDs(j)
}

// groups leaves out the supplementary groups that do not exist in the sandbox: an
// image's root is in many, and a command can do without, unlike without its ids.
// With a single id none can be set.
func (s *Sandbox) groups(j job) []uint32 {
	var out []uint32
	for _, g := range j.Groups {
		if s.ids.Class != reexec.ClassSingle && mapped(s.ids.GIDs, g) {
			out = append(out, g)
		}
	}
	return out
}

// checkIDs explains what the kernel would only call "invalid argument".
func (s *Sandbox) checkIDs(j job) error {
	if !mapped(s.ids.UIDs, j.UID) {
		return s.noID("user", j.UID)
	}
	if !mapped(s.ids.GIDs, j.GID) {
		return s.noID("group", j.GID)
	}
	return nil
}

func mapped(ranges []reexec.Range, id uint32) bool {
	for _, r := range ranges {
		if id >= r.Inside && id-r.Inside < r.Size {
			return true
		}
	}
	return false
}

func (s *Sandbox) noID(kind string, id uint32) error {
	if s.ids.Class == reexec.ClassSingle {
		return fmt.Errorf("run command as %s %d: only id 0 exists in the sandbox: %s", kind, id, s.ids.Why)
	}
	return fmt.Errorf("run command as %s %d: the id is outside the ranges that this host maps (/etc/subuid, /etc/subgid)", kind, id)
}

// writeJob puts the job into a file in memory: arguments and environment may be larger than any socket's message.
func writeJob(j job) (*os.File, error) {
	fd, err := unix.MemfdCreate("fbuild-job", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create job file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "job")
	err = json.NewEncoder(f).Encode(j)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write job file: %w", err), f.Close())
	}
	return f, nil
}

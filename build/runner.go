package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/tail"
	"github.com/fbuild/fbuild/probe"
)

// The values of --recorder.
const (
	RecorderAuto    = "auto"
	RecorderFUSE    = "fuse"
	RecorderOverlay = "overlay"
	RecorderWalk    = "walk"
)

// ladder are the recorders, the best first.
var ladder = []string{RecorderFUSE, RecorderOverlay, RecorderWalk}

// runner is what RUN steps share: namespaces and recorder processes, started
// when the first step needs them.
type runner struct {
	mu        sync.Mutex
	box       *exec.Sandbox
	boxErr    error
	clients   map[string]*recorderProc
	chosen    string
	isolation string // of the build, known once a recorder is chosen
	resolv    string
	hostsFile string
	emulation emulation
}

// recorderProc is a recorder process and the conversation with it.
type recorderProc struct {
	*recorder.Client
	proc   *exec.Process
	stderr *tail.Buffer
}

// end closes the conversation and waits for the process.
func (p *recorderProc) end() error {
	err := p.Close()
	if werr := p.proc.Wait(); werr != nil {
		err = errors.Join(err, fmt.Errorf("recorder: %w: %s", werr, p.stderr))
	}
	return err
}

// during calls fn with a context that ends when the recorder dies: a command on an
// overlayfs or in a directory would not notice.
func (p *recorderProc) during(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.Dead():
			cancel(recorder.ErrDied)
		case <-done:
		}
	})
	err := fn(ctx)
	close(done)
	watch.Wait()
	return err
}

// kind chooses the recorder.
func (r *runner) kind(ctx context.Context, b *builder) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chosen != "" {
		return r.chosen, nil
	}
	r.isolation = b.opts.Isolation
	sandbox, err := exec.Choose(r.isolation)
	if err != nil {
		return "", err
	}
	asked := b.opts.Recorder
	switch {
	case asked != RecorderAuto && !slices.Contains(ladder, asked):
		return "", fmt.Errorf("unknown recorder %q: use auto, fuse, overlay or walk", asked)
	case sandbox == exec.IsolationChroot: // the others need a mount
		if asked == RecorderFUSE || asked == RecorderOverlay {
			return "", fmt.Errorf("recorder %s needs namespaces, and RUN happens in a chroot here: use --recorder=%s (fbuild doctor says why)", asked, RecorderWalk)
		}
		r.chosen = RecorderWalk
	case asked == RecorderAuto:
		kind, why, err := r.first(ctx, b, ladder)
		if err != nil {
			return "", err
		}
		if why != nil {
			b.warn("recorder %s is used, which is slower: %v", kind, why)
		}
		r.chosen = kind
	default:
		if err := r.can(ctx, b, asked); err != nil {
			return "", fmt.Errorf("recorder %s: %w", asked, err)
		}
		r.chosen = asked
	}
	return r.chosen, nil
}

// first returns the first of some recorders that works here, and why it is not the first
// of all.
func (r *runner) first(ctx context.Context, b *builder, kinds []string) (kind string, why, err error) {
	for _, kind := range kinds {
		err := r.can(ctx, b, kind)
		switch {
		case err == nil:
			return kind, why, nil
		case !errors.Is(err, probe.ErrNoFUSE) && !errors.Is(err, probe.ErrNoOverlay):
			return "", nil, err
		case why != nil:
			err = fmt.Errorf("%w; %w", why, err) // on one line
		}
		why = err
	}
	return "", nil, why
}

// can tells why a recorder does not work here. It is called with r.mu held.
func (r *runner) can(ctx context.Context, b *builder, kind string) error {
	switch kind {
	case RecorderFUSE:
		return probe.FUSE()
	case RecorderOverlay:
		box, err := r.open(ctx)
		if err != nil {
			return err
		}
		return probe.Overlay(ctx, box, b.temp)
	}
	return nil
}

// below is the recorder that a step runs on again when KIND failed: the next one that
// works here, "" if there is none.
func (r *runner) below(ctx context.Context, b *builder, kind string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := ladder[slices.Index(ladder, kind)+1:]
	if len(rest) == 0 {
		return "", nil
	}
	next, _, err := r.first(ctx, b, rest)
	return next, err
}

func (r *runner) sandbox(ctx context.Context) (*exec.Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open(ctx)
}

// open is called with r.mu held.
func (r *runner) open(ctx context.Context) (*exec.Sandbox, error) {
	if r.box == nil && r.boxErr == nil {
		r.box, r.boxErr = exec.Open(ctx, exec.Config{Isolation: r.isolation})
	}
	return r.box, r.boxErr
}

// recorder returns the recorder process of a kind; a dead one is replaced.
func (r *runner) recorder(ctx context.Context, b *builder, kind string) (*recorderProc, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.clients[kind]; p != nil {
		select {
		case <-p.Dead():
			_ = p.end() // its step has been told how it ended
		default:
			return p, nil
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start recorder: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "recorder"), os.NewFile(uintptr(fds[1]), "recorder")
	defer func() { _ = theirs.Close() }()
	conn, err := net.FileConn(ours)
	if err := errors.Join(err, ours.Close()); err != nil {
		return nil, fmt.Errorf("start recorder: %w", err)
	}
	p := &recorderProc{stderr: &tail.Buffer{}}
	p.proc, err = r.box.Start(context.WithoutCancel(ctx), "recorder-"+kind, []*os.File{theirs}, p.stderr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start recorder: %w", err), conn.Close())
	}
	p.Client = recorder.NewClient(conn, b.fillRecorder)
	if r.clients == nil {
		r.clients = map[string]*recorderProc{}
	}
	r.clients[kind] = p
	return p, nil
}

// close ends the recorders, which unmount and remove what is theirs, sweeps what
// killed builds left, and ends the namespaces with everything that may be left in
// them.
func (r *runner) close(ctx context.Context, b *builder) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, p := range r.clients {
		select {
		case <-p.Dead(): // it died before: its step has been told
			_ = p.end()
		default:
			errs = append(errs, p.end())
		}
	}
	if r.box != nil {
		left := b.store.Leftovers(ctx)
		if _, err := os.Lstat(b.ownMounts()); err == nil {
			left = append(left, b.ownMounts())
		}
		if len(left) > 0 {
			errs = append(errs, sweep(ctx, r.box, left))
		}
		errs = append(errs, r.box.Close())
	}
	return errors.Join(errs...)
}

// netFiles writes the resolv.conf and hosts that RUN steps see.
func (r *runner) netFiles(b *builder) (resolv, hosts string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resolv != "" {
		return r.resolv, r.hostsFile, nil
	}
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", fmt.Errorf("read the host's resolv.conf: %w", err)
	}
	var h bytes.Buffer
	fmt.Fprintf(&h, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
	extra, err := ParseAddHosts(b.opts.AddHosts)
	if err != nil {
		return "", "", err
	}
	for _, e := range extra {
		fmt.Fprintf(&h, "%s\t%s\n", e[1], e[0])
	}
	resolv, hosts = filepath.Join(b.temp, "resolv.conf"), filepath.Join(b.temp, "hosts")
	if err := errors.Join(writeReadable(resolv, data), writeReadable(hosts, h.Bytes())); err != nil {
		return "", "", err
	}
	r.resolv, r.hostsFile = resolv, hosts
	return resolv, hosts, nil
}

// writeReadable writes a file that every id of a RUN may read.
func writeReadable(name string, data []byte) error {
	if err := os.WriteFile(name, data, 0o644); err != nil { //nolint:gosec // it is bound into a RUN, whose users read it
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return os.Chmod(name, 0o644) //nolint:gosec // as above, whatever the umask
}

func validIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

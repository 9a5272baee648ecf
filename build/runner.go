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
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/tail"
	"github.com/fbuild/fbuild/probe"
)

// The values of --recorder.
const (
	RecorderAuto = "auto"
	RecorderFUSE = "fuse"
	RecorderWalk = "walk"
)

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

// kind chooses the recorder.
func (r *runner) kind(b *builder) (string, error) {
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
	if sandbox == exec.IsolationChroot { // FUSE needs a mount
		if b.opts.Recorder == RecorderFUSE {
			return "", fmt.Errorf("recorder %s needs namespaces, and RUN happens in a chroot here: use --recorder=%s (fbuild doctor says why)", RecorderFUSE, RecorderWalk)
		}
		r.chosen = RecorderWalk
		return r.chosen, nil
	}
	switch b.opts.Recorder {
	case RecorderWalk:
		r.chosen = RecorderWalk
	case RecorderFUSE:
		if err := probe.FUSE(); err != nil {
			return "", fmt.Errorf("recorder fuse: %w", err)
		}
		r.chosen = RecorderFUSE
	case RecorderAuto:
		r.chosen = RecorderFUSE
		if err := probe.FUSE(); err != nil {
			b.warn("recorder walk is used, which is slower: %v", err)
			r.chosen = RecorderWalk
		}
	default:
		return "", fmt.Errorf("unknown recorder %q: use auto, fuse or walk", b.opts.Recorder)
	}
	return r.chosen, nil
}

func (r *runner) sandbox(ctx context.Context) (*exec.Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.box == nil && r.boxErr == nil {
		r.box, r.boxErr = exec.Open(ctx, exec.Config{Isolation: r.isolation})
	}
	return r.box, r.boxErr
}

// recorder returns the recorder process of a kind; a dead one is replaced.
func (r *runner) recorder(ctx context.Context, kind string) (*recorderProc, error) {
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
	p.Client = recorder.NewClient(conn)
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
		if left := b.store.Leftovers(ctx); len(left) > 0 {
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

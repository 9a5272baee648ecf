package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/tail"
)

// Config says how a Sandbox is made.
type Config struct {
	// SingleID maps one id only, as on a host without subordinate ids.
	SingleID bool
	// Isolation is one of IsolationAuto (""), IsolationNamespaces and IsolationChroot.
	Isolation string
	// Debug receives what the keeper has to say, nil for nobody.
	Debug io.Writer
}

// Sandbox is a set of namespaces, or else only a tree of processes, that lives as long as its keeper, in which commands and helpers run.
type Sandbox struct {
	chroot bool // no namespaces: IsolationChroot

	ids  reexec.Map
	cmd  *osexec.Cmd
	link *link
	read chan struct{} // closed when the reader of the link is done

	mu    sync.Mutex
	next  uint64
	procs map[uint64]*Process
	gone  error // set when the keeper is gone

	close func() error // once
}

// Open starts the keeper. The error wraps ErrUnavailable when the host forbids what it needs.
func Open(ctx context.Context, cfg Config) (*Sandbox, error) {
	kind, err := Choose(cfg.Isolation)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair("keeper socket")
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the keeper has a duplicate
	l, err := newLink(ours)
	if err != nil {
		return nil, err
	}
	said := &tail.Buffer{}
	cmd := keeperCommand(ctx, kind, theirs, said, cfg.Debug)
	ids, err := startKeeper(ctx, kind, cmd, cfg.SingleID)
	if err != nil {
		if ctx.Err() == nil {
			err = orAsRoot(unavailable(err))
		}
		return nil, errors.Join(err, l.Close())
	}
	s := &Sandbox{chroot: kind == IsolationChroot, ids: ids, cmd: cmd, link: l, read: make(chan struct{}), procs: map[uint64]*Process{}}
	s.close = sync.OnceValue(s.shutdown)
	if err := s.handshake(ctx, theirs, said); err != nil {
		close(s.read)
		return nil, errors.Join(err, s.Close())
	}
	go s.readReplies()
	return s, nil
}

// orAsRoot says what else would help an ordinary user for whom there are no namespaces.
func orAsRoot(err error) error {
	if os.Geteuid() == 0 {
		return err
	}
	return fmt.Errorf("%w; or run as root where that is a container's (docker: --user 0; Kubernetes: runAsUser: 0): then RUN happens in a chroot, which needs no namespaces", err)
}

// keeperCommand prepares K. It is not bound to ctx: it outlives the call that made it and ends when its socket closes.
func keeperCommand(ctx context.Context, kind string, socket *os.File, said *tail.Buffer, debug io.Writer) *osexec.Cmd {
	name := keeperName
	if kind == IsolationChroot {
		name = chrootKeeperName
	}
	cmd := reexec.Command(context.WithoutCancel(ctx), name)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = said
	if debug != nil {
		cmd.Stderr = io.MultiWriter(said, debug)
	}
	// A session of its own: Ctrl-C at the terminal is for the caller alone, which then ends the keeper in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// startKeeper starts K and says which ids exist in it.
func startKeeper(ctx context.Context, kind string, cmd *osexec.Cmd, single bool) (reexec.Map, error) {
	if kind != IsolationChroot {
		return reexec.StartMapped(ctx, cmd, unix.CLONE_NEWNS|unix.CLONE_NEWPID, single)
	}
	ids, err := reexec.HostMap(single)
	if err != nil {
		return ids, err
	}
	return ids, cmd.Start()
}

// handshake waits until the keeper is ready.
func (s *Sandbox) handshake(ctx context.Context, theirs *os.File, said *tail.Buffer) error {
	if err := theirs.Close(); err != nil {
		return fmt.Errorf("close keeper socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.link.Close() })
	defer stop()
	var rep reply
	_, err := s.link.receive(&rep)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return unavailable(fmt.Errorf("start keeper: %w: %s", err, said))
	case rep.Kind != "ready":
		return unavailable(errors.New(rep.Error))
	}
	return nil
}

// Isolation names the class of ids that exist inside, "root", "ranges" or "single"; without namespaces it is IsolationChroot.
func (s *Sandbox) Isolation() string {
	if s.chroot {
		return IsolationChroot
	}
	return string(s.ids.Class)
}

// Close ends the keeper and with it every process in the sandbox; none is left when it returns. It may be called more than once.
func (s *Sandbox) Close() error { return s.close() }

func (s *Sandbox) shutdown() error {
	s.mu.Lock()
	s.gone = errClosed
	s.mu.Unlock()
	// The keeper ends at the end of its socket; the kill is for one that cannot read any more. Neither can fail in a way that matters: Wait says how it ended.
	_ = s.link.Close()
	<-s.read
	if !s.chroot { // there it has to end its descendants itself, which it does whatever they do
		_ = s.cmd.Process.Kill()
	}
	var exit *osexec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for keeper: %w", err)
	}
	return nil
}

// readReplies hands each reply to the process that it is about, until the keeper is gone.
func (s *Sandbox) readReplies() {
	defer close(s.read)
	for {
		var rep reply
		files, err := s.link.receive(&rep)
		closeFiles(files)
		s.mu.Lock()
		if err != nil {
			if s.gone == nil {
				s.gone = fmt.Errorf("the keeper of the sandbox is gone: %w", err)
			}
			for id, p := range s.procs {
				delete(s.procs, id)
				p.finish(s.gone)
			}
			s.mu.Unlock()
			return
		}
		p := s.procs[rep.ID]
		if p != nil && rep.Kind != "started" {
			delete(s.procs, rep.ID)
		}
		s.mu.Unlock()
		if p != nil {
			p.handle(rep)
		}
	}
}

// Process is a child in the sandbox.
type Process struct {
	s       *Sandbox
	id      uint64
	started chan struct{} // closed when it runs or has failed to start
	ended   chan struct{} // closed when it has ended
	err     error         // valid once ended is closed
	once    sync.Once
	output  sync.WaitGroup
}

func (p *Process) handle(rep reply) {
	switch rep.Kind {
	case "started":
		p.once.Do(func() { close(p.started) })
	case "failed":
		p.finish(errors.New(rep.Error))
	case "exited":
		switch {
		case rep.Signal != 0:
			p.finish(&ExitError{Code: -1, Signal: rep.Signal})
		case rep.Code != 0:
			p.finish(&ExitError{Code: rep.Code})
		default:
			p.finish(nil)
		}
	}
}

func (p *Process) finish(err error) {
	p.err = err
	p.once.Do(func() { close(p.started) })
	close(p.ended)
}

// Wait waits for the end of the process and of its output. A non-zero end is *ExitError. It may be called more than once.
func (p *Process) Wait() error {
	<-p.ended
	p.output.Wait()
	return p.err
}

// Kill sends SIGKILL; a process that has ended already is no error.
func (p *Process) Kill() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.s.link.send(request{Op: "kill", ID: p.id}, nil); err != nil {
		return fmt.Errorf("kill process: %w", err)
	}
	return nil
}

// Start runs a re-executed child NAME in the sandbox's namespaces with FILES as descriptors 3 and on; what it prints goes to STDERR. It starts in /, with an empty
// environment. The caller keeps FILES. ctx done kills it.
func (s *Sandbox) Start(ctx context.Context, name string, files []*os.File, stderr io.Writer) (*Process, error) {
	out, err := newOutputs(stderr, stderr)
	if err != nil {
		return nil, err
	}
	return s.start(ctx, name, 0, files, out)
}

// expect returns a process whose end the keeper will tell, once it is asked for it.
func (s *Sandbox) expect() (*Process, error) {
	p := &Process{s: s, started: make(chan struct{}), ended: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone != nil {
		return nil, s.gone
	}
	s.next++
	p.id = s.next
	s.procs[p.id] = p
	return p, nil
}

// unexpect forgets a process that the keeper was not asked for.
func (s *Sandbox) unexpect(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.procs, p.id)
}

// start takes over OUT.
func (s *Sandbox) start(ctx context.Context, name string, flags uintptr, files []*os.File, out *outputs) (*Process, error) {
	p, err := s.expect()
	if err != nil {
		out.abandon()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	err = s.link.send(request{Op: "start", ID: p.id, Name: name, Flags: flags}, append(out.writers(), files...))
	out.drain(&p.output)
	if err != nil {
		s.unexpect(p)
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	p.output.Go(func() {
		<-p.ended
		stop()
	})
	<-p.started
	select {
	case <-p.ended:
		var exit *ExitError
		if p.err != nil && !errors.As(p.err, &exit) {
			p.output.Wait()
			return nil, p.err
		}
	default:
	}
	return p, nil
}

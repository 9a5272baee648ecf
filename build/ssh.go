package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fbuild/fbuild/dockerfile"
)

// maxKey bounds the file of a private key, in bytes.
const maxKey = 100 << 10

// agentDialer opens one conversation's agent.
type agentDialer func(ctx context.Context) (agent.ExtendedAgent, io.Closer, error)

// agent returns what a mount asks for; nil where nobody gave it and the mount can
// do without.
func (b *builder) agent(m *dockerfile.Mount) (agentDialer, error) {
	s, given := b.opts.SSH[m.ID]
	switch {
	case !given && m.Required:
		return nil, &MountError{
			fmt.Errorf("ssh agent %q is required, and was not given", m.ID),
			fmt.Sprintf("forward the agent of $SSH_AUTH_SOCK with --ssh %s, or give a key with --ssh %s=FILE", m.ID, m.ID),
		}
	case !given:
		return nil, nil
	}
	paths := s.Paths
	if len(paths) == 0 {
		paths = []string{os.Getenv("SSH_AUTH_SOCK")}
		if paths[0] == "" {
			return nil, &MountError{fmt.Errorf("ssh agent %q: SSH_AUTH_SOCK is not set", m.ID), "start an agent (eval $(ssh-agent); ssh-add), or give a key: --ssh " + m.ID + "=FILE"}
		}
	}
	if len(paths) == 1 {
		if st, err := os.Stat(paths[0]); err == nil && st.Mode()&os.ModeSocket != 0 {
			return dialAgent(m.ID, paths[0]), nil
		}
	}
	ring := agent.NewKeyring()
	for _, p := range paths {
		if err := addKey(ring, m.ID, p); err != nil {
			return nil, err
		}
	}
	held, ok := ring.(agent.ExtendedAgent)
	if !ok {
		return nil, fmt.Errorf("ssh agent %q: the keyring is a %T", m.ID, ring)
	}
	return func(context.Context) (agent.ExtendedAgent, io.Closer, error) { return held, io.NopCloser(nil), nil }, nil
}

func dialAgent(id, path string) agentDialer {
	return func(ctx context.Context) (agent.ExtendedAgent, io.Closer, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, nil, fmt.Errorf("ssh agent %q: %w", id, err)
		}
		return agent.NewClient(c), c, nil
	}
}

// addKey puts the private key of a file into an agent of our own.
func addKey(ring agent.Agent, id, path string) error {
	fail := func(err error, hint string) error {
		return &MountError{fmt.Errorf("ssh key %s of --ssh %s: %w", path, id, err), hint}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err, "give the socket of an agent or the file of a private key: --ssh "+id+"=PATH")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err := errors.Join(err, f.Close()); err != nil {
		return fail(err, "give the socket of an agent or the file of a private key: --ssh "+id+"=PATH")
	}
	key, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return fail(errors.New("it is protected by a passphrase"), "add it to an agent with ssh-add "+path+", and forward that with --ssh "+id)
	case err != nil:
		return fail(err, "is it a private key, and not the .pub beside it?")
	}
	if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: filepath.Base(path)}); err != nil {
		return fail(err, "fbuild holds RSA, ECDSA and Ed25519 keys; add any other to an agent")
	}
	return nil
}

// agentServer is a socket that leads to an agent, for one RUN.
type agentServer struct {
	path   string
	listen net.Listener
	dial   agentDialer

	mu   sync.Mutex
	ends map[io.Closer]bool // of conversations: with the client and with the agent; nil when it is over
	wait sync.WaitGroup
}

// serveAgent listens on a socket in a new directory below temp.
func serveAgent(ctx context.Context, temp string, dial agentDialer) (*agentServer, error) {
	dir, err := mkdirIn(temp, "ssh-")
	if err != nil {
		return nil, fmt.Errorf("serve ssh agent: %w", err)
	}
	// A socket's path has 107 bytes at most: it is reached through its directory.
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("serve ssh agent: %w", err)
	}
	defer func() { _ = d.Close() }() // only a handle
	l, err := new(net.ListenConfig).Listen(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/agent", d.Fd()))
	if err != nil {
		return nil, fmt.Errorf("serve ssh agent: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // its name goes with the directory
	}
	s := &agentServer{path: filepath.Join(dir, "agent"), listen: l, dial: dial, ends: map[io.Closer]bool{}}
	s.wait.Go(func() { s.accept(ctx) })
	return s, nil
}

func (s *agentServer) accept(ctx context.Context) {
	for {
		c, err := s.listen.Accept()
		if err != nil {
			return // closed
		}
		if !s.hold(c) {
			return // nobody talks any more
		}
		s.wait.Go(func() { s.talk(ctx, c) })
	}
}

// hold keeps one end of a conversation until drop or close; false says that it is over
// already.
func (s *agentServer) hold(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		_ = c.Close() // nobody listens
		return false
	}
	s.ends[c] = true
	return true
}

func (s *agentServer) drop(c io.Closer) {
	_ = c.Close() // nobody listens
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ends, c)
}

// talk answers one client. What goes wrong between it and the agent ends the
// conversation, as it would without us.
func (s *agentServer) talk(ctx context.Context, c net.Conn) {
	defer s.drop(c)
	a, end, err := s.dial(ctx)
	if err != nil || !s.hold(end) {
		return
	}
	defer s.drop(end)
	_ = agent.ServeAgent(readOnlyAgent{a}, c)
}

// close ends every conversation and the socket. An agent that waits for a person to
// allow something is not waited for.
func (s *agentServer) close() {
	_ = s.listen.Close()
	s.mu.Lock()
	for c := range s.ends {
		_ = c.Close() // nobody listens
	}
	s.ends = nil
	s.mu.Unlock()
	s.wait.Wait()
	_ = os.RemoveAll(filepath.Dir(s.path)) // goes with the build's directory else
}

// errReadOnly answers a RUN that wants to change the caller's agent.
var errReadOnly = errors.New("the agent is forwarded for signing only")

// readOnlyAgent lists keys and signs; a RUN cannot change the caller's agent.
type readOnlyAgent struct{ agent.ExtendedAgent }

func (readOnlyAgent) Add(agent.AddedKey) error   { return errReadOnly }
func (readOnlyAgent) Remove(ssh.PublicKey) error { return errReadOnly }
func (readOnlyAgent) RemoveAll() error           { return errReadOnly }
func (readOnlyAgent) Lock([]byte) error          { return errReadOnly }
func (readOnlyAgent) Unlock([]byte) error        { return errReadOnly }
func (readOnlyAgent) Signers() ([]ssh.Signer, error) {
	return nil, errReadOnly
}

// Extension knows none: session-bind and the like are for the one who has the keys.
func (readOnlyAgent) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}

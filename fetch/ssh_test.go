package fetch

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/internal/testenv"
)

// sshServer is a sshd of the caller's on loopback.
type sshServer struct {
	dir, key, known string
	address         string // ssh://user@host:port
}

func newSSHServer(t *testing.T) *sshServer {
	t.Helper()
	sshd := need(t, "sshd")
	need(t, "ssh")
	s := &sshServer{dir: t.TempDir()}
	s.key = s.newKey(t, "key")
	host := s.newKey(t, "host")
	if os.Geteuid() == 0 { // sshd insists on it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	s.address = fmt.Sprintf("ssh://%s@127.0.0.1:%d", me.Username, port)
	s.known = s.write(t, "known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s", port, readFile(t, host+".pub")))
	config := s.write(t, "sshd_config", fmt.Sprintf(
		"ListenAddress 127.0.0.1:%d\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\nUseDNS no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
		port, host, s.key))
	var said bytes.Buffer
	cmd := osexec.CommandContext(context.WithoutCancel(t.Context()), sshd, "-D", "-e", "-f", config)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", said.String())
		}
	})
	testenv.Until(t, "answer of sshd", func() bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return s
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *sshServer) newKey(t *testing.T, name string) string {
	t.Helper()
	p := filepath.Join(s.dir, name)
	if out, err := osexec.CommandContext(context.WithoutCancel(t.Context()), need(t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", p).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return p
}

func (s *sshServer) write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(s.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// agent starts an agent that holds the key, and returns its socket.
func (s *sshServer) agent(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	cmd := osexec.CommandContext(context.WithoutCancel(t.Context()), need(t, "ssh-agent"), "-D", "-a", sock)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	testenv.Until(t, "socket of the agent", func() bool { _, err := os.Stat(sock); return err == nil })
	add := osexec.CommandContext(context.WithoutCancel(t.Context()), need(t, "ssh-add"), "-q", s.key)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	return sock
}

func TestSSH(t *testing.T) {
	s := newSSHServer(t)
	u := newUpstream(t)
	u.commit("f", "over ssh")
	agent, other := s.agent(t), s.newKey(t, "other")
	home, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	// What stands in the caller's home, but for known hosts, does not count.
	for name, text := range map[string]string{"config": "Host *\n\tProxyCommand touch " + ran + "\n", "id_ed25519": readFile(t, s.key)} {
		if err := os.WriteFile(filepath.Join(home, ".ssh", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", agent)
	for _, tt := range []struct {
		name string
		o    GitOptions
		want string // of the error
		hint string
	}{
		{"key", GitOptions{SSH: []string{s.key}, KnownHosts: []string{s.known}}, "", ""},
		{"agent", GitOptions{SSH: []string{agent}, KnownHosts: []string{s.known}}, "", ""},
		{"one of two keys", GitOptions{SSH: []string{other, s.key}, KnownHosts: []string{s.known}}, "", ""},
		{"nothing given", GitOptions{KnownHosts: []string{s.known}}, "Permission denied", "--ssh default"},
		{"wrong key", GitOptions{SSH: []string{other}, KnownHosts: []string{s.known}}, "Permission denied", "--ssh default"},
		{"unknown host", GitOptions{SSH: []string{s.key}}, "Host key verification failed", "ssh-keyscan -p"},
		{"no such key", GitOptions{SSH: []string{s.key + "x"}}, "no such file", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := checkout(t, s.address+u.dir+"/.git", tt.o)
			if _, serr := os.Stat(ran); serr == nil {
				t.Error("a command of ~/.ssh/config ran")
			}
			if tt.want != "" {
				e, ok := err.(*Error) //nolint:errorlint // the outermost must be it
				if !ok || !strings.Contains(err.Error(), tt.want) || !strings.Contains(e.Hint, tt.hint) {
					t.Errorf("got %v, want %q with hint %q", err, tt.want, tt.hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, dir)["f"]; got != "-rw-r--r-- over ssh" {
				t.Errorf("file: got %q", got)
			}
		})
	}
}

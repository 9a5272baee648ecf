//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// sshServer is a sshd on loopback that lets the caller of the tests in.
type sshServer struct {
	addr  string // ssh://USER@HOST:PORT
	port  string
	key   string // a file with the key that opens it
	known string // the line of known_hosts
	cmd   *osexec.Cmd
}

// startSSHD starts one whose files are in dir, which the one who asks removes. The
// key belongs to uid:gid: ssh refuses a key that others may read.
func startSSHD(dir string, uid, gid int) (*sshServer, error) {
	err := os.MkdirAll(dir, 0o755)
	if os.Geteuid() == 0 { // sshd insists on it
		err = errors.Join(err, os.MkdirAll("/run/sshd", 0o755))
	}
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"key", "host"} {
		if out, err := osexec.CommandContext(context.Background(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	config := fmt.Sprintf("ListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/key.pub\nStrictModes no\nUsePAM no\nUseDNS no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n", addr, dir, dir)
	me, uerr := user.Current()
	err = errors.Join(err, l.Close(), uerr, os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600), os.Chown(filepath.Join(dir, "key"), uid, gid))
	if err != nil {
		return nil, err
	}
	sshd, err := osexec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	_, port, _ := strings.Cut(addr, ":")
	s := &sshServer{
		addr: "ssh://" + me.Username + "@" + addr, port: port, key: filepath.Join(dir, "key"),
		known: "[127.0.0.1]:" + port + " " + string(host),
		cmd:   osexec.CommandContext(context.Background(), sshd, "-D", "-e", "-f", filepath.Join(dir, "config")),
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 5000 {
		if c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", addr); err == nil {
			return s, c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.stop()
	return nil, errors.New("sshd does not answer")
}

func (s *sshServer) stop() {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()
}

// knownTo writes the server's key where ssh looks for it in a home.
func (s *sshServer) knownTo(home string) error {
	dir := filepath.Join(home, ".ssh")
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(s.known), 0o644))
}

// cmdSSHD is `sshd`: a sshd on loopback for the script's life. $SSHADDR is
// ssh://USER@HOST:PORT, $SSHKEY a key that opens it; the script's home knows the host.
func cmdSSHD(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: sshd")
	}
	h := scriptHome(ts) // the key is the caller's
	s, err := startSSHD(ts.MkAbs("sshd"), h.uid, h.gid)
	ts.Check(err)
	ts.Defer(s.stop)
	ts.Check(s.knownTo(ts.MkAbs(ts.Getenv("HOME"))))
	ts.Setenv("SSHADDR", s.addr)
	ts.Setenv("SSHKEY", s.key)
}

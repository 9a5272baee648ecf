//go:build integration

package integration

import (
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

// cmdSSHD is `sshd`: a sshd on loopback for the script's life. $SSHADDR is
// ssh://USER@HOST:PORT, $SSHKEY a key that opens it; the script's home knows the host.
func cmdSSHD(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: sshd")
	}
	dir := ts.MkAbs("sshd")
	ts.Check(os.MkdirAll(dir, 0o755))
	if os.Geteuid() == 0 { // sshd insists on it
		ts.Check(os.MkdirAll("/run/sshd", 0o755))
	}
	for _, name := range []string{"key", "host"} {
		out, err := osexec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			ts.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	addr := l.Addr().String()
	ts.Check(l.Close())
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	ts.Check(err)
	_, port, _ := strings.Cut(addr, ":")
	known := ts.MkAbs(ts.Getenv("HOME") + "/.ssh/known_hosts")
	ts.Check(os.MkdirAll(filepath.Dir(known), 0o755))
	ts.Check(os.WriteFile(known, []byte("[127.0.0.1]:"+port+" "+string(host)), 0o644))
	config := fmt.Sprintf("ListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/key.pub\nStrictModes no\nUsePAM no\nUseDNS no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n", addr, dir, dir)
	ts.Check(os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600))
	sshd, err := osexec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	cmd := osexec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "config"))
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	me, err := user.Current()
	ts.Check(err)
	h := scriptHome(ts) // the key is the caller's
	ts.Check(os.Chown(filepath.Join(dir, "key"), h.uid, h.gid))
	ts.Setenv("SSHADDR", "ssh://"+me.Username+"@"+addr)
	ts.Setenv("SSHKEY", filepath.Join(dir, "key"))
	for range 100 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("sshd does not answer")
}

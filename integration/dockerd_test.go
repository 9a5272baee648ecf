//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dockerd is a docker daemon of one test, with a containerd of its own.
type dockerd struct {
	t      testing.TB
	dir    string
	socket string // of the daemon
	ctr    string // of its containerd
	log    string
}

// startDockerd starts a docker daemon that shares nothing with one of the host:
// data, sockets and containerd lie in a directory of the test, there is no bridge,
// and no rule of the firewall is touched (containers get --network none or host).
// It is stopped, by its id, at the end of the test. Only root can; one runs at a
// time, whoever starts it.
func startDockerd(t testing.TB) *dockerd {
	t.Helper()
	need(t, os.Getuid() == 0, "root, to start a docker daemon")
	need(t, haveProgram("dockerd") && haveProgram("docker") && haveProgram("containerd"), "dockerd, docker and containerd")
	lockDockerd(t)
	// Not under suite.dir: socket paths must be short.
	dir, err := os.MkdirTemp("", "dockerd-") //nolint:usetesting // as above
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerd{
		t: t, dir: dir, socket: filepath.Join(dir, "docker.sock"), log: filepath.Join(dir, "log"),
		ctr: filepath.Join(dir, "exec", "containerd", "containerd.sock"),
	}
	logFile, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = logFile.Close() }() // the daemon has its own
	cmd := program("dockerd", "--host", "unix://"+d.socket, "--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "--config-file", filepath.Join(dir, "none.json"),
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
	if err := os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // an interrupted test still stops it below
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	t.Cleanup(func() { d.stop(cmd.Process, ended) })
	for end := time.Now().Add(waitTime); ; time.Sleep(100 * time.Millisecond) {
		if d.command("version").Run() == nil {
			return d
		}
		select {
		case <-ended:
			t.Fatalf("dockerd ended:\n%s", d.lastLog())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("dockerd does not answer:\n%s", d.lastLog())
		}
	}
}

// lockDockerd waits until no other process has a test daemon.
func lockDockerd(t testing.TB) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "dockerd.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() }) // which unlocks
}

// stop ends the daemon, and with it its containerd and containers, and removes
// everything.
func (d *dockerd) stop(p *os.Process, ended <-chan struct{}) {
	if ids, err := d.command("ps", "-aq").Output(); err == nil && len(bytes.Fields(ids)) > 0 {
		_ = d.command(append([]string{"rm", "-f"}, strings.Fields(string(ids))...)...).Run() // its end does so too
	}
	_ = p.Signal(unix.SIGTERM)
	select {
	case <-ended:
	case <-time.After(waitTime):
		d.t.Errorf("dockerd does not end:\n%s", d.lastLog())
		_ = p.Kill()
		<-ended
	}
	for _, m := range mountsUnder(d.dir) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			d.t.Errorf("unmount %s: %v", m, err)
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Errorf("remove the daemon's data: %v", err)
	}
}

// host is the value of DOCKER_HOST.
func (d *dockerd) host() string { return "unix://" + d.socket }

// command prepares a docker command that talks to the daemon.
func (d *dockerd) command(args ...string) *osexec.Cmd {
	return program("docker", append([]string{"--host", d.host()}, args...)...)
}

// docker runs a docker command that must succeed and returns its stdout.
func (d *dockerd) docker(args ...string) string {
	d.t.Helper()
	return output(d.t, d.command(args...))
}

// containerd runs a ctr command in the daemon's containerd, in a namespace of its
// own, and returns its stdout.
func (d *dockerd) containerd(args ...string) string {
	d.t.Helper()
	return output(d.t, program("ctr", append([]string{"--address", d.ctr, "--namespace", "fbuild"}, args...)...))
}

func (d *dockerd) lastLog() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

// program prepares a command that outlives no test: whoever starts it ends it.
func program(name string, args ...string) *osexec.Cmd {
	return osexec.CommandContext(context.Background(), name, args...)
}

// output runs a command that must succeed and returns its stdout.
func output(t testing.TB, cmd *osexec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s%s", cmd.Args, err, out.String(), errs.String())
	}
	return out.String()
}

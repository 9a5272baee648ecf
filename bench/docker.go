package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dockerBuilder is a dockerd of ours, and the command line against it.
type dockerBuilder struct {
	env           *env
	name          string
	dir, run      string
	buildkit      bool
	cmd           *osexec.Cmd
	ended         chan struct{} // closed when it has ended
	status        error         // how, then
	log           *os.File
	skip, version string
	keep          bool // what its data directory holds stays from start to start
}

// cgroupParent is where dockerd makes control groups, which it leaves behind.
const cgroupParent = "/fbuild-bench"

// removeCgroups removes them in every hierarchy; they are empty. What a second
// daemon uses stays for that one to remove.
func removeCgroups() {
	var dirs []string
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroupParent, "/sys/fs/cgroup/*" + cgroupParent} {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, top := range tops {
			_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error { // what cannot be read stays
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return err
			})
		}
	}
	for _, d := range slices.Backward(dirs) {
		_ = unix.Rmdir(d) // see above
	}
}

// dockerCLI prefers the client that Debian's dockerd came with: a newer one
// elsewhere has BuildKit in a plugin only.
func dockerCLI() string {
	if _, err := os.Stat("/usr/bin/docker"); err == nil {
		return "/usr/bin/docker"
	}
	return "docker"
}

// startDocker starts a daemon with an empty data directory; what is missing is
// the reason to skip it.
func startDocker(ctx context.Context, e *env, g group, name string, buildkit bool) *dockerBuilder {
	d := &dockerBuilder{
		env: e, name: name, buildkit: buildkit, version: e.host.Versions["dockerd"],
		dir: filepath.Join(e.work, g.name+"-"+name), run: filepath.Join(e.run, name),
	}
	if d.version == "" {
		d.skip = "dockerd is not installed: run bench/setup"
		return d
	}
	if err := d.start(ctx); err != nil {
		d.skip = errors.Join(err, d.close()).Error()
	}
	return d
}

// start runs dockerd in a mount namespace of its own: its mounts end with it.
// It makes no bridge and no firewall rules; builds use the host's network.
func (d *dockerBuilder) start(ctx context.Context) (err error) {
	prepare := fresh
	if d.keep {
		prepare = func(dir string) error { return openDirs(dir) }
	}
	if err := errors.Join(prepare(d.dir), fresh(d.run)); err != nil {
		return err
	}
	if d.log, err = os.Create(filepath.Join(d.run, "log")); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	d.cmd = d.env.command(context.WithoutCancel(ctx), []string{
		"dockerd", "--host", d.host(), "--data-root", d.dir, "--exec-root", filepath.Join(d.run, "exec"),
		"--pidfile", filepath.Join(d.run, "pid"), "--storage-driver=overlay2", "--bridge=none", "--iptables=false",
		"--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--cgroup-parent=" + cgroupParent,
	})
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return fmt.Errorf("start dockerd: %w", err)
	}
	daemons.Lock()
	daemons.pids[d.cmd.Process.Pid] = true
	daemons.Unlock()
	cmd, ended := d.cmd, make(chan struct{})
	d.ended = ended
	go func() {
		defer close(ended)
		d.status = cmd.Wait()
	}()
	for range 150 {
		if d.client(ctx, "version").Run() == nil {
			return nil
		}
		select {
		case <-d.ended:
			data, _ := os.ReadFile(d.log.Name()) // without it there is less to say
			return fmt.Errorf("dockerd ended: %w\n%s", d.status, tail(string(data), 5))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return errors.New("dockerd does not answer")
}

func (d *dockerBuilder) host() string { return "unix://" + filepath.Join(d.run, "sock") }

func (d *dockerBuilder) client(ctx context.Context, args ...string) *osexec.Cmd {
	kit := "DOCKER_BUILDKIT=0"
	if d.buildkit {
		kit = "DOCKER_BUILDKIT=1"
	}
	return d.env.command(ctx, append([]string{dockerCLI(), "--host", d.host()}, args...), kit)
}

// close ends the daemon and removes its data.
func (d *dockerBuilder) close() error {
	return errors.Join(d.stop(), os.RemoveAll(d.dir))
}

// stop ends the daemon by its id.
func (d *dockerBuilder) stop() error {
	var errs []error
	if d.cmd != nil {
		if err := d.cmd.Process.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		select {
		case <-d.ended:
		case <-time.After(20 * time.Second):
			errs = append(errs, d.cmd.Process.Kill())
			<-d.ended
		}
		daemons.Lock()
		delete(daemons.pids, d.cmd.Process.Pid)
		daemons.Unlock()
		d.cmd = nil
		removeCgroups()
	}
	if d.log != nil {
		errs = append(errs, d.log.Close())
		d.log = nil
	}
	return errors.Join(append(errs, os.RemoveAll(d.run))...)
}

// prune removes everything that was built or pulled.
func (d *dockerBuilder) prune(ctx context.Context) error {
	out, err := d.client(ctx, "system", "prune", "--all", "--force").CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker system prune: %w\n%s", err, tail(string(out), 5))
	}
	return nil
}

func (d *dockerBuilder) side(dockerfile, ctxDir string) side {
	s := side{name: d.name, version: strings.TrimPrefix(d.version, "Docker version "), skip: d.skip}
	if d.cmd == nil {
		return s
	}
	s.daemon = d.cmd.Process.Pid
	s.reset = func(ctx context.Context, _ int) error { return d.prune(ctx) }
	s.run = func(ctx context.Context, m meter, _ string, _ int) (sample, error) {
		u, err := m.run(ctx, d.client(ctx, "build", "--network=host", "-t", "bench", "-f", dockerfile, ctxDir))
		return sample{usage: u}, err
	}
	return s
}

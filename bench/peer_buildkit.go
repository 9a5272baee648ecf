package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kitSide is the peer to beat.
const kitSide = "buildkit-rootless"

// Where a current BuildKit is; bench/buildkit makes one.
const (
	buildkitdVar   = "BENCH_BUILDKITD"
	buildctlVar    = "BENCH_BUILDCTL"
	rootlesskitVar = "BENCH_ROOTLESSKIT"
)

// kit is a buildkitd of ours, in the namespaces of rootlesskit.
type kit struct {
	env      *env
	dir, run string
	tools    map[string]string
	account  *account
	cmd      *osexec.Cmd
	ended    chan struct{}
	log      *os.File
}

// buildkitPeer is BuildKit rootless, as its docs/rootless.md has it, but with the
// network of the host: the registry is on its loopback interface.
func (e *env) buildkitPeer(ctx context.Context, label string) *builder {
	k := &kit{env: e, dir: filepath.Join(e.work, label+"-buildkit"), run: filepath.Join(e.run, "kit"), tools: map[string]string{}}
	for program, variable := range map[string]string{"buildkitd": buildkitdVar, "buildctl": buildctlVar, "rootlesskit": rootlesskitVar} {
		path, err := findTool(variable, program)
		if err != nil {
			return missing("%v (bench/buildkit makes it)", err)
		}
		k.tools[program] = path
	}
	if err := k.start(ctx); err != nil {
		return missing("%v", errors.Join(err, k.close()))
	}
	common := func(j job, more ...string) []string {
		out := []string{
			k.tools["buildctl"], "--addr", k.addr(), "build", "--progress=plain", "--frontend=dockerfile.v0",
			"--local", "context=" + j.context, "--local", "dockerfile=" + filepath.Dir(j.dockerfile), "--opt", "filename=" + filepath.Base(j.dockerfile),
		}
		for _, a := range j.args {
			out = append(out, "--opt", "build-arg:"+a)
		}
		if j.target != "" {
			out = append(out, "--opt", "target="+j.target)
		}
		return append(out, more...)
	}
	return &builder{
		version:  k.version(ctx),
		settings: "rootlesskit --net=host buildkitd, OCI worker, overlayfs snapshotter; buildctl build without an output, push: --output type=image,push=true",
		account:  k.account, daemon: k.cmd.Process.Pid,
		reset: func(ctx context.Context) error {
			cmd := e.command(ctx, []string{k.tools["buildctl"], "--addr", k.addr(), "prune", "--all"})
			k.account.as(cmd)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("buildctl prune: %w\n%s", err, tail(string(out), 5))
			}
			return nil
		},
		build: always(func(j job) []string { return common(j) }),
		push: always(func(j job) []string {
			return common(j, "--output", "type=image,push=true,registry.insecure=true,name="+j.ref)
		}),
		share: always(func(j job) []string {
			return common(j, "--export-cache", "type=registry,mode=max,registry.insecure=true,ref="+j.cache+":1")
		}),
		fetch: always(func(j job) []string {
			return common(j, "--import-cache", "type=registry,registry.insecure=true,ref="+j.cache+":1")
		}),
		close: k.close,
	}
}

func (k *kit) addr() string { return "unix://" + filepath.Join(k.account.run, "buildkitd.sock") }

func (k *kit) version(ctx context.Context) string {
	out, err := osexec.CommandContext(ctx, k.tools["buildkitd"], "--version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// start starts the daemon with an empty storage and waits until it answers.
func (k *kit) start(ctx context.Context) (err error) {
	if err := errors.Join(fresh(k.dir), fresh(k.run)); err != nil {
		return err
	}
	if k.account, err = k.env.lookupAccount(k.dir); err != nil {
		return err
	}
	k.account.run = k.run // short, for the socket
	if err := os.Chown(k.run, int(k.account.uid), int(k.account.gid)); err != nil {
		return err
	}
	conf := fmt.Sprintf("[registry.%q]\n  http = true\n  insecure = true\n", k.env.registry.addr)
	file := filepath.Join(k.dir, "buildkitd.toml")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil { //nolint:gosec // the ordinary user reads it
		return fmt.Errorf("write buildkitd.toml: %w", err)
	}
	if k.log, err = os.Create(filepath.Join(k.dir, "log")); err != nil {
		return fmt.Errorf("start buildkitd: %w", err)
	}
	k.cmd = k.env.command(context.WithoutCancel(ctx), []string{
		k.tools["rootlesskit"], "--net=host", "--state-dir=" + filepath.Join(k.run, "rk"),
		k.tools["buildkitd"], "--config", file, "--root", filepath.Join(k.dir, "root"), "--addr", k.addr(),
		"--otel-socket-path", filepath.Join(k.run, "otel.sock"), "--oci-worker=true", "--containerd-worker=false", "--oci-worker-snapshotter=overlayfs", "--oci-worker-net=host",
	})
	k.account.as(k.cmd)
	k.cmd.Stdout, k.cmd.Stderr = k.log, k.log
	if k.ended, err = startDaemon(k.cmd); err != nil {
		k.cmd = nil
		return fmt.Errorf("start rootlesskit: %w", err)
	}
	for range 100 {
		cmd := k.env.command(ctx, []string{k.tools["buildctl"], "--addr", k.addr(), "debug", "workers"})
		k.account.as(cmd)
		if cmd.Run() == nil {
			return nil
		}
		select {
		case <-k.ended:
			data, _ := os.ReadFile(k.log.Name()) // without it there is less to say
			return fmt.Errorf("buildkitd ended: %s", tail(string(data), 5))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return errors.New("buildkitd does not answer")
}

// close ends the daemon and removes its data.
func (k *kit) close() error {
	var errs []error
	if k.cmd != nil {
		errs = append(errs, endDaemon(k.cmd, k.ended))
		k.cmd = nil
	}
	if k.log != nil {
		errs = append(errs, k.log.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(k.dir), os.RemoveAll(k.run))...)
}

// endDaemon ends a daemon by its id, and what it leaves.
func endDaemon(cmd *osexec.Cmd, ended chan struct{}) error {
	below, err := descendants(cmd.Process.Pid, nil)
	if serr := cmd.Process.Signal(unix.SIGTERM); serr != nil && !errors.Is(serr, os.ErrProcessDone) {
		err = errors.Join(err, serr)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		err = errors.Join(err, cmd.Process.Kill())
		<-ended
	}
	for _, p := range below {
		_ = unix.Kill(p.pid, unix.SIGKILL) // gone is as good
	}
	return err
}

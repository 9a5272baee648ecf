package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// dockerArgv are the command lines of docker against a daemon.
func dockerArgv(b *builder, host string, buildkit bool) {
	head := []string{dockerCLI(), "--host", host}
	argv := func(j job, more ...string) []string {
		out := append(append([]string{}, head...), "build", "--network=host", "-t", j.ref, "-f", j.dockerfile)
		return append(append(append(out, buildArgs(j)...), more...), j.context)
	}
	b.vars = []string{"DOCKER_BUILDKIT=0"}
	b.build = always(func(j job) []string { return argv(j) })
	b.push = always(func(j job) []string { return append(append([]string{}, head...), "push", j.ref) })
	b.note = "docker's classic builder takes whole images as its cache only"
	if buildkit {
		b.vars = []string{"DOCKER_BUILDKIT=1"}
		b.note = "the BuildKit of docker 20.10 keeps a cache inside the image only, of its last stage"
	}
}

// dockerPeer is docker on the host, with a daemon of its own.
func (e *env) dockerPeer(ctx context.Context, label, name string, buildkit bool) *builder {
	d := startDocker(ctx, e, group{name: label}, name, buildkit)
	if d.skip != "" {
		return missing("%s", d.skip)
	}
	b := &builder{
		version: d.version, daemon: d.cmd.Process.Pid, reset: d.prune, close: d.close,
		settings: "dockerd as root, overlay2, no bridge; docker build --network=host",
	}
	if buildkit {
		b.settings += ", DOCKER_BUILDKIT=1"
	}
	dockerArgv(b, d.host(), buildkit)
	return b
}

// dindImage is the image of docker in docker.
const dindImage = "bench-dind"

// dindPackages are Debian's docker; the storage of the daemon lies on a volume, as
// in the images that docker publishes.
const dindPackages = "docker.io iptables ca-certificates"

// dind is a dockerd in a privileged container of the host's daemon.
type dind struct {
	env       *env
	dir, run  string
	container string
	shim      int // the parent of the container, which is not below the host's daemon
	remove    func() error
}

// dindPeer starts the host's daemon where it is not there, and the container.
func (e *env) dindPeer(ctx context.Context, label string) *builder {
	if e.host.Versions["dockerd"] == "" {
		return missing("dockerd is not installed: run bench/setup")
	}
	if err := e.startHostd(ctx); err != nil {
		return missing("%v", err)
	}
	d := &dind{env: e, dir: filepath.Join(e.work, label+"-dind"), run: filepath.Join(e.run, "dind"), container: "bench-" + label}
	if err := d.start(ctx); err != nil {
		return missing("%v", errors.Join(err, d.close()))
	}
	b := &builder{
		version: e.host.Versions["dockerd"], daemon: d.shim, close: d.close,
		settings: "docker run --privileged --network=host, storage on a volume; inside dockerd, overlay2, DOCKER_BUILDKIT=1",
	}
	if _, lacks := privileged(boundingSet()); len(lacks) > 0 {
		b.settings = strings.Replace(b.settings, "--privileged", "with every privilege but "+strings.Join(lacks, ", ")+", which this machine's root does not have either,", 1)
	}
	dockerArgv(b, d.host(), true)
	b.reset = func(ctx context.Context) error {
		return e.must(ctx, []string{dockerCLI(), "--host", d.host(), "system", "prune", "--all", "--force"})
	}
	b.setup = func(ctx context.Context) (float64, error) {
		// Another container beside the one that builds: its start is what a job pays.
		begin := time.Now()
		second := &dind{env: e, dir: d.dir + "-second", run: d.run + "2", container: d.container + "-second"}
		err := second.start(ctx)
		took := time.Since(begin).Seconds()
		return took, errors.Join(err, second.close())
	}
	return b
}

// startHostd starts the daemon that runs the containers of peers. Its data stays
// in the work directory: it holds the image of docker in docker.
func (e *env) startHostd(ctx context.Context) error {
	if e.hostd != nil {
		return nil
	}
	d := &dockerBuilder{env: e, name: "hostd", version: e.host.Versions["dockerd"], dir: filepath.Join(e.work, "hostd"), run: filepath.Join(e.run, "hostd"), keep: true}
	if err := d.start(ctx); err != nil {
		return errors.Join(err, d.stop())
	}
	e.hostd = d
	if d.client(ctx, "image", "inspect", dindImage).Run() == nil {
		return nil
	}
	tree, err := e.dindTree(ctx)
	if err != nil {
		return err
	}
	script := `tar --numeric-owner --one-file-system -C "$1" -c . | "$2" --host "$3" import --change 'VOLUME /var/lib/docker' - ` + dindImage
	return e.must(ctx, []string{"sh", "-c", script, "sh", tree, dockerCLI(), d.host()})
}

// dindTree is a Debian with docker.
func (e *env) dindTree(ctx context.Context) (string, error) {
	base, err := e.debian(ctx)
	if err != nil {
		return "", err
	}
	return e.tree("dind", func(dir string) error {
		if err := e.copyTree(ctx, base, dir); err != nil {
			return err
		}
		script := `printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d &&
			apt-get -q update && apt-get -q install -y --no-install-recommends ` + dindPackages + ` && apt-get clean`
		return e.must(ctx, []string{"unshare", "--mount", "chroot", dir, "/bin/sh", "-c", script}, append(proxies(), "DEBIAN_FRONTEND=noninteractive")...)
	})
}

func (d *dind) host() string { return "unix://" + filepath.Join(d.run, "sock") }

// start runs the container and waits until the daemon in it answers.
func (d *dind) start(ctx context.Context) error {
	if err := errors.Join(fresh(d.dir), fresh(d.run)); err != nil {
		return err
	}
	_ = d.env.hostd.client(ctx, "rm", "--force", d.container).Run() // of a run that was killed
	d.remove = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if out, err := d.env.hostd.client(ctx, "rm", "--force", "--volumes", d.container).CombinedOutput(); err != nil {
			return fmt.Errorf("docker rm: %w\n%s", err, out)
		}
		return nil
	}
	flags, _ := privileged(boundingSet())
	argv := append([]string{"run", "--detach", "--network=host", "--name", d.container}, flags...)
	argv = append(argv, "--volume", d.dir+":/var/lib/docker", "--volume", d.run+":/run/dind", dindImage,
		"dockerd", "--host", "unix:///run/dind/sock", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
		"--pidfile", "/run/dind/pid", "--cgroup-parent="+cgroupParent)
	out, err := d.env.hostd.client(ctx, argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker run of docker in docker: %w\n%s", err, tail(string(out), 5))
	}
	for range 300 {
		if d.env.command(ctx, []string{dockerCLI(), "--host", d.host(), "version"}).Run() == nil {
			return d.find(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	log, _ := d.env.hostd.client(ctx, "logs", "--tail", "5", d.container).CombinedOutput() // without it there is less to say
	return fmt.Errorf("docker in docker does not answer: %s", log)
}

// find finds the processes of the container.
func (d *dind) find(ctx context.Context) error {
	out, err := d.env.hostd.client(ctx, "inspect", "--format", "{{.State.Pid}}", d.container).Output()
	if err != nil {
		return fmt.Errorf("docker inspect: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return fmt.Errorf("docker inspect: %w", err)
	}
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return err
	}
	p, err := parseStat(data)
	if err != nil {
		return err
	}
	d.shim = p.parent
	daemons.Lock()
	daemons.pids[d.shim] = true
	daemons.Unlock()
	return nil
}

// close removes the container and its storage.
func (d *dind) close() error {
	if d.shim != 0 {
		daemons.Lock()
		delete(daemons.pids, d.shim)
		daemons.Unlock()
	}
	var err error
	if d.remove != nil {
		err = d.remove()
	}
	return errors.Join(err, os.RemoveAll(d.dir), os.RemoveAll(d.run))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is the ordinary user of a rootless side; nil is root.
type account struct {
	uid, gid  uint32
	home, run string
}

// lookupAccount gives an ordinary user a home of its own for the measurements.
func (e *env) lookupAccount(dir string) (*account, error) {
	u, err := user.Lookup(e.user)
	if err != nil {
		return nil, fmt.Errorf("no ordinary user %s: run .ci/user", e.user)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	a := &account{uid: uint32(uid), gid: uint32(gid), home: filepath.Join(dir, "home"), run: filepath.Join(dir, "run")}
	err = openDirs(dir, a.home, a.run)
	for _, d := range []string{dir, a.home, a.run} {
		err = errors.Join(err, os.Chown(d, int(uid), int(gid)))
	}
	return a, errors.Join(err, os.Chmod(a.run, 0o700)) //nolint:gosec // a directory
}

// as makes a command run as the account.
func (a *account) as(cmd *osexec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
		cmd.Env = append(cmd.Env, "HOME="+a.home, "XDG_RUNTIME_DIR="+a.run)
	}
}

// suffix names the sides of an ordinary user.
func suffix(rootless bool) string {
	if rootless {
		return "-rootless"
	}
	return ""
}

// fbuildBuilder is fbuild with a store of its own.
type fbuildBuilder struct {
	env      *env
	dir      string // store and Dockerfile
	context  string
	recorder string
	account  *account
	skip     string
	rootless bool
}

// newFbuild makes it for root, with the given context ("": an empty one).
func newFbuild(e *env, g group, ctxDir string) (*fbuildBuilder, error) {
	f := &fbuildBuilder{env: e, dir: filepath.Join(e.work, g.name+"-fbuild"), context: ctxDir, recorder: "auto"}
	if err := fresh(f.dir); err != nil {
		return nil, err
	}
	if f.context == "" {
		f.context = filepath.Join(f.dir, "context")
		return f, openDirs(f.context)
	}
	return f, nil
}

// forUser makes it that of the ordinary user.
func (f *fbuildBuilder) forUser() *fbuildBuilder {
	r := &fbuildBuilder{env: f.env, dir: f.dir + "-rootless", context: f.context, recorder: f.recorder, rootless: true}
	err := fresh(r.dir)
	if err == nil {
		r.account, err = f.env.lookupAccount(r.dir)
	}
	if err != nil {
		r.skip = err.Error()
	}
	return r
}

// write writes the Dockerfile.
func (f *fbuildBuilder) write(base, rest string) error {
	return writeDockerfile(f.dockerfile(), base, rest)
}

func (f *fbuildBuilder) dockerfile() string { return filepath.Join(f.dir, "Dockerfile") }

func writeDockerfile(file, base, rest string) error {
	if err := os.WriteFile(file, []byte("FROM "+base+"\n"+rest), 0o644); err != nil { //nolint:gosec // the ordinary user reads it
		return fmt.Errorf("write Dockerfile: %w", err)
	}
	return nil
}

func (f *fbuildBuilder) close() error { return os.RemoveAll(f.dir) }

func (f *fbuildBuilder) side() side {
	store := filepath.Join(f.dir, "store")
	return side{
		name: "fbuild" + suffix(f.rootless), version: f.env.host.Versions["fbuild"], skip: f.skip,
		reset: func(context.Context, int) error { return os.RemoveAll(store) },
		run: func(ctx context.Context, m meter, _ string, _ int) (sample, error) {
			cmd := f.env.command(ctx, []string{
				f.env.fbuild, "--root", store, "build", "--recorder=" + f.recorder, "-t", "bench", "-f", f.dockerfile(), f.context,
			})
			f.account.as(cmd)
			u, err := m.run(ctx, cmd)
			return sample{usage: u}, err
		},
	}
}

// buildahBuilder is buildah with a storage of its own.
type buildahBuilder struct {
	env           *env
	dir           string
	account       *account
	skip, version string
	rootless      bool
}

func newBuildah(e *env, g group, tag string) *buildahBuilder {
	b := &buildahBuilder{env: e, dir: filepath.Join(e.work, g.name+"-buildah"+tag), version: e.host.Versions["buildah"], rootless: tag != ""}
	err := fresh(b.dir)
	if err == nil && b.rootless {
		b.account, err = e.lookupAccount(b.dir)
	}
	if b.version == "" {
		err = errors.New("buildah is not installed: run bench/setup")
	}
	if err != nil {
		b.skip = err.Error()
	}
	return b
}

// command runs buildah in a mount namespace of its own, so that what it leaves
// mounted in its storage ends with it.
func (b *buildahBuilder) command(ctx context.Context, args ...string) *osexec.Cmd {
	argv := []string{
		"buildah", "--root", filepath.Join(b.dir, "root"), "--runroot", filepath.Join(b.dir, "runroot"),
		"--storage-driver", "overlay",
	}
	cmd := b.env.command(ctx, append(argv, args...), "TMPDIR="+b.dir)
	b.account.as(cmd)
	cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	return cmd
}

func (b *buildahBuilder) reset(context.Context, int) error {
	return errors.Join(os.RemoveAll(filepath.Join(b.dir, "root")), os.RemoveAll(filepath.Join(b.dir, "runroot")))
}

// runtime is docker's, where it is there: the default, crun, refuses hosts with
// both versions of control groups.
func (b *buildahBuilder) runtime() []string {
	if b.env.host.Versions["runc"] == "" {
		return nil
	}
	return []string{"--runtime", "runc"}
}

func (b *buildahBuilder) close() error { return os.RemoveAll(b.dir) }

func (b *buildahBuilder) side(dockerfile, ctxDir string) side {
	return side{
		name: "buildah" + suffix(b.rootless), version: b.version, skip: b.skip, reset: b.reset,
		run: func(ctx context.Context, m meter, _ string, _ int) (sample, error) {
			argv := append([]string{"build", "--layers", "--tls-verify=false", "--network=host"}, b.runtime()...)
			u, err := m.run(ctx, b.command(ctx, append(argv, "-t", "bench", "-f", dockerfile, ctxDir)...))
			return sample{usage: u}, err
		},
	}
}

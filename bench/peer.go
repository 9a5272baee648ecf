package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// job is one build.
type job struct {
	dockerfile, context string
	args                []string // build arguments, K=V
	ref                 string   // the name of the image in the registry
	cache               string   // a repository for what builders share
	target              string
}

// builder is a program that builds, with a storage of its own.
type builder struct {
	name, version, settings string
	skip                    string // why it cannot be measured here
	daemon                  int
	account                 *account
	vars                    []string // of the environment
	ownMounts               bool     // what it mounts ends with its processes
	reset                   func(ctx context.Context) error
	// The command lines. They may write files; none is timed. A nil push says that
	// build has pushed, a nil share or fetch that it has no shared cache.
	build func(j job) ([]string, error)
	push  func(j job) ([]string, error)
	share func(j job) ([]string, error) // build, and put the results where other machines find them
	fetch func(j job) ([]string, error) // build with what they put there
	note  string                        // why there is no shared cache
	setup func(ctx context.Context) (wall float64, err error)
	close func() error
}

// always is a command line that cannot fail.
func always(f func(j job) []string) func(job) ([]string, error) {
	return func(j job) ([]string, error) { return f(j), nil }
}

// peers makes every builder, by name. The first word of the report on one is its name.
var peers = []struct {
	name string
	open func(ctx context.Context, e *env, label string) *builder
}{
	{fbuildSide, func(_ context.Context, e *env, l string) *builder { return e.fbuildPeer(l, fbuildSide, "auto", false) }},
	{walkSide, func(_ context.Context, e *env, l string) *builder { return e.fbuildPeer(l, walkSide, "walk", false) }},
	{untracedSide, func(_ context.Context, e *env, l string) *builder {
		return e.fbuildPeer(l, untracedSide, "auto", false)
	}},
	{"fbuild-root", func(_ context.Context, e *env, l string) *builder {
		return e.fbuildPeer(l, "fbuild-root", "auto", true)
	}},
	{oldSide, func(_ context.Context, e *env, l string) *builder { return e.fbuildPeer(l, oldSide, "auto", false) }},
	{kitSide, func(ctx context.Context, e *env, l string) *builder { return e.buildkitPeer(ctx, l) }},
	{"buildah-rootless", func(_ context.Context, e *env, l string) *builder {
		return e.buildahPeer(l, "buildah-rootless", "overlay", "")
	}},
	{"dind", func(ctx context.Context, e *env, l string) *builder { return e.dindPeer(ctx, l) }},
	{"kaniko", func(_ context.Context, e *env, l string) *builder { return e.kanikoPeer(l) }},
	{"docker-buildkit", func(ctx context.Context, e *env, l string) *builder {
		return e.dockerPeer(ctx, l, "docker-buildkit", true)
	}},
	{"docker-classic", func(ctx context.Context, e *env, l string) *builder {
		return e.dockerPeer(ctx, l, "docker-classic", false)
	}},
	{"buildah-fuse", func(_ context.Context, e *env, l string) *builder {
		return e.buildahPeer(l, "buildah-fuse", "overlay", "fuse-overlayfs")
	}},
	{"buildah-vfs", func(_ context.Context, e *env, l string) *builder { return e.buildahPeer(l, "buildah-vfs", "vfs", "") }},
}

// openPeer makes the builder of that name, or says why not.
func (e *env) openPeer(ctx context.Context, name, label string) *builder {
	for _, p := range peers {
		if p.name == name {
			b := p.open(ctx, e, label)
			b.name = name
			return b
		}
	}
	return &builder{name: name, skip: "no builder is called that"}
}

// missing is a builder that is not there.
func missing(format string, args ...any) *builder {
	return &builder{skip: fmt.Sprintf(format, args...)}
}

// findTool looks for a program: at the path that a variable names, else on the PATH.
func findTool(variable, program string) (string, error) {
	if p := os.Getenv(variable); p != "" {
		st, err := os.Stat(p)
		if err == nil && (st.IsDir() || st.Mode().Perm()&0o111 == 0) {
			err = errors.New("not a program")
		}
		if err != nil {
			return "", fmt.Errorf("%s=%s: %w", variable, p, err)
		}
		return p, nil
	}
	p, err := osexec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("no %s: put it on the PATH or name it in %s", program, variable)
	}
	return p, nil
}

// commandOf prepares what LINE makes of one job of a builder, or of several that run
// at once.
func (e *env) commandOf(ctx context.Context, b *builder, line func(job) ([]string, error), jobs ...job) (*osexec.Cmd, error) {
	var argvs [][]string
	for _, j := range jobs {
		argv, err := line(j)
		if err != nil {
			return nil, err
		}
		argvs = append(argvs, argv)
	}
	argv := argvs[0]
	if len(argvs) > 1 {
		text, err := json.Marshal(argvs)
		if err != nil {
			return nil, err
		}
		argv = []string{e.self, parallelChild, string(text)}
	}
	cmd := e.command(ctx, argv, b.vars...)
	b.account.as(cmd)
	if b.ownMounts {
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	return cmd, nil
}

// parallelChild is the first argument of this program where it runs several
// commands at once.
const parallelChild = "parallel"

// runParallel runs commands at once and waits for all of them.
func runParallel(ctx context.Context, text string) error {
	var argvs [][]string
	if err := json.Unmarshal([]byte(text), &argvs); err != nil {
		return fmt.Errorf("read arguments: %w", err)
	}
	errs := make([]error, len(argvs))
	var wg sync.WaitGroup
	for i, argv := range argvs {
		wg.Go(func() {
			cmd := osexec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("number %d: %w\n%s", i, err, tail(string(out), 10))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// startDaemon starts a process that is meant to live from run to run.
func startDaemon(cmd *osexec.Cmd) (ended chan struct{}, err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	daemons.Lock()
	daemons.pids[cmd.Process.Pid] = true
	daemons.Unlock()
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // that it has ended is what matters
		daemons.Lock()
		delete(daemons.pids, cmd.Process.Pid)
		daemons.Unlock()
	}()
	return ended, nil
}

func peerNames() []string {
	var out []string
	for _, p := range peers {
		out = append(out, p.name)
	}
	slices.Sort(out)
	return out
}

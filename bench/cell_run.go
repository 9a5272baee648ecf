package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The sides of a RUN. The two for information are measured once.
const (
	fbuildSide   = "fbuild"
	overlaySide  = "overlay"
	walkSide     = "fbuild-walk"
	volatileSide = "overlay-volatile"
)

// runInput is the RUN of a real input.
type runInput struct {
	name    string
	tree    func(e *env, ctx context.Context) (string, error)
	env     []string
	workdir string
	before  string // a command that runs once, before: a cached RUN, a lower directory
	command string
}

var (
	aptInput = runInput{
		name: "apt", tree: (*env).aptTree, env: []string{systemPath}, workdir: "/",
		command: "apt-get install -y --no-install-recommends " + aptPackages,
	}
	npmInput = runInput{
		name: "npm", tree: (*env).npmTree, env: npmEnv, workdir: "/app", command: npmCI,
	}
	npmBuildInput = runInput{
		name: "npm", tree: (*env).npmTree, env: npmEnv, workdir: "/app", before: npmCI,
		command: "npm test && npm run build && npm prune --omit=dev",
	}
	goInput = runInput{
		name: "go", tree: (*env).goTree, workdir: "/src",
		env:     []string{"PATH=/usr/local/go/bin:/bin", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "GOPROXY=off"},
		command: "go vet ./... && go test ./... && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/pack .",
	}

	npmCI  = "npm ci --prefer-offline"
	npmEnv = []string{systemPath, "NPM_CONFIG_UPDATE_NOTIFIER=false", "NPM_CONFIG_AUDIT=false", "NPM_CONFIG_FUND=false"}
)

// openRun prepares a RUN: base in the store, the same base as a lower directory.
func openRun(in runInput) func(context.Context, *env, group) (*bench, error) {
	return func(ctx context.Context, e *env, g group) (*bench, error) {
		dir, err := in.tree(e, ctx)
		if err != nil {
			return nil, err
		}
		layer, err := e.treeLayer(ctx, in.name, dir)
		if err != nil {
			return nil, err
		}
		ref, err := e.push(ctx, "run-"+in.name, v1.Config{Env: in.env, WorkingDir: in.workdir}, layer)
		if err != nil {
			return nil, err
		}
		r := &runBench{env: e, in: in, lower: dir, dir: filepath.Join(e.work, g.name)}
		if err := r.prepare(ctx, ref); err != nil {
			return nil, errors.Join(err, r.close())
		}
		version := e.host.Versions["fbuild"]
		return &bench{close: r.close, sides: []side{
			{name: fbuildSide, version: version, run: r.fbuild("fuse")},
			{name: overlaySide, version: e.host.Kernel, run: r.overlay(false)},
			{name: walkSide, version: version, run: r.fbuild("walk")},
			{name: volatileSide, version: e.host.Kernel, run: r.overlay(true)},
		}}, nil
	}
}

type runBench struct {
	env        *env
	in         runInput
	dir, lower string
}

func (r *runBench) close() error { return os.RemoveAll(r.dir) }

// prepare reads the base into the store, and does what runs before.
func (r *runBench) prepare(ctx context.Context, ref string) error {
	if err := fresh(r.dir); err != nil {
		return err
	}
	head := "FROM " + ref + "\n"
	if r.in.before != "" {
		head += "RUN " + r.in.before + "\n"
	}
	for name, text := range map[string]string{
		"prime": head + "RUN true\n",
		// The argument is in the key of the RUN: nothing below it runs again.
		"Dockerfile": head + "ARG ROUND\nRUN " + r.in.command + "\n",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write Dockerfile: %w", err)
		}
	}
	if err := openDirs(filepath.Join(r.dir, "context")); err != nil {
		return err
	}
	if err := r.env.must(ctx, r.argv("prime", "fuse")); err != nil {
		return err
	}
	if r.in.before != "" {
		top := filepath.Join(r.dir, "before")
		if _, err := r.runOverlay(ctx, meter{every: time.Second}, top, r.in.before, false); err != nil {
			return err
		}
		r.lower = filepath.Join(top, "upper") + ":" + r.lower
	}
	// Both sides start with their base in the page cache.
	_, err := r.runOverlay(ctx, meter{every: time.Second}, filepath.Join(r.dir, "warm"), "find / -xdev -type f -exec cat {} + >/dev/null", false)
	return err
}

func (r *runBench) argv(dockerfile, recorder string, args ...string) []string {
	argv := []string{
		r.env.fbuild, "--root", filepath.Join(r.dir, "store"), "build", "--progress=plain",
		"--network=none", "--recorder=" + recorder, "-f", filepath.Join(r.dir, dockerfile),
	}
	return append(append(argv, args...), filepath.Join(r.dir, "context"))
}

func (r *runBench) fbuild(recorder string) func(context.Context, meter, string, int) (sample, error) {
	return func(ctx context.Context, m meter, _ string, round int) (sample, error) {
		u, err := m.run(ctx, r.env.command(ctx, r.argv("Dockerfile", recorder, fmt.Sprintf("--build-arg=ROUND=%s-%d", recorder, round))))
		if err != nil {
			return sample{}, err
		}
		step, err := lastStep(u.stderr)
		return sample{usage: u, compared: step}, err
	}
}

func (r *runBench) overlay(volatile bool) func(context.Context, meter, string, int) (sample, error) {
	return func(ctx context.Context, m meter, _ string, _ int) (sample, error) {
		dir := filepath.Join(r.dir, "overlay")
		u, err := r.runOverlay(ctx, m, dir, r.in.command, volatile)
		return sample{usage: u}, errors.Join(err, os.RemoveAll(dir))
	}
}

func (r *runBench) runOverlay(ctx context.Context, m meter, dir, command string, volatile bool) (usage, error) {
	if err := fresh(dir); err != nil {
		return usage{}, err
	}
	cmd, err := r.env.overlayCommand(ctx, overlaySpec{
		Lower: r.lower, Dir: dir, Volatile: volatile, Workdir: r.in.workdir, Command: command,
		Env: append([]string{"HOME=/root", "ROUND=0"}, r.in.env...),
	})
	if err != nil {
		return usage{}, err
	}
	return m.run(ctx, cmd)
}

var (
	stepHead = regexp.MustCompile(`(?m)^#(\d+) \[[^]]*\] RUN `)
	stepDone = regexp.MustCompile(`(?m)^#(\d+) DONE (\d+\.\d)s$`)
)

// lastStep finds how long the last RUN of a plain log took, which must have run.
// The log says tenths of a second: of the steps measured here a per cent or so.
func lastStep(log string) (time.Duration, error) {
	heads := stepHead.FindAllStringSubmatch(log, -1)
	if len(heads) == 0 {
		return 0, fmt.Errorf("find RUN in the log:\n%s", tail(log, 15))
	}
	last := heads[len(heads)-1][1]
	for _, h := range heads { // numbers rise, turns of the printer may not
		if number(h[1]) > number(last) {
			last = h[1]
		}
	}
	for _, d := range stepDone.FindAllStringSubmatch(log, -1) {
		if d[1] == last {
			return time.ParseDuration(strings.TrimSpace(d[2]) + "s")
		}
	}
	return 0, fmt.Errorf("the RUN to measure did not run:\n%s", tail(log, 15))
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

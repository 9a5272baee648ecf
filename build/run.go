package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// hostname is what every RUN sees (LAWS 8: constant).
const hostname = "buildkitsandbox"

// runStep runs a command on the stage's tree, or finds its result.
func (r *stageRun) runStep(ctx context.Context, s *state, in *dockerfile.Run, step *progress.Step) (result, bool, error) {
	b := r.b
	network, err := b.network(in.Network)
	if err != nil {
		return result{}, false, err
	}
	mounts, err := r.lookMounts(ctx, in, step)
	if err != nil {
		return result{}, false, err
	}
	defer mounts.close()
	run := b.runKey(s, in, network)
	key := mounts.key(run)
	if in.Exact {
		ctx = context.WithValue(ctx, onlyExact{}, true)
	}
	res, unlock, err := b.reuse(ctx, key, s.fs)
	if err != nil || unlock == nil {
		s.key = key
		r.rep.reusedRun(res.record)
		return res, true, err
	}
	tr, hit, err := r.traceRun(ctx, s, in, network, mounts, key, step)
	if err != nil {
		unlock()
		return result{}, false, err
	}
	if hit != nil && !b.opts.CacheCheck {
		s.key = key
		return tr.adopt(hit, unlock), true, nil
	}
	step.Start()
	if hit != nil {
		step.Note("runs: --cache-check")
	} else {
		if err := r.runs(ctx); err != nil {
			unlock()
			return result{}, false, err
		}
		step.Note(r.rep.note())
	}
	tr.foresee(ctx)
	out, err := b.runCommand(ctx, s, in, network, mounts)
	if err != nil {
		unlock()
		return result{}, false, err
	}
	s.key = mounts.key(run) // of the bytes that were mounted
	if hit != nil {
		err := tr.check(hit, out, func() (*ran, error) { return b.runCommand(ctx, s, in, network, mounts) })
		if err != nil {
			unlock()
			return result{}, false, err
		}
		return tr.adopt(hit, unlock), true, nil
	}
	return tr.commitRun(ctx, s, mounts, out, unlock), false, nil
}

// network chooses the mode of a RUN: its own, else the build's. Without root
// there is the host's network or none; "default" is the host's.
func (b *builder) network(mode string) (string, error) {
	if mode == "" || mode == "default" {
		mode = b.opts.Network
	}
	switch mode {
	case "", "default", "host":
		return "host", nil
	case "none":
		return "none", nil
	}
	return "", fmt.Errorf("network mode %q is not supported: use default, host or none", mode)
}

// runKey is docker's exact key: the chain below, and everything of the step that
// a command can see.
func (b *builder) runKey(s *state, in *dockerfile.Run, network string) Key {
	return b.runFields(newKey("run").str(string(s.key)), s, in, network).sum()
}

// runCommand runs the step on the chosen recorder, and with --recorder=auto again on
// the next one down the ladder if the recorder, not the command, failed.
func (b *builder) runCommand(ctx context.Context, s *state, in *dockerfile.Run, network string, mounts *mountSet) (*ran, error) {
	kind, err := b.run.kind(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := b.run.runs(ctx, s.cfg); err != nil {
		return nil, err
	}
	if err := mounts.fill(ctx); err != nil {
		return nil, err
	}
	for {
		cs, err := b.runOn(ctx, kind, s, in, network, mounts)
		var broken *recorderError
		if lerr := b.lazyFailure(); err != nil && lerr != nil && ctx.Err() == nil {
			return nil, lerr // whatever the command made of it
		}
		if b.opts.Recorder != RecorderAuto || !errors.As(err, &broken) || ctx.Err() != nil {
			return cs, maybeForeign(s.cfg, err)
		}
		next, nerr := b.run.below(ctx, b, kind)
		if next == "" || nerr != nil {
			return nil, errors.Join(err, nerr)
		}
		mounts.step.Warn(fmt.Sprintf("the %s recorder failed (%v): running the step again with %s", kind, broken.err, next))
		kind = next
	}
}

// ErrRecorder is in the error of a step whose recorder failed: its command may be innocent.
var ErrRecorder = errors.New("the recorder failed")

type recorderError struct{ err error }

func (e *recorderError) Error() string   { return "recorder: " + e.err.Error() }
func (e *recorderError) Unwrap() []error { return []error{ErrRecorder, e.err} }

// runOn runs the command with one recorder and returns what it changed.
func (b *builder) runOn(ctx context.Context, kind string, s *state, in *dockerfile.Run, network string, mounts *mountSet) (_ *ran, err error) {
	step := mounts.step
	sandbox, err := b.run.sandbox(ctx)
	if err != nil {
		return nil, err
	}
	rec, err := b.run.recorder(ctx, b, kind)
	if err != nil {
		return nil, err
	}
	held, err := mounts.serve(ctx, rec, sandbox)
	defer func() {
		if broke := held.end(ctx); broke != nil && ctx.Err() == nil {
			err = &recorderError{broke}
		}
	}()
	if err != nil {
		return nil, err
	}
	held.traced = b.tracing() && !in.Exact
	p, err := b.prepareRun(ctx, s, in, network, held)
	if err != nil {
		return nil, err
	}
	if kind != RecorderFUSE {
		if err := b.completeLazies(ctx); err != nil {
			return nil, err
		}
	}
	root, err := rec.Mount(ctx, p.mount)
	if err != nil {
		return nil, &recorderError{err}
	}
	if b.opts.ShmSize != 0 && sandbox.Isolation() == exec.IsolationChroot {
		b.warn("--shm-size: in a chroot /dev/shm is a directory, whose size is not limited")
	}
	spec := p.spec
	spec.Root = root
	stdout, stderr := newMasker(logWriter{step, 1}, held.secrets), newMasker(logWriter{step, 2}, held.secrets)
	spec.Stdout, spec.Stderr = stdout, stderr
	out := &ran{parent: p.parent}
	spec.OnNetwork = func() { out.network = true }
	ahead := b.compressAhead(ctx, rec, kind, p.mount.ID)
	began := time.Now()
	err = rec.during(ctx, func(ctx context.Context) error { return sandbox.Run(ctx, spec) })
	out.took, out.ended = time.Since(began), time.Now()
	out.ahead = ahead.end()
	stdout.flush()
	stderr.flush()
	if err != nil {
		aborted := rec.Abort(context.WithoutCancel(ctx), p.mount.ID)
		if ctx.Err() == nil && aborted != nil { // its root broke under the command
			return nil, &recorderError{aborted}
		}
		b.warnIfFull(step)
		return nil, err
	}
	end, err := rec.FinishOn(ctx, p.mount.ID, p.root)
	if err != nil {
		return nil, &recorderError{err}
	}
	res := end.Result
	for _, n := range res.Notes {
		step.Warn(n)
	}
	if err := out.looked(ctx, p, end, held); err != nil {
		return nil, &recorderError{err}
	}
	out.changes, out.after, out.pack = res.Changes, end.After, res.Pack
	if p.extra != nil {
		out.after = tree.Tree{} // of other changes
		out.changes, err = b.joinChanges(p.parent, p.extra, res.Changes)
	}
	if b.opts.tamper != nil {
		b.opts.tamper(out)
		out.after = tree.Tree{}
	}
	return out, err
}

// nearlyFull is how little room on the store's disk explains a failing command.
const nearlyFull = 16 << 20

// warnIfFull says so where a command may have failed for want of room: what it
// writes lands in the store.
func (b *builder) warnIfFull(step *progress.Step) {
	var st unix.Statfs_t
	if err := unix.Statfs(b.store.Dir(), &st); err == nil && st.Bavail*uint64(st.Bsize) < nearlyFull {
		step.Warn("the disk of the store, " + b.store.Dir() + ", is full: fbuild cache prune makes room")
	}
}

// joinChanges makes one difference of two that follow each other.
func (b *builder) joinChanges(parent tree.Tree, first, second tree.Changes) (tree.Changes, error) {
	mid, err := parent.Apply(first)
	if err != nil {
		return nil, err
	}
	after, err := mid.Apply(second)
	if err != nil {
		return nil, err
	}
	return tree.Diff(parent, after, b.same)
}

type logWriter struct {
	step   *progress.Step
	stream int
}

func (w logWriter) Write(p []byte) (int, error) {
	w.step.Log(w.stream, p)
	return len(p), nil
}

// prepared is all that one RUN needs.
type prepared struct {
	parent tree.Tree
	root   tree.Tree    // what the recorder shows: parent and extra
	extra  tree.Changes // the working directory, where the image lacks it
	mount  recorder.Spec
	spec   exec.Spec
	asked  []trace.Question // what preparing it looked at
}

func (b *builder) prepareRun(ctx context.Context, s *state, in *dockerfile.Run, network string, held *served) (*prepared, error) {
	began := time.Now()
	t, err := s.fs.Tree(ctx, b)
	if err != nil {
		return nil, err
	}
	held.set.step.Waited(time.Since(began)) // for a base that was on its way
	files, err := s.fs.files(ctx, b)
	if err != nil {
		return nil, err
	}
	acc, err := lookupUser(t, b.store.Packs(), s.cfg.Config.User)
	if err != nil {
		return nil, err
	}
	dir := s.cfg.Config.WorkingDir
	if dir == "" {
		dir = "/"
	}
	p := &prepared{parent: t, asked: askUser(t)}
	p.asked = append(p.asked, askWorkdir(t, dir)...)
	// Of no time: nothing of the clock may be in a layer that has no key for it.
	if p.extra, err = b.makeWorkdir(ctx, s, dir, tree.Time{}); err != nil {
		return nil, err
	}
	if len(p.extra) > 0 {
		name, err := b.writeIndex(p.extra)
		if err != nil {
			return nil, err
		}
		files = append(files, name)
		if t, err = t.Apply(p.extra); err != nil {
			return nil, err
		}
	}
	p.root = t
	work, err := mkdirIn(b.temp, "run-")
	if err != nil {
		return nil, err
	}
	p.spec = exec.Spec{
		Args: in.Args, Env: runEnv(s.scope.RunEnv(), acc.Home), Dir: dir,
		UID: acc.UID, GID: acc.GID, Groups: acc.Groups, Hostname: hostname, Network: network,
		Limits: b.opts.Limits, ShmSize: b.opts.ShmSize,
	}
	p.spec.Env = held.environ(p.spec.Env)
	stubs, err := b.mounts(ctx, t, in, held, p)
	if err != nil {
		return nil, err
	}
	p.mount = recorder.Spec{
		ID: filepath.Base(work), Layers: files, Stubs: stubs, PackDir: b.store.Packs().Dir(), WorkDir: work, TreeDir: b.store.TreeDir(),
		Trace: held.traced,
	}
	return p, nil
}

// runEnv adds what docker's runtime sets where the image does not.
func runEnv(env []string, home string) []string {
	hasHome, hasPath := false, false
	for _, e := range env {
		hasHome = hasHome || strings.HasPrefix(e, "HOME=")
		hasPath = hasPath || strings.HasPrefix(e, "PATH=")
	}
	if !hasPath {
		env = append([]string{"PATH=" + defaultPath}, env...)
	}
	if !hasHome {
		if home == "" {
			home = "/"
		}
		env = append(env, "HOME="+home)
	}
	return env
}

// mounts adds what a RUN finds mounted and returns what must exist in the tree for
// it. Symlinks of the image are resolved inside it.
func (b *builder) mounts(ctx context.Context, t tree.Tree, in *dockerfile.Run, held *served, p *prepared) ([]recorder.Stub, error) {
	var stubs []recorder.Stub
	for _, dir := range kernelDirs {
		p.asked = append(p.asked, trace.Question{Path: dir, Kind: trace.Entry})
		n := t.Lookup(dir)
		if n != nil && n.Kind != tree.Dir {
			return nil, fmt.Errorf("/%s of the image is not a directory", dir)
		}
		if n == nil {
			stubs = append(stubs, recorder.Stub{Path: dir, Dir: true})
		}
	}
	own, err := b.own(in)
	if err != nil {
		return nil, err
	}
	own = append(own, held.places...)
	places, more, err := plan(t, own)
	p.asked = append(p.asked, askPlaces(t, own, places)...)
	if err == nil {
		err = held.bind(ctx, places)
	}
	if err != nil {
		return nil, err
	}
	for _, place := range places {
		p.spec.Mounts = append(p.spec.Mounts, place.mount)
	}
	return append(stubs, more...), nil
}

func (b *builder) writeScript(s *dockerfile.Script) (string, error) {
	f, err := os.CreateTemp(b.temp, "script-")
	if err != nil {
		return "", fmt.Errorf("write heredoc: %w", err)
	}
	_, err = f.WriteString(s.Data)
	err = errors.Join(err, f.Chmod(os.FileMode(s.Mode)), f.Close())
	if err != nil {
		return "", fmt.Errorf("write heredoc: %w", err)
	}
	return f.Name(), nil
}

// isolationClass says which ids a RUN sees, and whether it has a /proc and devices
// of its own: a builder with one id, or without namespaces, must not serve another
// (LAWS 8). It is what the host promises; nothing is started.
func isolationClass(isolation string) string {
	// Where nothing can be run, only results of the usual kind can be of use.
	if kind, err := exec.Choose(isolation); err == nil && kind == exec.IsolationChroot {
		return kind
	}
	m, err := reexec.HostMap(false)
	if err == nil && m.Class == reexec.ClassSingle {
		return string(m.Class)
	}
	return "ids"
}

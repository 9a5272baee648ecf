package build

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// state is where a stage stands: a file system, the key that names it, and the
// image configuration so far.
type state struct {
	fs  *fsState
	key Key
	// base names the image that the stage started from, and barrier what remote sources
	// gave since, for the identities of later steps.
	base, barrier Key
	cfg           v1.ConfigFile
	scope         *dockerfile.Scope
	// baseHistory counts the history entries of the base image, which keep their
	// times.
	baseHistory   int
	startInterval time.Duration // the health check's, which v1.HealthConfig lacks
}

// stageRun is one stage being built.
type stageRun struct {
	b     *builder
	stage *dockerfile.Stage
	total int // steps that touch the file system, for [3/7]
	at    int
	done  chan struct{}
	out   *state
	err   error
	pull  *pull       // shows the fetching of the base image; nil without one
	rep   *StepReport // of the instruction that is being done
}

// stage starts a stage unless that has happened, and returns it.
func (b *builder) stage(st *dockerfile.Stage) *stageRun {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.stages[st]
	if r == nil {
		r = &stageRun{b: b, stage: st, done: make(chan struct{})}
		b.stages[st] = r
		b.group.Go(func() error {
			defer close(r.done)
			r.out, r.err = r.run(b.groupCtx)
			if b.planning() && errors.Is(r.err, errPlanned) {
				return nil // the other stages go on
			}
			if r.err != nil {
				b.cancel(r.err) // commands that wait for contents of their base end as well
			}
			return r.err
		})
	}
	return r
}

// wait returns the stage's end.
func (r *stageRun) wait(ctx context.Context) (*state, error) {
	select {
	case <-r.done:
		return r.out, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *stageRun) run(ctx context.Context) (*state, error) {
	if slices.ContainsFunc(r.b.opts.NoCacheFilter, func(name string) bool { return strings.EqualFold(name, r.stage.Label()) }) {
		ctx = context.WithValue(ctx, freshKey{}, true)
	}
	s, triggers, err := r.start(ctx)
	if err != nil && r.b.planning() && ctx.Err() == nil {
		return nil, r.baseMay(err)
	}
	if err != nil {
		return nil, err
	}
	defer r.pull.end()
	r.b.opts.tracks.begin(r.stage)
	r.b.mu.Lock()
	r.b.scopes = append(r.b.scopes, s.scope)
	r.b.mu.Unlock()
	all := slices.Concat(triggers, r.stage.Instructions)
	for i, in := range all {
		if err := r.instruction(ctx, s, in); err != nil {
			if r.b.planning() && ctx.Err() == nil {
				r.restMay(s, all[i+1:], WhyBelow)
			}
			return nil, err
		}
	}
	return s, nil
}

// start gives the stage its base: another stage, nothing, a named context or an
// image, with the ONBUILD triggers that the image carries.
func (r *stageRun) start(ctx context.Context) (*state, []dockerfile.Instruction, error) {
	b, st := r.b, r.stage
	r.total = countSteps(st.Instructions)
	if st.BaseStage != nil {
		below, err := b.stage(st.BaseStage).wait(ctx)
		if err != nil {
			return nil, nil, err
		}
		s := *below
		s.cfg = cloneConfig(below.cfg)
		s.cfg.Config.OnBuild = nil
		s.scope = dockerfile.NewScope(b.opts.File, dockerfile.ScopeOptions{Parent: below.scope})
		return &s, nil, nil
	}
	platform, err := b.platform(st.Platform)
	if err != nil {
		return nil, nil, r.failed(st.Loc, st.Original, err)
	}
	if st.BaseName == dockerfile.Scratch && st.Context == "" {
		s := &state{fs: &fsState{}, key: scratchKey(), base: scratchKey(), cfg: emptyConfig(platform)}
		s.scope = r.scope(s)
		return s, nil, nil
	}
	r.total++
	bs, err := r.base(ctx, platform)
	if err != nil {
		return nil, nil, r.failed(st.Loc, st.Original, err)
	}
	s := &state{fs: bs.fs, key: bs.key, base: bs.key, cfg: cloneConfig(bs.cfg), baseHistory: len(bs.cfg.History), startInterval: bs.startInterval}
	triggers, err := b.opts.File.ParseOnBuild(st, s.cfg.Config.OnBuild)
	if err != nil {
		return nil, nil, err
	}
	s.cfg.Config.OnBuild = nil
	b.seeCaches(triggers)
	r.total += countSteps(triggers)
	s.scope = r.scope(s)
	return s, triggers, nil
}

func (r *stageRun) scope(s *state) *dockerfile.Scope {
	c := s.cfg.Config
	return dockerfile.NewScope(r.b.opts.File, dockerfile.ScopeOptions{BaseEnv: c.Env, BaseWorkdir: c.WorkingDir, BaseShell: c.Shell})
}

func countSteps(list []dockerfile.Instruction) int {
	n := 0
	for _, in := range list {
		switch in.(type) {
		case *dockerfile.Run, *dockerfile.Copy, *dockerfile.Add, *dockerfile.Workdir:
			n++
		}
	}
	return n
}

// title numbers a step as BuildKit does. scope is nil for a FROM.
func (r *stageRun) title(scope *dockerfile.Scope, text string) string {
	r.at++
	name := r.platformTitle(scope)
	if len(r.b.opts.File.Stages) > 1 {
		name += r.stage.Label() + " "
	}
	width := 1 + int(math.Log10(float64(max(1, r.total))))
	return fmt.Sprintf("[%s%*d/%d] %s", name, width, r.at, r.total, text)
}

// platformTitle says, of a build for several platforms, which one a step is for, as
// BuildKit does: "linux/arm64 ", and "linux/amd64->arm64 " where the stage is of one
// platform and asks for another.
func (r *stageRun) platformTitle(scope *dockerfile.Scope) string {
	target := r.b.opts.Platform
	if r.b.opts.titles == "" {
		return ""
	}
	own, err := r.b.platform(r.stage.Platform)
	if err != nil {
		return r.b.opts.titles + " "
	}
	text := own.String()
	if own.String() != target.String() && asksTarget(scope) {
		cross := target.Architecture
		switch {
		case own.OS != target.OS:
			cross = target.String()
		case target.Variant != "":
			cross += "/" + target.Variant
		}
		text += "->" + cross
	}
	return text + " "
}

// asksTarget says whether a stage declares what it is built for.
func asksTarget(scope *dockerfile.Scope) bool {
	return scope != nil && slices.ContainsFunc(scope.Args(), func(a dockerfile.KeyValue) bool { return strings.HasPrefix(a.Key, "TARGET") && a.Key != "TARGETSTAGE" })
}

func (r *stageRun) failed(loc dockerfile.Location, text string, err error) error {
	return &StepError{Stage: r.stage.Label(), Location: loc, Instruction: text, Err: err}
}

// instruction takes the stage one instruction further.
func (r *stageRun) instruction(ctx context.Context, s *state, raw dockerfile.Instruction) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	title := s.scope.Title(raw)
	in, err := s.scope.Expand(raw)
	if err != nil {
		return err
	}
	if r.b.opts.lint {
		lintInstruction(s, in)
		return nil
	}
	createdBy := s.scope.CreatedBy(in)
	if h, ok := in.(*dockerfile.Healthcheck); ok {
		s.startInterval = h.Health.StartInterval
	}
	if setConfig(&s.cfg, in) {
		if createdBy != "" {
			addHistory(&s.cfg, createdBy, nil, true)
		}
		return nil
	}
	step := r.b.opts.Progress.Step(r.title(s.scope, title))
	rep := r.beginReport(s, in, title)
	res, cached, err := r.step(ctx, s, in, step)
	if err != nil && r.b.planning() && ctx.Err() == nil {
		return rep.stops(err)
	}
	if ctx.Err() == nil { // else it neither failed nor ended
		rep.end(s, res, cached, err)
	}
	if err != nil {
		if ctx.Err() != nil { // another step failed, or the caller gave up
			step.Canceled()
			return err
		}
		err = r.stepError(in, title, err)
		step.Done(err)
		return err
	}
	if cached {
		step.CachedBecause(rep.cachedHow())
	} else {
		if rep.copies() { // which find out late that they must be done
			_ = r.runs(ctx) // of a plan as well: its files are known
		}
		step.Done(nil)
	}
	if run, ok := in.(*dockerfile.Run); ok {
		if err := r.b.opts.tracks.runs(ctx, r.b, r.stage, run, r.rep, res); err != nil {
			return err
		}
	}
	if !cached {
		r.b.early.layer(r.b, r.stage, res.layer) //nolint:contextcheck // it outlives the steps, not the build
	}
	s.fs = s.fs.push(res.layer)
	addHistory(&s.cfg, createdBy, &res.created, res.layer == nil)
	return nil
}

func (r *stageRun) stepError(in dockerfile.Instruction, title string, err error) error {
	e := &StepError{Stage: r.stage.Label(), Location: in.Location(), Instruction: title, Err: err}
	var mount *MountError
	if run, ok := in.(*dockerfile.Run); ok && !errors.As(err, &mount) {
		e.Command = strings.Join(run.Args, " ")
	}
	return e
}

// step does one step that touches the file system.
func (r *stageRun) step(ctx context.Context, s *state, in dockerfile.Instruction, step *progress.Step) (result, bool, error) {
	switch in := in.(type) {
	case *dockerfile.Run:
		return r.runStep(ctx, s, in, step)
	case *dockerfile.Copy:
		return r.copyStep(ctx, s, in, step)
	case *dockerfile.Add:
		return r.addStep(ctx, s, in, step)
	case *dockerfile.Workdir:
		return r.workdirStep(ctx, s, in, step)
	}
	return result{}, false, fmt.Errorf("%s is not supported", in.Keyword())
}

// freshKey marks the context of a stage that NoCacheFilter names.
type freshKey struct{}

// fresh says whether steps run again although their results are known.
func (b *builder) fresh(ctx context.Context) bool {
	return b.opts.NoCache || ctx.Value(freshKey{}) != nil
}

// reuse looks for the result of key, holding the key's lock where there is none,
// so that of several builds one runs the step and the others adopt its result.
// unlock is nil for a hit.
func (b *builder) reuse(ctx context.Context, key Key, below *fsState) (res result, unlock func(), err error) {
	if !b.fresh(ctx) {
		if res, ok := b.recorded(ctx, key, below); ok {
			b.offer(key, below, res)
			return res, nil, nil
		}
	}
	if b.planning() {
		return result{}, func() {}, nil
	}
	unlock, err = b.store.Lock(ctx, "step-"+string(key))
	if err != nil {
		return result{}, nil, err
	}
	if b.family.claim(key) || !b.fresh(ctx) {
		if res, ok := b.recorded(ctx, key, below); ok {
			unlock()
			b.keepStep(key, below, res)
			return res, nil, nil
		}
	}
	if !b.fresh(ctx) {
		if res, ok := b.adopt(ctx, key, below); ok {
			unlock()
			return res, nil, nil
		}
	}
	return result{}, unlock, nil
}

// workdirStep makes the working directory where the tree lacks it.
func (r *stageRun) workdirStep(ctx context.Context, s *state, in *dockerfile.Workdir, step *progress.Step) (result, bool, error) {
	s.cfg.Config.WorkingDir = in.Path
	key := newKey("workdir").str(string(s.key)).str(in.Path).str(s.cfg.Config.User).str(r.b.epochKey()).sum()
	res, unlock, err := r.b.reuse(ctx, key, s.fs)
	s.key = key
	if err != nil || unlock == nil {
		return res, true, err
	}
	tr := &tracer{b: r.b, rep: r.rep, step: step, key: key, base: s.base, below: s.fs}
	tr.id = r.b.workdirIdentity(s, in.Path)
	hit, err := tr.findUnless(ctx, !r.b.tracing())
	if err != nil {
		unlock()
		return result{}, false, err
	}
	if hit != nil && !r.b.opts.CacheCheck {
		return tr.adopt(hit, unlock), true, nil
	}
	step.Start()
	if hit == nil {
		_ = r.runs(ctx) // of a plan as well: what it gives is known
	}
	cs, err := r.b.makeWorkdir(ctx, s, in.Path, tree.TimeOf(r.b.now()).Truncate())
	if err == nil && hit != nil {
		err = tr.checkChanges(hit, cs)
	}
	if err != nil {
		unlock()
		return result{}, false, err
	}
	if hit != nil {
		return tr.adopt(hit, unlock), true, nil
	}
	return tr.commitEdit(ctx, s.fs, cs, unlock, nil, func(t tree.Tree) []trace.Question {
		asked := askWorkdir(t, in.Path)
		if len(cs) > 0 {
			asked = append(asked, askUser(t)...)
		}
		return asked
	}), false, nil
}

// makeWorkdir returns the changes that make a directory, owned by the user in
// force as BuildKit has it; none if it is there.
func (b *builder) makeWorkdir(ctx context.Context, s *state, dir string, now tree.Time) (tree.Changes, error) {
	t, err := s.fs.Tree(ctx, b)
	if err != nil {
		return nil, err
	}
	p, n, err := t.Resolve(tree.Clean(dir))
	if err != nil {
		return nil, err
	}
	if n != nil {
		if n.Kind != tree.Dir {
			return nil, fmt.Errorf("working directory %q is not a directory", dir)
		}
		return nil, nil
	}
	acc, err := lookupUser(t, b.store.Packs(), s.cfg.Config.User)
	if err != nil && !errors.Is(err, errNoAccount) { // docker makes it root's; a RUN will fail
		return nil, err
	}
	e := t.Edit()
	c := newCopier(e, copySpec{Owner: &owner{acc.UID, acc.GID}, DirMode: 0o755, Now: now})
	if err := c.mkdirAll(p); err != nil {
		return nil, err
	}
	return tree.Diff(t, e.Tree(), b.same)
}

// platform reads the --platform of a FROM; "" is the target's.
func (b *builder) platform(text string) (v1.Platform, error) {
	if text == "" {
		return b.opts.Platform, nil
	}
	p, err := v1.ParsePlatform(text)
	if err != nil {
		return v1.Platform{}, err
	}
	return *p, nil
}

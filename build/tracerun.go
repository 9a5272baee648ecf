package build

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// traceRun looks for an earlier result of a RUN whose exact key is not known.
func (r *stageRun) traceRun(ctx context.Context, s *state, in *dockerfile.Run, network string, mounts *mountSet, key Key, step *progress.Step) (*tracer, *traceHit, error) {
	b := r.b
	t := &tracer{b: b, rep: r.rep, step: step, key: key, base: s.base, below: s.fs, mounts: mounts}
	switch {
	case !b.tracing():
		r.rep.Doubt = "--trace=off"
	case in.Exact:
		r.rep.Doubt = "# fbuild: cache=exact"
	default:
		t.id = b.runIdentity(s, in, network, mounts)
	}
	hit, err := t.findUnless(ctx, t.id == "")
	return t, hit, err
}

// findUnless is find, but where results are not to be used or have no traces.
func (t *tracer) findUnless(ctx context.Context, off bool) (*traceHit, error) {
	if off || t.b.fresh(ctx) {
		return nil, nil
	}
	return t.find(ctx)
}

// reusedRun reports what is stored of a result that was found by its exact key.
func (rep *StepReport) reusedRun(rec stepRecord) {
	rep.Took, rep.UsedNetwork = rec.Took, rec.Network
	if !rec.Ran.IsZero() {
		rep.Ran = rec.Ran
	}
}

// commitRun stores what a command did, and behind it the trace. Where an earlier run
// gave the same, its layer is used.
func (t *tracer) commitRun(ctx context.Context, s *state, mounts *mountSet, out *ran, unlock func()) result {
	c := commitment{key: s.key, below: s.fs, changes: out.changes, on: out.parent, after: out.after, unlock: unlock, ran: out, title: t.rep.Title}
	t.rep.Took, t.rep.Ran, t.rep.UsedNetwork = out.took, out.ended, out.network
	if t.id == "" || t.b.planning() {
		return t.b.commitStep(c)
	}
	t.rep.Identity = string(t.id)
	if c.earlier = t.earlier(ctx, out.parent, out.changes); c.earlier != nil {
		t.b.dropPack(out.pack)
	}
	if t.rep.Doubt == "" {
		roots := []tree.Tree{out.parent}
		for _, m := range mounts.binds() {
			roots = append(roots, m.view.tree)
		}
		c.trace = &pendingTrace{id: t.id, base: t.base, roots: roots, later: out.asked, rep: t.rep}
		if t.b.opts.tamper == nil { // what a test takes away would be missed
			c.trace.changes = out.changes
		}
	}
	return t.b.commitStep(c)
}

// commitEdit stores the result of an edit of what stands below: a COPY, ADD or WORKDIR.
// ask returns what it looked at there.
func (t *tracer) commitEdit(ctx context.Context, below *fsState, cs tree.Changes, unlock func(), stored func(stepRecord), ask func(tree.Tree) []trace.Question) result {
	c := commitment{key: t.key, below: below, changes: cs, unlock: unlock, stored: stored, title: t.rep.Title}
	if t.id == "" || !t.b.tracing() || t.b.planning() {
		return t.b.commitStep(c)
	}
	t.rep.Identity = string(t.id)
	parent, err := below.Tree(ctx, t.b) // made already
	if err == nil {
		c.trace = &pendingTrace{id: t.id, base: t.base, roots: []tree.Tree{parent}, asked: ask(parent), rep: t.rep, changes: cs}
	}
	return t.b.commitStep(c)
}

// check compares what a command did with the earlier result that stands for it: this
// is --cache-check. What two runs in a row do otherwise depends on more than a trace
// can see (a clock, chance), and is only told. again runs the command once more.
func (t *tracer) check(hit *traceHit, out *ran, again func() (*ran, error)) error {
	defer t.b.dropPack(out.pack)
	diffs, err := t.b.compareLayers(hit.changes, out.changes, maxDifferences)
	if err != nil || len(diffs) == 0 {
		return err
	}
	second, err := again()
	if err != nil {
		return err
	}
	defer t.b.dropPack(second.pack)
	vary, err := t.b.compareLayers(out.changes, second.changes, len(out.changes)+len(second.changes)+1)
	if err != nil {
		return err
	}
	varies := map[string]bool{}
	for _, d := range vary {
		varies[d.path] = true
	}
	diffs = slices.DeleteFunc(diffs, func(d layerDifference) bool {
		if varies[d.path] {
			t.step.Warn(fmt.Sprintf("cache check: /%s is another in each run: not compared", d.path))
		}
		return varies[d.path]
	})
	return t.checked(hit, diffs)
}

// checkChanges is check of a step that runs no command.
func (t *tracer) checkChanges(hit *traceHit, cs tree.Changes) error {
	diffs, err := t.b.compareLayers(hit.changes, cs, maxDifferences)
	if err != nil {
		return err
	}
	return t.checked(hit, diffs)
}

// CheckError says that a step gave another result than the one that its trace led to.
type CheckError struct {
	Identity, Trace string
	Differences     []string
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("cache check: the step gives another result than the one that its trace %.12s led to (identity %.12s):\n%s",
		e.Trace, e.Identity, strings.Join(e.Differences, "\n"))
}

func (t *tracer) checked(hit *traceHit, diffs []layerDifference) error {
	if len(diffs) == 0 {
		return nil
	}
	e := &CheckError{Identity: string(t.id), Trace: hit.Trace}
	for _, d := range diffs {
		e.Differences = append(e.Differences, fmt.Sprintf("/%s: reused %s; now %s", d.path, d.was, d.is))
	}
	return e
}

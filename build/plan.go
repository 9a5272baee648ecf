package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// Plan says what a build would do now: which steps it would reuse, and which is the
// first of each stage that it would run, with the reason. Nothing is run, fetched or
// stored but digests in the stat cache of the context. What stands above a step that
// would run is VerdictMay. A fault of the Dockerfile or the context that a build would
// meet is in the report.
func Plan(ctx context.Context, o Options) (*Report, error) {
	quiet, err := progress.New(progress.Options{Mode: progress.None})
	if err != nil {
		return nil, err
	}
	plan := &planned{}
	o.plan, o.Outputs, o.CacheRepo, o.Pull, o.NoCache, o.Progress = plan, nil, "", false, false, quiet
	o.CacheFrom, o.CacheTo, o.CacheCheck = nil, nil, false
	_, err = Build(ctx, o)
	if err == nil || errors.Is(err, errPlanned) {
		return &plan.report, nil
	}
	return nil, err
}

// planned is where a plan leaves its report.
type planned struct{ report Report }

// WhyBelow is why most steps of a plan may run.
const WhyBelow = "a step below it runs"

// errPlanned ends a stage of a plan: what follows depends on a step that would run.
var errPlanned = errors.New("this is a plan, and nothing is run")

// unknownError is met by a plan that cannot know more without fetching.
type unknownError struct{ what string }

func (e *unknownError) Error() string { return e.what }

// planning says whether nothing may be run, fetched or stored.
func (b *builder) planning() bool { return b.opts.plan != nil }

// stops turns how a step of a plan ended into its verdict. Whatever a plan cannot
// foretell ends the stage, and no other stage.
func (rep *reportedStep) stops(err error) error {
	var unknown *unknownError
	switch {
	case errors.Is(err, errPlanned) && rep.Verdict == VerdictRun:
	case errors.Is(err, errPlanned):
		rep.Verdict, rep.Why = VerdictMay, "its source depends on a step that runs"
	case errors.As(err, &unknown):
		rep.Verdict, rep.Why = VerdictMay, unknown.what
	default:
		rep.Verdict, rep.Error = VerdictRun, err.Error()
	}
	return errPlanned
}

// restMay reports the instructions that a plan does not reach. s is nil where the
// stage's base is not known.
func (r *stageRun) restMay(s *state, list []dockerfile.Instruction, why string) {
	for _, in := range list {
		if countSteps([]dockerfile.Instruction{in}) == 0 {
			continue
		}
		title := in.Original()
		if s != nil {
			title = s.scope.Title(in)
		}
		r.at++
		rep := &reportedStep{order: r.stage.Index, StepReport: StepReport{
			Stage: r.stage.Label(), Number: r.at, Steps: r.total, Title: title, Line: in.Location().Start, Verdict: VerdictMay, Why: why,
		}}
		r.b.reports.mu.Lock()
		r.b.reports.steps = append(r.b.reports.steps, rep)
		r.b.reports.mu.Unlock()
	}
}

// baseMay reports the steps of a stage whose base a plan does not have.
func (r *stageRun) baseMay(err error) error {
	if r.stage.BaseStage == nil && r.stage.BaseName != dockerfile.Scratch && r.at == 0 {
		r.at++
	}
	r.total = max(r.total, countSteps(r.stage.Instructions)+r.at)
	why := "its base stage has a step that runs"
	if !errors.Is(err, errPlanned) {
		why = err.Error()
	}
	r.restMay(nil, r.stage.Instructions, why)
	return errPlanned
}

// plannedResult is the result of a step whose changes are known without running
// anything. Its layer has a name that no layer has.
func (b *builder) plannedResult(key Key, cs tree.Changes) result {
	if len(cs) == 0 {
		return result{}
	}
	l := &fsLayer{done: make(chan struct{}), changes: cs, loaded: true, planned: true}
	l.diffID = tree.Digest("sha256:" + string(newKey("planned").str(string(key)).sum()))
	close(l.done)
	return result{layer: l}
}

// plannedIndex is what a plan knows of a layer: its index, if it is here.
func (b *builder) plannedIndex(l *fsLayer) (tree.Changes, error) {
	cs, err := b.store.Layer(l.diffID)
	if err != nil && l.seek != nil {
		cs, err = b.store.Layer(l.name())
	}
	if err != nil {
		return nil, &unknownError{fmt.Sprintf("layer %s is not in the store", l.diffID)}
	}
	return cs, nil
}

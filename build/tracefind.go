package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// tracer looks for an earlier result of a step by what that result depends on.
type tracer struct {
	b      *builder
	rep    *StepReport
	step   *progress.Step
	id     Key // the step's identity
	key    Key // its exact key
	base   Key // of the stage
	below  *fsState
	mounts *mountSet // of a RUN, else nil

	list  []tracedResult // of the identity
	asked bool           // list is known
	roots []tree.Tree    // what questions are asked of; nil until somebody must know
}

// traceHit is an earlier result that holds on what stands below now.
type traceHit struct {
	tracedResult
	res     result
	changes tree.Changes // of its layer
	after   tree.Tree    // what stands below, with them
}

// results returns what is known of the identity, the newest only in a build with cache
// mounts: an older one would bring its old times back, below what a program keeps in the
// mount of what the files were meanwhile and compares by time.
func (t *tracer) results(ctx context.Context) []tracedResult {
	if !t.asked {
		t.list, t.asked = t.b.traceResults(ctx, t.id), true
		if t.b.caches.Load() && len(t.list) > 1 {
			t.list = t.list[:1]
		}
	}
	return t.list
}

// seeCaches notes whether a RUN has a cache mount. What its flags say in the end is known
// only when it is its turn, so that is read as it is written, a variable as a cache.
func (b *builder) seeCaches(list []dockerfile.Instruction) {
	for _, in := range list {
		run, ok := in.(*dockerfile.Run)
		if !ok || len(run.Mounts) == 0 {
			continue
		}
		text := run.Original()
		if strings.Contains(text, "type="+dockerfile.MountCache) || strings.Contains(text, "type=$") {
			b.caches.Store(true)
		}
	}
}

// find returns an earlier result none of whose questions is answered otherwise now, nil
// for none. What it found out on the way is in the report. An error means that the
// file systems below cannot be had at all.
func (t *tracer) find(ctx context.Context) (*traceHit, error) {
	t.rep.Identity = string(t.id)
	for _, r := range t.results(ctx) {
		if age, stale := t.stale(&r); stale {
			if t.rep.Why == "" {
				t.rep.Why = fmt.Sprintf("its result used the network %s ago, and --trace-net-ttl is %s", age, t.b.opts.TraceNetTTL)
			}
			continue
		}
		l, ok := t.b.tracedLayer(&r)
		if !ok {
			continue
		}
		tr, err := t.b.loadTrace(ctx, r.Trace)
		if err != nil {
			t.step.Warn(fmt.Sprintf("a trace is left out: %v", err))
			continue
		}
		if err := t.look(ctx); err != nil {
			return nil, err
		}
		ok, err = t.matches(tr)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		hit := &traceHit{tracedResult: r, res: result{layer: l, created: r.Step.Created}}
		if ok, err := t.stacks(ctx, hit, tr); ok || err != nil {
			if ok {
				t.reused(hit, len(tr.Answers))
			}
			return hit, err
		}
	}
	return nil, nil
}

// stale reports whether a result used the network too long ago (LAWS 6).
func (t *tracer) stale(r *tracedResult) (age string, stale bool) {
	if !r.Step.Network {
		return "", false
	}
	d := time.Since(r.Step.ran())
	return units.HumanDuration(d), d > t.b.opts.TraceNetTTL || d < 0
}

// tracedLayer returns the layer of a result if it can be had; nil where nothing changed.
func (b *builder) tracedLayer(r *tracedResult) (*fsLayer, bool) {
	switch {
	case r.Step.DiffID == "":
		return nil, true
	case r.layer != nil:
		return r.layer, true
	}
	h, err := v1.NewHash(r.Step.Digest)
	if err != nil || !b.store.HasBlob(tree.Digest(r.Step.Digest)) {
		return nil, false
	}
	desc := v1.Descriptor{MediaType: types.MediaType(r.Step.MediaType), Size: r.Step.Size, Digest: h, Annotations: r.Step.Annotations}
	l := knownLayer(r.Step.DiffID, desc, nil)
	l.how = r.Step.Compression
	return l, true
}

// look makes the file systems that questions are asked of.
func (t *tracer) look(ctx context.Context) error {
	if t.roots != nil {
		return nil
	}
	below, err := t.below.Shape(ctx, t.b)
	if err != nil {
		return err
	}
	roots := []tree.Tree{below}
	for _, m := range t.mounts.binds() {
		view, err := m.shape(ctx, t.b)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		roots = append(roots, view)
	}
	t.roots = roots
	return nil
}

// matches asks the questions of a trace. The differences of the first one that does
// not match are kept for the report: results stand in the order of their last use.
func (t *tracer) matches(tr *trace.Trace) (bool, error) {
	limit := 0
	if t.rep.Total == 0 {
		limit = maxDifferences
	}
	diffs, n, err := tr.Match(t.roots, trace.AnswerOptions{Digest: t.b.digest}, limit)
	var unknown *unknownError
	switch {
	case errors.As(err, &unknown):
		return false, err
	case err != nil: // doubt
		if t.rep.Why == "" {
			t.rep.Why = err.Error()
		}
		return false, nil
	case n > 0 && limit > 0:
		t.rep.Differences, t.rep.Total = diffs, n
	}
	return n == 0, nil
}

// reused reports a hit.
func (t *tracer) reused(hit *traceHit, questions int) {
	rep, s := t.rep, &hit.Step
	rep.Verdict, rep.Why, rep.Differences, rep.Total = VerdictTrace, "", nil, 0
	if hit.Base != t.base {
		rep.Why = "base image changed, not looked at"
	}
	rep.Source, rep.Trace, rep.Questions = hit.source, hit.Trace, questions
	rep.Took, rep.Ran, rep.UsedNetwork = s.Took, s.ran(), s.Network
	rep.Layer, rep.Key = string(s.DiffID), t.key
	rep.Entries, rep.Bytes = changesSize(hit.changes)
}

// adopt makes a hit the result of the step, and of its exact key from now on, with the
// time and network use of the run that gave it. unlock is called when that is stored.
func (t *tracer) adopt(hit *traceHit, unlock func()) result {
	b, below, key := t.b, t.below, t.key
	rec := hit.Step
	if t.mounts != nil { // a RUN: of other steps it is known what they look at
		rec.Traced = &tracedBy{Times: b.opts.CacheTimes, OtherBase: hit.Base != t.base, Done: b.opts.CacheCheck}
		if rec.Network {
			rec.Traced.Age = time.Since(rec.ran())
		}
	}
	hit.res.record = rec
	if b.planning() || hit.source != "" || below.borrowed() || t.mounts.borrowed() {
		unlock() // what was not read to its end here is not stored here (LAWS 11)
		b.shareTraces(t.id, below, hit.tracedResult)
		return hit.res
	}
	b.behind(func(ctx context.Context) error {
		defer unlock()
		if err := b.remember(ctx, key, below, rec); err != nil {
			return err
		}
		t.rep.Differences, t.rep.Total = t.changedBelow(hit)
		b.share(key, below, hit.res)
		b.shareTraces(t.id, below, hit.tracedResult)
		return b.keepResult(ctx, t.id, hit.tracedResult) // the first to be asked the next time
	})
	return hit.res
}

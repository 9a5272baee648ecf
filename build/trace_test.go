package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// rig runs steps whose command is a function, without a kernel.
type rig struct {
	*world
	b *builder
	n int
}

func newRig(t *testing.T) *rig {
	w := newWorld(t)
	r := &rig{world: w, b: w.builder()}
	r.b.opts.TraceNetTTL = time.Hour
	return r
}

// on is a file system of one layer with these files, "path=text", or "path/".
func (r *rig) on(files ...string) *fsState {
	r.t.Helper()
	e := tree.Empty().Edit()
	for _, f := range files {
		if err := r.put(e, f, 7); err != nil {
			r.t.Fatal(err)
		}
	}
	cs, err := tree.Diff(tree.Empty(), e.Tree(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.n++
	res := r.b.commit(newKey("on").num(uint64(r.n)).sum(), &fsState{}, cs, func() {})
	r.b.background.Wait()
	return (&fsState{}).push(res.layer)
}

func (r *rig) put(e *tree.Editor, file string, sec int64) error {
	name, text, isFile := strings.Cut(file, "=")
	if !isFile {
		return e.Put(strings.TrimSuffix(file, "/"), tree.Node{Kind: tree.Dir, Mode: 0o755, Mtime: tree.Time{Sec: sec}})
	}
	n, err := r.content(text)
	n.Mtime.Sec = sec
	return errors.Join(err, e.Put(name, n))
}

// content stores a text in a pack, as a recorder does: without a digest.
func (r *rig) content(text string) (tree.Node, error) {
	p, err := r.store.CreatePack()
	if err != nil {
		return tree.Node{}, err
	}
	_, err = p.Write([]byte(text))
	n := tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(len(text)), Extents: []tree.Extent{{Pack: p.ID(), Len: int64(len(text))}}}
	return n, errors.Join(err, p.Commit())
}

// command is a RUN of the rig.
type command struct {
	id      string
	asked   []trace.Question
	do      func(e *tree.Editor) error
	network bool
	doubt   string
}

// did is what became of it.
type did struct {
	res     result
	rep     *StepReport
	key     Key
	fs      *fsState
	verdict string
	err     error
}

// run does a step on below, or finds its result.
func (r *rig) run(below *fsState, c command) did {
	r.t.Helper()
	r.n++
	d := did{rep: &StepReport{Title: "RUN " + c.id}, key: newKey("exact").num(uint64(r.n)).sum(), verdict: VerdictRun}
	tr := &tracer{b: r.b, rep: d.rep, step: r.b.opts.Progress.Step("RUN"), id: newKey("rig").str(c.id).sum(), key: d.key, below: below}
	hit, err := tr.find(r.t.Context())
	if err != nil {
		d.err = err
		return d
	}
	if hit != nil {
		d.res, d.verdict = tr.adopt(hit, func() {}), d.rep.Verdict
	} else {
		parent, err := below.Tree(r.t.Context(), r.b)
		if err != nil {
			r.t.Fatal(err)
		}
		e := parent.Edit()
		if err := c.do(e); err != nil {
			r.t.Fatal(err)
		}
		cs, err := tree.Diff(parent, e.Tree(), r.b.same)
		if err != nil {
			r.t.Fatal(err)
		}
		out := &ran{parent: parent, changes: cs, network: c.network, ended: time.Now()}
		out.asked = knows(c.asked, c.doubt)
		d.res = tr.commitRun(r.t.Context(), &state{fs: below, key: d.key}, nil, out, func() {})
	}
	r.b.background.Wait()
	d.fs = below.push(d.res.layer)
	return d
}

func asks(kind trace.Kind, paths ...string) []trace.Question {
	var out []trace.Question
	for _, p := range paths {
		out = append(out, trace.Question{Path: p, Kind: kind})
	}
	return out
}

// copies reads a and writes its size to b.
func (r *rig) copies() command {
	c := command{id: "wc a > b", asked: append(asks(trace.Entry, "", "a", "b"), asks(trace.Content, "a")...)}
	c.do = func(e *tree.Editor) error {
		n := e.Lookup("a")
		if n == nil {
			return errors.New("no a")
		}
		return r.put(e, fmt.Sprintf("b=%d", n.Size), time.Now().Unix())
	}
	return c
}

// A step is used again on whatever answers its questions as before, and is done again
// on anything else.
func TestTraceDecides(t *testing.T) {
	r := newRig(t)
	first := r.run(r.on("a=text", "x=1"), r.copies())
	if first.verdict != VerdictRun || first.rep.Trace == "" || first.rep.Questions != 4 || first.rep.ReadBytes != 4 {
		t.Fatalf("first run: %+v", first.rep)
	}
	cases := []struct {
		name  string
		below *fsState
		want  string
	}{
		{"the same again", r.on("a=text", "x=1"), VerdictTrace},
		{"what it did not look at", r.on("a=text", "x=2", "y=3"), VerdictTrace},
		{"the content", r.on("a=TEXT", "x=1"), VerdictRun},
		{"the size", r.on("a=texts"), VerdictRun},
		{"what was not there", r.on("a=text", "b=old"), VerdictRun},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := r.run(c.below, r.copies())
			if got.verdict != c.want {
				t.Fatalf("got %s, want %s: %+v", got.verdict, c.want, got.rep)
			}
			if c.want != VerdictTrace {
				if len(got.rep.Differences) == 0 || got.rep.Total == 0 {
					t.Errorf("no difference is reported: %+v", got.rep)
				}
				return
			}
			if got.res.layer.diffID != first.res.layer.diffID || !got.res.created.Equal(first.res.created) {
				t.Errorf("layer %s of %s, want %s of %s", got.res.layer.diffID, got.res.created, first.res.layer.diffID, first.res.created)
			}
			if _, ok := r.b.recorded(t.Context(), got.key, c.below); !ok {
				t.Error("the exact key does not lead to the result that was adopted")
			}
		})
	}
}

// LAWS 6: what used the network is used by its trace for a limited time only, and
// adoption does not make it younger.
func TestTraceOfTheNetworkAges(t *testing.T) {
	r := newRig(t)
	c := r.copies()
	c.network = true
	first := r.run(r.on("a=text"), c)
	var rec stepRecord
	if !r.b.getJSON(kindStep, string(first.key), &rec) || !rec.Network || rec.ran().IsZero() {
		t.Fatalf("the record does not say that the step used the network: %+v", rec)
	}
	second := r.run(r.on("a=text", "x=1"), c)
	if second.verdict != VerdictTrace || !second.rep.UsedNetwork || !second.rep.Ran.Equal(rec.ran()) {
		t.Fatalf("within its time: %s, %+v", second.verdict, second.rep)
	}
	var adopted stepRecord
	if !r.b.getJSON(kindStep, string(second.key), &adopted) || !adopted.ran().Equal(rec.ran()) || !adopted.Network {
		t.Errorf("adopted as %+v, want the time and network of %+v", adopted, rec)
	}
	if list := r.b.traceResults(t.Context(), newKey("rig").str(c.id).sum()); len(list) != 1 || !list[0].Step.ran().Equal(rec.ran()) {
		t.Errorf("the list of results: %+v", list)
	}
	for _, ttl := range []time.Duration{0, time.Nanosecond} {
		r.b.opts.TraceNetTTL = ttl
		got := r.run(r.on("a=text", "x="+ttl.String()), c)
		if got.verdict != VerdictRun || !strings.Contains(got.rep.Why, "--trace-net-ttl") {
			t.Errorf("with %s: %s, %q", ttl, got.verdict, got.rep.Why)
		}
	}
	if got, ok := r.b.recorded(t.Context(), first.key, r.on("a=text")); !ok || got.layer == nil {
		t.Error("its exact key no longer leads to it")
	}
}

// forget takes a question out of the newest trace of an identity.
func (r *rig) forget(c command, q trace.Question) {
	r.t.Helper()
	id := newKey("rig").str(c.id).sum()
	list := r.b.traceResults(r.t.Context(), id)
	tr, err := r.b.loadTrace(r.t.Context(), list[0].Trace)
	if err != nil {
		r.t.Fatal(err)
	}
	tr.Answers = slices.DeleteFunc(tr.Answers, func(a trace.Answered) bool { return a.Question == q })
	data, err := tr.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	list[0].Trace = traceID(data)
	if err := errors.Join(r.store.PutRecord(kindTrace, list[0].Trace, cacheRecord(data)), r.b.putJSON(kindTraces, string(id), list, nil, nil)); err != nil {
		r.t.Fatal(err)
	}
}

// LAWS 5: a layer whose trace lacks a question is not put on what it does not fit.
func TestTraceIncomplete(t *testing.T) {
	remove := command{id: "rm x", asked: asks(trace.Entry, "", "x"), do: func(e *tree.Editor) error { return e.Remove("x") }}
	for _, checked := range []bool{false, true} {
		r := newRig(t)
		r.b.opts.Check = checked // as CI has it
		r.run(r.on("x=1"), remove)
		r.forget(remove, asks(trace.Entry, "x")[0])
		got := r.run(r.on("y=1"), remove)
		if checked && got.err == nil {
			t.Errorf("checked: got %s, want an error", got.verdict)
		}
		if !checked && (got.verdict != VerdictRun || !strings.Contains(got.rep.Why, "incomplete")) {
			t.Errorf("got %s, %q: want a run, and why", got.verdict, got.rep.Why)
		}
	}
}

// LAWS 10: a step that changed what it is not known to have looked at has no trace.
func TestNoTraceOfABlindChange(t *testing.T) {
	r := newRig(t)
	got := r.run(r.on("x=1"), command{id: "rm x", asked: asks(trace.Entry, ""), do: func(e *tree.Editor) error { return e.Remove("x") }})
	if got.rep.Trace != "" || !strings.Contains(got.rep.Doubt, "/x") {
		t.Errorf("trace %q, doubt %q", got.rep.Trace, got.rep.Doubt)
	}
}

// A file whose time the step changed to what another parent has is no fault of the
// trace, which leaves times out; the step runs.
func TestTraceThatWouldRepeat(t *testing.T) {
	r := newRig(t)
	touch := command{id: "touch -d @9 x", asked: asks(trace.Entry, "", "x")}
	touch.do = func(e *tree.Editor) error {
		n := e.Lookup("x").Attrs()
		n.Mtime.Sec = 9
		return e.Put("x", n)
	}
	at7 := r.on("x=1")
	r.run(at7, touch)
	parent, err := at7.Tree(t.Context(), r.b)
	if err != nil {
		t.Fatal(err)
	}
	e := parent.Edit()
	if err := touch.do(e); err != nil {
		t.Fatal(err)
	}
	cs, err := tree.Diff(tree.Empty(), e.Tree(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res := r.b.commit(newKey("at 9").sum(), &fsState{}, cs, func() {})
	r.b.background.Wait()
	r.b.opts.Check = true
	if got := r.run((&fsState{}).push(res.layer), touch); got.err != nil || got.verdict != VerdictRun || got.res.layer != nil {
		t.Errorf("got %s, %v, layer %v: want a run that changes nothing", got.verdict, got.err, got.res.layer)
	}
}

// LAWS 9: a step that ran again and gave the same, times aside, has the earlier layer;
// with --cache-times the same is the same with its times.
func TestEarlyCutOff(t *testing.T) {
	for _, times := range []bool{false, true} {
		t.Run(fmt.Sprint("cache times ", times), func(t *testing.T) {
			r := newRig(t)
			r.b.opts.CacheTimes = times
			sec := int64(1000)
			c := command{id: "make", asked: append(asks(trace.Entry, "", "a", "b"), asks(trace.Content, "a")...)}
			c.do = func(e *tree.Editor) error { sec++; return r.put(e, "b=out", sec) }
			first := r.run(r.on("a=1"), c)
			second := r.run(r.on("a=2"), c)
			if second.verdict != VerdictRun {
				t.Fatalf("got %s, want a run", second.verdict)
			}
			if same := second.res.layer.diffID == first.res.layer.diffID; same == times {
				t.Errorf("the layer is the earlier one: %v", same)
			}
			reader := command{id: "cat b", asked: append(asks(trace.Entry, "", "b", "c"), asks(trace.Content, "b")...)}
			reader.do = func(e *tree.Editor) error { return r.put(e, "c=out", 5) }
			r.run(first.fs, reader)
			if got := r.run(second.fs, reader); (got.verdict == VerdictTrace) == times {
				t.Errorf("the next step: %s", got.verdict)
			}
			if third := r.run(r.on("a=2", "z=1"), c); third.verdict != VerdictTrace {
				t.Errorf("the second run has no trace: %s", third.verdict)
			}
		})
	}
}

// LAWS 10: a step in doubt has no trace.
func TestDoubtHasNoTrace(t *testing.T) {
	r := newRig(t)
	c := r.copies()
	c.doubt = "an event was lost"
	first := r.run(r.on("a=text"), c)
	if first.rep.Doubt != c.doubt || first.rep.Trace != "" {
		t.Errorf("reported: %+v", first.rep)
	}
	if got := r.run(r.on("a=text", "x=1"), c); got.verdict != VerdictRun {
		t.Errorf("got %s, want a run", got.verdict)
	}
}

// LAWS 10: traces and layers that are gone or not what they should be are misses.
func TestTraceInDoubtIsAMiss(t *testing.T) {
	spoil := map[string]func(r *rig, id Key, list []tracedResult){
		"the trace is gone": func(r *rig, _ Key, list []tracedResult) {
			if err := r.store.DeleteRecord(kindTrace, list[0].Trace); err != nil {
				r.t.Error(err)
			}
		},
		"the trace is another": func(r *rig, _ Key, list []tracedResult) {
			data, err := (&trace.Trace{}).Encode()
			if err == nil {
				err = r.store.PutRecord(kindTrace, list[0].Trace, cacheRecord(data))
			}
			if err != nil {
				r.t.Error(err)
			}
		},
		"the trace is none": func(r *rig, id Key, list []tracedResult) {
			data := []byte("no trace")
			list[0].Trace = traceID(data)
			if err := errors.Join(r.store.PutRecord(kindTrace, list[0].Trace, cacheRecord(data)), r.b.putJSON(kindTraces, string(id), list, nil, nil)); err != nil {
				r.t.Error(err)
			}
		},
		"the layer is gone": func(r *rig, id Key, list []tracedResult) {
			list[0].Step.Digest = "sha256:" + strings.Repeat("0", 64)
			if err := r.b.putJSON(kindTraces, string(id), list, nil, nil); err != nil {
				r.t.Error(err)
			}
		},
		"the list is none": func(r *rig, id Key, _ []tracedResult) {
			if err := r.b.putJSON(kindTraces, string(id), "x", nil, nil); err != nil {
				r.t.Error(err)
			}
		},
	}
	for name, fn := range spoil {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.run(r.on("a=text"), r.copies())
			id := newKey("rig").str(r.copies().id).sum()
			fn(r, id, r.b.traceResults(t.Context(), id))
			if got := r.run(r.on("a=text", "x=1"), r.copies()); got.verdict != VerdictRun || got.err != nil {
				t.Errorf("got %s, %v, want a run", got.verdict, got.err)
			}
			if got := r.run(r.on("a=text", "x=2"), r.copies()); got.verdict != VerdictTrace {
				t.Errorf("and afterwards: got %s, want a trace", got.verdict)
			}
		})
	}
}

// LAWS 11: no trace is stored before the layers below are durable, and none if one of
// them failed.
func TestTraceWaitsForLayersBelow(t *testing.T) {
	for _, end := range []error{nil, errors.New("disk on fire")} {
		r := newRig(t)
		parent := r.on("a=text")
		lower := &fsLayer{done: make(chan struct{}), loaded: true, changes: parent.layer.changes, diffID: parent.layer.diffID, desc: parent.layer.desc}
		below := (&fsState{}).push(lower)
		tr := &tracer{
			b: r.b, rep: &StepReport{}, step: r.b.opts.Progress.Step("RUN"), id: newKey("rig").sum(), key: newKey("exact").sum(), below: below,
		}
		tree1, err := below.Tree(t.Context(), r.b)
		if err != nil {
			t.Fatal(err)
		}
		res := tr.commitRun(t.Context(), &state{fs: below, key: tr.key}, nil, &ran{parent: tree1, asked: knows(asks(trace.Entry, "a"), "")}, func() {})
		if res.layer != nil {
			t.Fatal("a layer of nothing")
		}
		time.Sleep(20 * time.Millisecond) // it would be stored by now
		if list := r.b.traceResults(t.Context(), tr.id); len(list) > 0 {
			t.Error("stored although the layer below is not sealed")
		}
		lower.err = end
		close(lower.done)
		r.b.background.Wait()
		if list := r.b.traceResults(t.Context(), tr.id); (len(list) == 1) != (end == nil) {
			t.Errorf("layer below ended with %v; stored: %d", end, len(list))
		}
	}
}

// Of one identity the newest results are kept, and the one that was used last is asked
// first.
func TestTracesOfAnIdentityAreBounded(t *testing.T) {
	r := newRig(t)
	id := newKey("rig").str(r.copies().id).sum()
	for i := range maxTraces + 2 {
		r.run(r.on(fmt.Sprintf("a=%0*d", i+1, 0)), r.copies())
	}
	list := r.b.traceResults(t.Context(), id)
	if len(list) != maxTraces {
		t.Fatalf("got %d, want %d", len(list), maxTraces)
	}
	oldest := list[maxTraces-1].Trace
	if got := r.run(r.on("a=000", "x=1"), r.copies()); got.verdict != VerdictTrace || got.rep.Trace != oldest {
		t.Errorf("got %s by %.8s, want the oldest, %.8s", got.verdict, got.rep.Trace, oldest)
	}
	if list := r.b.traceResults(t.Context(), id); list[0].Trace != oldest || len(list) != maxTraces {
		t.Errorf("the one that was used last does not stand first")
	}
	if got := r.run(r.on("a=0", "x=1"), r.copies()); got.verdict != VerdictRun {
		t.Errorf("the first of all: got %s, want a run", got.verdict)
	}
}

// --no-cache: no hit of any kind, and no earlier layer.
func TestFreshUsesNoTrace(t *testing.T) {
	r := newRig(t)
	first := r.run(r.on("a=text"), r.copies())
	r.b.opts.NoCache = true
	tr := &tracer{b: r.b, rep: &StepReport{}, id: newKey("rig").str(r.copies().id).sum(), below: r.on("a=text")}
	hit, err := tr.findUnless(t.Context(), false)
	if hit != nil || err != nil {
		t.Errorf("got %v, %v", hit, err)
	}
	if hit := tr.earlier(t.Context(), tree.Empty(), first.res.layer.changes); hit != nil {
		t.Error("the earlier layer was used")
	}
}

// A hit reports what changed below it, which the step did not look at.
func TestHitTellsWhatItPassedOver(t *testing.T) {
	r := newRig(t)
	r.run(r.on("a=text", "x=1", "y=1", "z=1"), r.copies())
	got := r.run(r.on("a=text", "x=2", "y=1", "n=1"), r.copies())
	var paths []string
	for _, d := range got.rep.Differences {
		paths = append(paths, d.Path+" "+d.Kind.String())
	}
	if want := []string{"n entry", "x content", "z entry"}; !slices.Equal(paths, want) || got.rep.Total != 3 || got.verdict != VerdictTrace {
		t.Errorf("%s: got %q of %d, want %q", got.verdict, paths, got.rep.Total, want)
	}
}

// Shape is Tree, whether contents are here or not.
func TestShapeIsTree(t *testing.T) {
	r := newRig(t)
	base := r.on("a=text", "d/", "d/x=1")
	step := r.run(base, r.copies())
	for _, l := range step.fs.layers() {
		l.loaded, l.changes = false, nil
	}
	fresh := &fsState{parent: (&fsState{}).push(base.layer), layer: step.res.layer}
	shape, err := fresh.Shape(t.Context(), r.b)
	if err != nil {
		t.Fatal(err)
	}
	full, err := fresh.Tree(t.Context(), r.b)
	if err != nil {
		t.Fatal(err)
	}
	if cs, err := tree.Diff(full, shape, nil); err != nil || len(cs) > 0 {
		t.Errorf("they differ: %v\n%s", err, tree.Format(cs))
	}
}

// The mounts of a step are roots of their own, in the order of the instruction.
func TestTraceRootsOfMounts(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	src := plant(t, "dir/", "dir/f", "other")
	set := &mountSet{b: b, list: []*runMount{
		{Mount: dockerfile.Mount{Type: dockerfile.MountBind}, src: &copySource{local: &localContext{}}, tree: src, at: "dir"},
		{Mount: dockerfile.Mount{Type: dockerfile.MountTmpfs}},
		{Mount: dockerfile.Mount{Type: dockerfile.MountBind}, src: &copySource{local: &localContext{}}, tree: src, at: "other"},
	}}
	tr := &tracer{b: b, below: &fsState{}, mounts: set}
	if err := tr.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(tr.roots) != 3 || tr.roots[1].Lookup(viewAt+"/f") == nil || tr.roots[2].Lookup(viewAt) == nil || tr.roots[2].Lookup(viewAt).Kind != tree.File {
		t.Errorf("got %d roots", len(tr.roots))
	}
}

// knows is what a recorder says that has worked out the questions.
func knows(asked []trace.Question, doubt string) func(context.Context) ([]trace.Question, string) {
	return func(context.Context) ([]trace.Question, string) { return asked, doubt }
}

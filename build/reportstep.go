package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/trace"
)

// reporting collects what a build's steps say of themselves.
type reporting struct {
	began time.Time

	mu    sync.Mutex
	steps []*reportedStep

	final *state // of the target, nil until it is there

	once     sync.Once
	previous []Report // of this Dockerfile and target, the newest first
}

// reportedStep is a report whose layer may still be being sealed.
type reportedStep struct {
	StepReport
	order int // of the stage in the Dockerfile
	layer *fsLayer
}

// beginReport starts the report of the instruction that the stage is at.
func (r *stageRun) beginReport(s *state, in dockerfile.Instruction, title string) *reportedStep {
	rep := &reportedStep{order: r.stage.Index, StepReport: StepReport{
		begun: time.Now(),
		Stage: r.stage.Label(), Number: r.at, Steps: r.total, Title: title, Line: in.Location().Start,
		Below: s.key, Parts: r.b.identityParts(s, in),
	}}
	r.rep = &rep.StepReport
	b := r.b
	b.reports.mu.Lock()
	defer b.reports.mu.Unlock()
	b.reports.steps = append(b.reports.steps, rep)
	return rep
}

// end completes a report with how the step ended.
func (rep *reportedStep) end(s *state, res result, cached bool, err error) {
	rep.Spent = time.Since(rep.begun)
	if rep.Verdict == "" {
		rep.Verdict = VerdictRun
		if cached {
			rep.Verdict = VerdictExact
		}
	}
	if err != nil {
		rep.Verdict, rep.Error = VerdictRun, err.Error()
		return
	}
	if rep.Key == "" {
		rep.Key = s.key
	}
	if rep.Ran.IsZero() {
		rep.Ran = res.created
	}
	if !cached && rep.Took == 0 {
		rep.Took = rep.Spent
	}
	rep.layer = res.layer
}

// traced adds what is found out behind the step, while others read its report.
func (r *reporting) traced(rep *StepReport, id string, questions int, read int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep.Trace, rep.Questions, rep.ReadBytes = id, questions, rep.ReadBytes+read
}

// copied is a report as it is now.
func (r *reporting) copied(rep *StepReport) StepReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *rep
}

// runs is called when it is certain that the current step must be done: it works out
// why, with the differences that were found. A plan ends there.
func (r *stageRun) runs(ctx context.Context) error {
	rep := r.rep
	rep.Verdict = VerdictRun
	now := r.b.reports.copied(rep)
	before := r.b.previousStep(now)
	if rep.Why == "" && r.b.fresh(ctx) {
		rep.Why = "--no-cache"
		if !r.b.opts.NoCache {
			rep.Why = "--no-cache-filter"
		}
	}
	if before != nil && len(rep.Inputs) == 0 {
		rep.Inputs = changedParts(before.Parts, rep.Parts)
	}
	if rep.Why == "" && len(rep.Inputs) == 0 && len(rep.Differences) == 0 {
		rep.Why = r.b.whyWithout(before, now)
	}
	if r.b.planning() {
		return errPlanned
	}
	return nil
}

// whyWithout says why a step runs where neither its identity nor a trace does.
func (b *builder) whyWithout(before *StepReport, rep StepReport) string {
	switch {
	case before == nil:
		return "first build"
	case before.Error != "":
		return "it failed the last time"
	case rep.copies() && before.Key != rep.Key && before.Below == rep.Below:
		return "" // its files; which ones is found out when somebody asks
	case before.Below == rep.Below:
		return "its result is not in the store any more"
	}
	why := "something below it changed"
	if below := b.ranBelow(rep); below != "" {
		why = below + " below it changed"
	}
	if rep.copies() || before.Doubt == "" {
		return why
	}
	return why + ", and it has no trace: " + before.Doubt
}

// ranBelow names the last step of the same stage that was done, "" for none.
func (b *builder) ranBelow(rep StepReport) string {
	b.reports.mu.Lock()
	defer b.reports.mu.Unlock()
	for _, s := range slices.Backward(b.reports.steps) {
		if s.Stage == rep.Stage && s.Number < rep.Number && s.Verdict == VerdictRun {
			return fmt.Sprintf("%s of step %d", s.Keyword(), s.Number)
		}
	}
	return ""
}

// Reason is in a few words why a step runs, for a line of progress: "src/app.js changed
// (content)"; "" for one that does not.
func (s *StepReport) Reason() string {
	if s.Verdict != VerdictRun {
		return ""
	}
	switch {
	case s.Why != "":
		return s.Why
	case len(s.Inputs) > 0:
		return andMore(s.Inputs[0], len(s.Inputs)-1) + " changed"
	case len(s.Differences) > 0:
		list, total := s.Changed()
		c := Headline(list)
		return andMore(fmt.Sprintf("%s changed (%s)", c.Where(), c.What), total-1)
	case s.copies() && s.Error == "":
		return "its files changed"
	}
	return ""
}

// cachedHow says of a step that was reused how, where its exact key is not why.
func (rep *reportedStep) cachedHow() string {
	if rep.Verdict != VerdictTrace {
		return ""
	}
	how := "traced"
	if rep.Why != "" {
		how += "; " + rep.Why
	}
	if !rep.UsedNetwork || rep.Ran.IsZero() {
		return how
	}
	return how + "; used the network " + strings.ToLower(units.HumanDuration(time.Since(rep.Ran))) + " ago"
}

// note is the line of progress about a step that runs.
func (s *StepReport) note() string {
	if s.Why != "" {
		return "runs: " + s.Why
	}
	return "runs because " + s.Reason()
}

// QuestionPath shows the place that a question is about: a path, of a bind mount with
// its number.
func QuestionPath(q trace.Question) string {
	if q.Root == 0 {
		return "/" + q.Path
	}
	return fmt.Sprintf("mount %d:/%s", q.Root, q.Path)
}

func andMore(first string, more int) string {
	if more <= 0 {
		return first
	}
	return fmt.Sprintf("%s and %d more", first, more)
}

// changedParts names the parts that are not the same in two builds.
func changedParts(before, now []ReportPart) []string {
	if len(before) == 0 || len(now) == 0 {
		return nil
	}
	was := map[string]string{}
	for _, p := range before {
		was[p.Name] = p.Sum
	}
	var out []string
	for _, p := range now {
		if was[p.Name] != p.Sum {
			out = append(out, p.Name)
		}
		delete(was, p.Name)
	}
	for _, p := range before {
		if _, gone := was[p.Name]; gone {
			out = append(out, p.Name)
		}
	}
	return out
}

// parts collects the parts of an identity.
type parts []ReportPart

// add enters a part; one that is empty is as one that is not there.
func (p *parts) add(name string, values ...string) {
	if strings.Join(values, "") == "" {
		return
	}
	h := sha256.New()
	for _, v := range values {
		fmt.Fprintf(h, "%d:%s", len(v), v) // a hash never fails
	}
	*p = append(*p, ReportPart{name, hex.EncodeToString(h.Sum(nil)[:8])})
}

// identityParts are the parts of a step's identity, each as a digest.
func (b *builder) identityParts(s *state, in dockerfile.Instruction) []ReportPart {
	var p parts
	switch in := in.(type) {
	case *dockerfile.Run:
		p.add("command", in.Args...)
		if in.Script != nil {
			p.add("heredoc", in.Script.Path, in.Script.Data)
		}
		args := map[string]bool{}
		for _, a := range s.scope.Args() {
			args[a.Key] = true
			p.add("ARG "+a.Key, a.Value)
		}
		for _, e := range s.scope.KeyEnv() {
			if k, v, _ := strings.Cut(e, "="); !args[k] {
				p.add("ENV "+k, v)
			}
		}
		p.add("mounts", mountText(in.Mounts)...)
		p.add("user", s.cfg.Config.User)
		p.add("working directory", s.cfg.Config.WorkingDir)
		p.add("network", in.Network, b.opts.Network)
		p.add("--add-host", b.opts.AddHosts...)
		p.add("--ulimit", limitTexts(b.opts.Limits)...)
		p.add("--shm-size", strconv.FormatInt(b.opts.ShmSize, 10))
		p.add("platform", s.cfg.OS, s.cfg.Architecture, s.cfg.Variant)
	case *dockerfile.Copy:
		p.transfer(&in.Transfer)
		p.add("--from", in.From)
	case *dockerfile.Add:
		p.transfer(&in.Transfer)
	case *dockerfile.Workdir:
		p.add("path", in.Path)
		p.add("user", s.cfg.Config.User)
	}
	return p
}

func (p *parts) transfer(t *dockerfile.Transfer) {
	p.add("sources", t.Sources...)
	p.add("target", t.Target)
	p.add("--chown", t.Chown)
	p.add("--chmod", t.Chmod)
	p.add("--exclude", t.Exclude...)
	for _, h := range t.Heredocs {
		p.add("heredoc "+path.Base(h.Name), h.Data)
	}
}

func mountText(mounts []dockerfile.Mount) []string {
	var out []string
	for _, m := range mounts {
		m.FromStage = nil // a graph; From names it
		data, err := json.Marshal(m)
		if err != nil {
			continue // values of these types can be written
		}
		out = append(out, string(data))
	}
	return out
}

// previousStep finds the step in the builds before: the same instruction of the stage,
// else the one that stood in its place. nil for none.
func (b *builder) previousStep(rep StepReport) *StepReport {
	b.reports.once.Do(func() {
		list, err := Reports(b.store, b.opts.Origin.Dockerfile)
		if err != nil {
			return // as if it were the first build
		}
		b.reports.previous = slices.DeleteFunc(list, func(r Report) bool { return r.Target != b.opts.Target || r.Platform != b.opts.Platform.String() })
	})
	for i := range b.reports.previous {
		if s := b.reports.previous[i].same(rep); s != nil {
			return s
		}
	}
	return nil
}

// same finds the step of another build that rep is.
func (r *Report) same(rep StepReport) *StepReport {
	var place *StepReport
	for i := range r.Steps {
		s := &r.Steps[i]
		switch {
		case s.Stage != rep.Stage:
		case s.Title == rep.Title && (s.Number == rep.Number || place == nil || place.Title != rep.Title):
			place = s
		case s.Number == rep.Number && place == nil:
			place = s
		}
	}
	return place
}

// finish puts the reports in the order of the Dockerfile, with what sealing said.
func (r *reporting) finish() []StepReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.steps, func(a, b *reportedStep) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Number, b.Number))
	})
	var out []StepReport
	for _, s := range r.steps {
		if s.Verdict == "" { // interrupted
			continue
		}
		s.sealed()
		out = append(out, s.StepReport)
	}
	return out
}

// sealed takes over what is known of the layer without opening it.
func (rep *reportedStep) sealed() {
	l := rep.layer
	if l == nil {
		return
	}
	if l.planned {
		rep.changes = l.changes
		rep.Entries, rep.Bytes = changesSize(l.changes)
		return
	}
	select {
	case <-l.done:
	default:
		return
	}
	if l.err != nil {
		return
	}
	rep.Layer = string(l.diffID)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded && rep.Verdict == VerdictRun && rep.Entries == 0 {
		rep.Entries, rep.Bytes = changesSize(l.changes)
	}
}

// Keyword is the instruction's name, in capitals.
func (s *StepReport) Keyword() string {
	word, _, _ := strings.Cut(strings.TrimPrefix(s.Title, "ONBUILD "), " ")
	return strings.ToUpper(word)
}

// Label is how progress prints the step's number: [build 3/7], or [3/7] where there is
// one stage.
func (r *Report) Label(s StepReport) string {
	if r.Stages < 2 {
		return fmt.Sprintf("[%d/%d]", s.Number, s.Steps)
	}
	return fmt.Sprintf("[%s %d/%d]", s.Stage, s.Number, s.Steps)
}

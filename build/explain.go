package build

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// kindTrace is the kind of the records that hold a trace, under its id.
const kindTrace = "trace"

// StepDetail is what the store knows of a step beside its report.
type StepDetail struct {
	// Changed is what decided, one for each path: of a COPY or ADD against the layer that
	// it gave in an earlier build.
	Changed []PathChange
	Total   int // of Changed; more where only the first were kept
	// Looked is what the command looked at, nil where there is no trace.
	Looked []trace.Question
	Read   int64 // bytes of the files that it read
	// Wrote is the layer, nil where it is not in the store.
	Wrote   tree.Changes
	Entries int
	Bytes   int64 // of files, uncompressed
}

// Detail looks up what the store has of the i-th step of reports[0]; the others are
// earlier builds of the same Dockerfile. What is missing is left out.
func Detail(s *cache.Store, reports []Report, i int) StepDetail {
	step := reports[0].Steps[i]
	d := StepDetail{Entries: step.Entries, Bytes: step.Bytes}
	d.Changed, d.Total = step.Changed()
	if d.Wrote = step.changes; d.Wrote == nil {
		d.Wrote = layerOf(s, step.Layer)
	}
	if d.Wrote != nil {
		d.Entries, d.Bytes = changesSize(d.Wrote)
	}
	if t := traceOf(s, step.traceID(s)); t != nil {
		d.Looked, d.Read = looks(t)
	}
	if len(d.Changed) > 0 || step.Verdict != VerdictRun || step.Why != "" || d.Wrote == nil || !step.copies() {
		return d
	}
	for r := range reports[1:] {
		old := reports[1+r].same(step)
		if old == nil || old.Layer == "" || old.Title != step.Title {
			continue
		}
		if before := layerOf(s, old.Layer); before != nil {
			d.Changed = layerChanges(before, d.Wrote)
			d.Total = len(d.Changed)
		}
		break
	}
	return d
}

// looks are the questions of a trace, and the size of the files that were read.
func looks(t *trace.Trace) (list []trace.Question, read int64) {
	sizes := map[trace.Question]int64{}
	for _, a := range t.Answers {
		if f := strings.Fields(a.Answer); a.Kind == trace.Entry && len(f) >= 5 && f[0] == "-" {
			sizes[trace.Question{Root: a.Root, Path: a.Path, Kind: trace.Content}], _ = strconv.ParseInt(f[4], 10, 64) // a doubt is 0
		}
	}
	for _, a := range t.Answers {
		list = append(list, a.Question)
		read += sizes[a.Question]
	}
	return list, read
}

// copies says whether the step's layer is a function of files that it copies.
func (s *StepReport) copies() bool {
	switch s.Keyword() {
	case "COPY", "ADD":
		return true
	}
	return false
}

// traceID is the trace of a step; of one that was reused by its exact key the one that
// its layer was made with.
func (s *StepReport) traceID(store *cache.Store) string {
	if s.Trace != "" || s.Layer == "" {
		return s.Trace
	}
	rec, err := store.Record(kindMade, s.Layer)
	if err != nil {
		return ""
	}
	var made madeRecord
	if json.Unmarshal(rec.Value, &made) != nil {
		return ""
	}
	return made.Trace
}

// layerOf returns the index of a layer, nil where the store does not have it.
func layerOf(s *cache.Store, diffID string) tree.Changes {
	if diffID == "" {
		return nil
	}
	cs, err := s.Layer(tree.Digest(diffID))
	if err != nil {
		return nil
	}
	return cs
}

// traceOf returns a trace, nil where the store does not have it.
func traceOf(s *cache.Store, id string) *trace.Trace {
	if id == "" {
		return nil
	}
	rec, err := s.Record(kindTrace, id)
	if err != nil {
		return nil
	}
	t, err := trace.Decode(rec.Value)
	if err != nil {
		return nil
	}
	return t
}

// Largest returns the largest files of a layer, at most n.
func (d StepDetail) Largest(n int) []tree.Change {
	var files []tree.Change
	for _, c := range d.Wrote {
		if c.Node != nil && c.Node.Kind == tree.File && c.Node.Size > 0 {
			files = append(files, c)
		}
	}
	slices.SortFunc(files, func(a, b tree.Change) int {
		return cmp.Or(cmp.Compare(b.Node.Size, a.Node.Size), tree.Compare(a.Path, b.Path))
	})
	return files[:min(n, len(files))]
}

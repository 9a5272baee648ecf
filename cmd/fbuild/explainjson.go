package main

import (
	"time"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/trace"
)

// The JSON of `fbuild explain` and its likes; docs/explain.md describes it. Fields are
// added, never renamed.
type jsonBuild struct {
	Dockerfile string     `json:"dockerfile"`
	Target     string     `json:"target,omitempty"`
	Context    string     `json:"context,omitempty"`
	Platform   string     `json:"platform,omitempty"`
	Version    string     `json:"version,omitempty"`
	Began      *time.Time `json:"began,omitempty"`
	Seconds    float64    `json:"seconds"`
	Image      string     `json:"image,omitempty"`
	Names      []string   `json:"names,omitempty"`
	Error      string     `json:"error,omitempty"`
	Steps      []jsonStep `json:"steps"`
}

type jsonStep struct {
	Step         string       `json:"step"` // [build 3/7]
	Stage        string       `json:"stage"`
	Number       int          `json:"number"`
	Line         int          `json:"line"`
	Instruction  string       `json:"instruction"`
	Verdict      string       `json:"verdict"` // exact, trace, run, may
	Why          string       `json:"why,omitempty"`
	Changed      []jsonChange `json:"changed,omitempty"`
	ChangedTotal int          `json:"changedTotal,omitempty"`
	Inputs       []string     `json:"inputs,omitempty"`
	Source       string       `json:"source,omitempty"`
	Spent        float64      `json:"seconds,omitempty"`     // on the step, in this build
	Took         float64      `json:"tookSeconds,omitempty"` // of the command, when it ran
	Ran          *time.Time   `json:"ran,omitempty"`
	UsedNetwork  bool         `json:"usedNetwork,omitempty"`
	NoTrace      string       `json:"noTrace,omitempty"`
	Looked       *jsonLooked  `json:"looked,omitempty"`
	Entries      int          `json:"entries,omitempty"`
	Bytes        int64        `json:"bytes,omitempty"`
	Layer        string       `json:"layer,omitempty"`
	Key          string       `json:"key,omitempty"`
	Error        string       `json:"error,omitempty"`
}

type jsonChange struct {
	Path  string `json:"path"`
	Mount int    `json:"mount,omitempty"`
	What  string `json:"what"`
}

type jsonLooked struct {
	Questions int        `json:"questions"`
	Files     int        `json:"files"`
	Bytes     int64      `json:"bytes,omitempty"`
	At        []jsonLook `json:"at,omitempty"` // with --all
}

type jsonLook struct {
	Path  string `json:"path"`
	Mount int    `json:"mount,omitempty"`
	Kind  string `json:"kind"`
}

func (e *explanation) json() jsonBuild {
	r := e.report
	out := jsonBuild{
		Dockerfile: r.Dockerfile, Target: r.Target, Context: r.Setup.Context, Platform: r.Platform, Version: r.Version,
		Began: &r.Began, Seconds: r.Took.Seconds(), Image: r.ImageID, Names: r.Names, Error: r.Error, Steps: []jsonStep{},
	}
	for i := range r.Steps {
		if e.only != nil && e.only != &r.Steps[i] {
			continue
		}
		out.Steps = append(out.Steps, stepJSON(r, i, e.details[i], e.all))
	}
	return out
}

func stepJSON(r *build.Report, i int, d build.StepDetail, all bool) jsonStep {
	s := r.Steps[i]
	out := jsonStep{
		Step: r.Label(s), Stage: s.Stage, Number: s.Number, Line: s.Line, Instruction: s.Title, Verdict: s.Verdict,
		Why: s.Why, ChangedTotal: d.Total, Inputs: s.Inputs, Source: s.Source, Spent: s.Spent.Seconds(), Took: s.Took.Seconds(),
		UsedNetwork: s.UsedNetwork, NoTrace: s.Doubt, Entries: d.Entries, Bytes: d.Bytes, Layer: s.Layer,
		Key: string(s.Key), Error: s.Error,
	}
	if !s.Ran.IsZero() {
		out.Ran = &s.Ran
	}
	for _, c := range d.Changed {
		out.Changed = append(out.Changed, jsonChange{"/" + c.Path, c.Mount, c.What})
	}
	if d.Looked == nil {
		return out
	}
	out.Looked = &jsonLooked{Questions: len(d.Looked), Bytes: d.Read}
	for _, q := range d.Looked {
		if q.Kind == trace.Content {
			out.Looked.Files++
		}
		if all {
			out.Looked.At = append(out.Looked.At, jsonLook{"/" + q.Path, q.Root, q.Kind.String()})
		}
	}
	return out
}

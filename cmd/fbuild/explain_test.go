package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

func TestStepAndPath(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(filepath.Join("7", "3"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		args       []string
		step, path string
		fails      bool
	}{
		{"nothing", nil, "", ".", false},
		{"a directory", []string{"app"}, "", "app", false},
		{"a number", []string{"4"}, "4", ".", false},
		{"as printed", []string{"[build 3/7]"}, "[build 3/7]", ".", false},
		{"as printed, of one stage", []string{"[ 3/12]"}, "[ 3/12]", ".", false},
		{"with the count", []string{"3/12"}, "3/12", ".", false},
		{"with the stage", []string{"build:3", "app"}, "build:3", "app", false},
		{"a line", []string{":12"}, ":12", ".", false},
		{"a step and a directory that looks as one", []string{"3", "7"}, "3", "7", false},
		{"a directory that looks as a step", []string{"./7"}, "", "./7", false},
		{"a directory of that name", []string{"7/3"}, "", "7/3", false},
		{"no step", []string{"x", "app"}, "", "", true},
		{"three", []string{"1", "2", "3"}, "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			step, path, err := stepAndPath(tt.args)
			if (err != nil) != tt.fails {
				t.Fatalf("error: got %v, want one: %v", err, tt.fails)
			}
			if err == nil && (step != tt.step || path != tt.path) {
				t.Errorf("got step %q, path %q, want %q, %q", step, path, tt.step, tt.path)
			}
		})
	}
}

// explained is a build with a step of every kind.
func explained() *explanation {
	now := time.Now()
	ran := now.Add(-3*time.Hour - time.Minute)
	diff := func(path string, k trace.Kind, was, is string) trace.Difference {
		return trace.Difference{Question: trace.Question{Path: path, Kind: k}, Was: was, Is: is}
	}
	r := &build.Report{
		Dockerfile: "/src/app/Dockerfile", Began: now.Add(-2 * time.Minute), Took: 7 * time.Second, ImageID: "sha256:0123456789abcdef", Stages: 2,
		Steps: []build.StepReport{
			{Stage: "build", Number: 2, Steps: 6, Line: 3, Title: "COPY . .", Verdict: build.VerdictRun, Spent: 200 * time.Millisecond},
			{Stage: "build", Number: 3, Steps: 6, Line: 4, Title: "RUN npm ci", Verdict: build.VerdictTrace, Took: 24 * time.Second, Ran: ran, UsedNetwork: true, Layer: "sha256:aaaaaaaaaaaaaaaa", Questions: 3, Trace: "x"},
			{Stage: "build", Number: 4, Steps: 6, Line: 5, Title: "RUN npm run build -- --mode production --outDir /srv/dist", Verdict: build.VerdictRun, Spent: 6 * time.Second, Took: 6 * time.Second, Ran: now, Questions: 2},
			{Stage: "build", Number: 5, Steps: 6, Line: 7, Title: "RUN echo $V", Verdict: build.VerdictRun, Inputs: []string{"ARG V", "ENV W"}, Doubt: "the walk recorder does not trace"},
			{Stage: "build", Number: 6, Steps: 6, Line: 8, Title: "RUN ./lint", Verdict: build.VerdictRun, Why: "its result used the network, and is older than 24h"},
			{Stage: "stage-1", Number: 2, Steps: 3, Line: 10, Title: "COPY --from=build /srv /srv", Verdict: build.VerdictExact, Source: "registry.example.com/cache"},
			{Stage: "stage-1", Number: 3, Steps: 3, Line: 11, Title: "RUN false", Verdict: build.VerdictRun, Error: "exit code: 1"},
		},
	}
	r.Steps[2].Differences = []trace.Difference{
		diff("app/src", trace.List, "3 a", "4 b"), diff("app/src/app.js", trace.Entry, "- 644 0:0 1 12", "- 644 0:0 1 13"),
		diff("app/src/app.js", trace.Content, "sha256:a", "sha256:b"), diff("app/src/new.js", trace.Entry, "absent", "- 644 0:0 1 1"),
	}
	r.Steps[2].Total = 9
	e := &explanation{report: r, details: make([]build.StepDetail, len(r.Steps))}
	e.details[0].Changed = []build.PathChange{{Path: "app/src/app.js", What: "content, size 12 -> 13"}, {Path: "app/README.md", What: "content"}}
	e.details[0].Total = 2
	e.details[2].Changed, e.details[2].Total = r.Steps[2].Changed()
	e.details[1].Looked = []trace.Question{{Path: "app/package.json", Kind: trace.Entry}, {Path: "app/package.json", Kind: trace.Content}, {Path: "usr/bin", Kind: trace.List}}
	e.details[1].Read, e.details[1].Entries, e.details[1].Bytes = 300, 2, 5<<20
	e.details[1].Wrote = tree.Changes{
		{Path: "app/node_modules", Node: &tree.Node{Kind: tree.Dir}}, {Path: "app/node_modules/big.js", Node: &tree.Node{Kind: tree.File, Size: 5 << 20}},
	}
	e.passOver()
	return e
}

// What people read: testdata/explain-*.golden.
func TestExplainText(t *testing.T) {
	tests := []struct {
		name string
		step string // "" lists all
		all  bool
		wide int
	}{
		{"list", "", false, 0},
		{"narrow", "", false, 60},
		{"traced", "build:3", false, 0},
		{"traced-all", "build:3", true, 0},
		{"ran", ":5", false, 0},
		{"inputs", "build:5", false, 0},
		{"why", "Dockerfile:8", false, 0},
		{"cached", "stage-1:2", false, 0},
		{"failed", "[stage-1 3/3]", false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := explained()
			e.all, e.width = tt.all, tt.wide
			if tt.step != "" {
				i, err := pickStep(e.report, tt.step)
				if err != nil {
					t.Fatal(err)
				}
				e.only = &e.report.Steps[i]
			}
			golden(t, "explain-"+tt.name, e.text())
		})
	}
}

// golden compares with testdata/NAME.golden; FBUILD_UPDATE=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if os.Getenv("FBUILD_UPDATE") != "" {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// A step that is not there, or is several, is a mistake that says what to do.
func TestPickStep(t *testing.T) {
	r := explained().report
	for text, want := range map[string]int{"build:2": 0, "4": 2, "[build 4/6]": 2, "BUILD:4": 2, ":10": 5, "2": -1, "99": -1, ":99": -1, "nowhere:2": -1} {
		i, err := pickStep(r, text)
		if (err != nil) != (want < 0) || err == nil && i != want {
			t.Errorf("%s: got %d, %v, want %d", text, i, err, want)
		}
		if err != nil && hintOf(err) == "" {
			t.Errorf("%s: %v has no hint", text, err)
		}
	}
}

// What programs read keeps its names.
func TestExplainJSON(t *testing.T) {
	e := explained()
	e.only = &e.report.Steps[2]
	out := e.json()
	out.Began, out.Steps[0].Ran = nil, nil
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "explain-json", string(data)+"\n")
}

func TestAffectedText(t *testing.T) {
	plan := explained()
	image := &build.Affected{Dockerfile: "/src/app/Dockerfile", Target: "prod", Status: build.StatusChanges, Plan: plan.report}
	steps := []affectedStep{
		{plan.report.Steps[2], "[build 4/6]", plan.details[2], plan.why(2)},
		{build.StepReport{Title: "RUN ls", Verdict: build.VerdictMay}, "[build 5/6]", build.StepDetail{}, build.WhyBelow},
		{build.StepReport{Title: "RUN x", Verdict: build.VerdictMay}, "[stage-1 2/3]", build.StepDetail{}, "its source depends on a step that runs"},
	}
	o := &build.AffectedOptions{Dir: "/src"}
	var b strings.Builder
	imageText(&b, o, image, steps, false)
	imageText(&b, o, &build.Affected{Dockerfile: "/src/b/Dockerfile", Status: build.StatusChanges, Why: "it is built on app:1"}, nil, false)
	imageText(&b, o, &build.Affected{Dockerfile: "/src/c/Dockerfile", Status: build.StatusChanges}, nil, false)
	imageText(&b, o, &build.Affected{Dockerfile: "/src/d/Dockerfile", Status: build.StatusUntouched}, nil, true)
	imageText(&b, o, &build.Affected{Dockerfile: "/src/e/Dockerfile", Status: build.StatusNeverBuilt, Why: "no build of it is remembered"}, nil, false)
	golden(t, "affected", b.String())
}

package dockerfile

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var stagesFile = []string{
	"FROM golang AS build", // 0
	"FROM build AS test",
	"RUN t",
	"FROM node AS web", // 2
	"FROM scratch AS dist",
	"COPY --from=build a b",
	"COPY --from=2 a b",
	"COPY --from=nginx:1 a b",
	"FROM dist", // 4
	"COPY --from=WEB a b",
}

func TestNeeded(t *testing.T) {
	f := mustParse(t, Options{}, stagesFile...)
	for _, tt := range []struct {
		target string
		want   []int
	}{
		{"", []int{0, 2, 3, 4}},
		{"dist", []int{0, 2, 3}},
		{"Test", []int{0, 1}},
		{"0", []int{0}},
		{"4", []int{0, 2, 3, 4}},
	} {
		st, err := f.Target(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, s := range Needed(st) {
			got = append(got, s.Index)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("target %q: stages differ (-want +got):\n%s", tt.target, diff)
		}
	}
	if dist := f.Stages[3]; dist.Instructions[2].(*Copy).FromStage != nil || dist.Instructions[1].(*Copy).FromStage != f.Stages[2] {
		t.Error("COPY --from: want an image for nginx:1 and stage 2 for 2")
	}
	if f.Stages[4].BaseStage != f.Stages[3] || f.Stages[4].Label() != "stage-4" || f.Stages[3].Label() != "dist" {
		t.Errorf("got base %v labels %q %q, want stage 3, stage-4, dist", f.Stages[4].BaseStage, f.Stages[4].Label(), f.Stages[3].Label())
	}
}

func TestTargetErrors(t *testing.T) {
	f := mustParse(t, Options{}, stagesFile...)
	for _, tt := range []struct{ target, hint string }{{"buidl", "did you mean build?"}, {"nonsense", ""}, {"5", ""}, {"-1", ""}} {
		_, err := f.Target(tt.target)
		var te *TargetError
		if !errors.As(err, &te) {
			t.Fatalf("target %q: got %v, want *TargetError", tt.target, err)
		}
		want := &TargetError{Name: "Dockerfile", Target: tt.target, Stages: []string{"build", "test", "web", "dist", "4"}, Hint: tt.hint}
		if diff := cmp.Diff(want, te); diff != "" {
			t.Errorf("error differs (-want +got):\n%s", diff)
		}
	}
}

func TestCopyFromLaterStage(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a AS one", "COPY --from=two a b", "FROM b AS two", "FROM c AS three")
	_, err := f.Target("one")
	if err == nil {
		t.Fatal("got no error")
	}
	pe := asParseError(t, err)
	if got, want := pe.Err.Error(), `cannot copy from stage "two", it needs to be defined before current stage "one"`; got != want || pe.Line != 2 {
		t.Errorf("got line %d %q, want line 2 %q", pe.Line, got, want)
	}
	if _, err := f.Target("three"); err != nil {
		t.Errorf("a target that does not need it: got %v, want no error", err)
	}
}

func TestStageNames(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a AS Dup", "FROM dup AS dup", "FROM dup")
	if f.Stages[0].Name != "dup" || f.Stages[1].BaseStage != f.Stages[0] || f.Stages[2].BaseStage != f.Stages[1] {
		t.Errorf("got name %q bases %v %v, want dup, 0, 1", f.Stages[0].Name, f.Stages[1].BaseStage, f.Stages[2].BaseStage)
	}
	// A stage of the name of its own base is an image: python FROM python.
	f = mustParse(t, Options{}, "FROM python AS python")
	if f.Stages[0].BaseStage != nil {
		t.Error("got a base stage, want an image")
	}
}

func TestNamedContextReplacesStage(t *testing.T) {
	f := mustParse(t, Options{Contexts: []string{"Base", "other"}}, "FROM a AS base", "RUN --security=insecure y", "FROM base", "COPY --from=other a b")
	base := f.Stages[0]
	if base.Context != "Base" || len(base.Instructions) != 0 || base.BaseStage != nil {
		t.Errorf("got context %q with %d instructions, want Base with none", base.Context, len(base.Instructions))
	}
	if _, err := f.Target(""); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func TestOnBuild(t *testing.T) {
	f := mustParse(t, Options{}, "FROM a AS base", "ONBUILD ARG A=1", "ONBUILD COPY <<x /y", "$A", "x", "ONBUILD RUN c", "FROM b AS tool", "FROM base", "RUN d", "FROM base", "FROM base AS grand", "FROM grand")
	var got []string
	for _, in := range f.Stages[2].Instructions {
		got = append(got, in.Original())
		if want := in.Original() != "RUN d"; in.Trigger() != want {
			t.Errorf("%s: got trigger %v, want %v", in.Original(), in.Trigger(), want)
		}
	}
	if diff := cmp.Diff([]string{"ARG A=1", "COPY <<x /y", "RUN c", "RUN d"}, got); diff != "" {
		t.Errorf("instructions differ (-want +got):\n%s", diff)
	}
	_, list, err := evaluate(f, f.Stages[2], ScopeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := list[1].(*Copy).Heredocs[0].Data; got != "1\n" {
		t.Errorf("document of a trigger: got %q, want %q", got, "1\n")
	}
	if n := len(f.Stages[5].Instructions); n != 0 {
		t.Errorf("got %d triggers in a grandchild, want none", n)
	}

	list, err = f.ParseOnBuild(f.Stages[2], []string{"COPY --from=tool a b", "RUN x"})
	if err != nil {
		t.Fatal(err)
	}
	if c := list[0].(*Copy); c.FromStage != f.Stages[1] || c.Location() != f.Stages[2].Loc || !c.Trigger() {
		t.Errorf("got from %v at %v, want stage 1 at the FROM", c.FromStage, c.Location())
	}
	if got := len(Needed(f.Stages[2], list...)); got != 3 {
		t.Errorf("got %d stages, want 3: the trigger needs tool", got)
	}
	s := NewScope(f, ScopeOptions{})
	if got := s.Title(list[1]); got != "ONBUILD RUN x" {
		t.Errorf("title: got %q", got)
	}
}

func TestOnBuildErrors(t *testing.T) {
	f := mustParse(t, Options{}, "", "FROM a")
	for _, tt := range []struct{ name, trigger, want, hint string }{
		{"unknown", "RUNN x", `ONBUILD trigger "RUNN x": unknown instruction: RUNN`, "did you mean RUN?"},
		{"two", "RUN x\nRUN y", `ONBUILD trigger "RUN x\nRUN y": onbuild trigger should be a single expression`, ""},
		{"none", "", `ONBUILD trigger "": file with no instructions`, ""},
		{"stage", "FROM x", `ONBUILD trigger "FROM x": *instructions.Stage is not a command type`, ""},
		{"security", "RUN --security=insecure y", `ONBUILD trigger "RUN --security=insecure y": RUN --security is not supported yet`, runFlagHints["security"]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.ParseOnBuild(f.Stages[0], []string{tt.trigger})
			if err == nil {
				t.Fatal("got no error")
			}
			if pe := asParseError(t, err); pe.Err.Error() != tt.want || pe.Hint != tt.hint || pe.Line != 2 {
				t.Errorf("got line %d %q hint %q, want line 2 %q %q", pe.Line, pe.Err, pe.Hint, tt.want, tt.hint)
			}
		})
	}
	var un *Unsupported
	if _, err := f.ParseOnBuild(f.Stages[0], []string{"RUN --security=insecure x"}); !errors.As(err, &un) {
		t.Errorf("got %v, want *Unsupported", err)
	}
	g := mustParse(t, Options{}, "FROM a AS b", "ONBUILD RUN --security=insecure y", "FROM b AS c", "FROM a")
	if _, err := g.Target("c"); !errors.As(err, &un) {
		t.Errorf("a stage whose base has a trigger that is not supported: got %v, want *Unsupported", err)
	}
	if _, err := g.Target("b"); err != nil {
		t.Errorf("the stage that only stores the trigger: got %v, want no error", err)
	}
}

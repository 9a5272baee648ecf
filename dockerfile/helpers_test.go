package dockerfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// mustParse parses lines joined by newlines.
func mustParse(t *testing.T, o Options, lines ...string) *File {
	t.Helper()
	f, err := Parse("Dockerfile", []byte(strings.Join(lines, "\n")+"\n"), o)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return f
}

// evaluate runs one stage and the stages under it, and returns the scope and the expanded instructions.
func evaluate(f *File, st *Stage, o ScopeOptions) (*Scope, []Instruction, error) {
	if st.BaseStage != nil {
		parent, _, err := evaluate(f, st.BaseStage, o)
		if err != nil {
			return nil, nil, err
		}
		o = ScopeOptions{Parent: parent}
	}
	s := NewScope(f, o)
	var out []Instruction
	for _, in := range st.Instructions {
		x, err := s.Expand(in)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, x)
	}
	return s, out, nil
}

// dump writes a file as it is after evaluation: what golden tests compare.
func dump(f *File) string {
	var b strings.Builder
	for _, st := range f.Stages {
		fmt.Fprintf(&b, "stage %d %q from %q platform %q lines %d-%d\n", st.Index, st.Name, st.BaseName, st.Platform, st.Loc.Start, st.Loc.End)
		if st.BaseStage != nil {
			fmt.Fprintf(&b, "  base stage %d\n", st.BaseStage.Index)
		}
		var parent *Scope
		if st.BaseStage != nil {
			var err error
			if parent, _, err = evaluate(f, st.BaseStage, ScopeOptions{}); err != nil {
				fmt.Fprintf(&b, "  error %v\n", err)
				continue
			}
		}
		s := NewScope(f, ScopeOptions{Parent: parent})
		for _, in := range st.Instructions {
			title := s.Title(in)
			x, err := s.Expand(in)
			if err != nil {
				fmt.Fprintf(&b, "  error %v\n", err)
				break
			}
			fmt.Fprintf(&b, "  %d-%d %s\n", in.Location().Start, in.Location().End, title)
			fmt.Fprintf(&b, "    history %q\n", s.CreatedBy(x))
			dumpFields(&b, x)
		}
		fmt.Fprintf(&b, "  env %q\n  run env %q\n  args %q\n  shell %q workdir %q\n", s.Env(), s.RunEnv(), s.Args(), s.Shell(), s.Workdir())
		for _, w := range s.lint.warnings {
			fmt.Fprintf(&b, "  warning %s\n", w)
		}
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(&b, "warning %s\n", w)
	}
	return b.String()
}

func dumpFields(b *strings.Builder, in Instruction) {
	switch c := in.(type) {
	case *Run:
		fmt.Fprintf(b, "    argv %q network %s\n", c.Args, c.Network)
		if c.Script != nil {
			fmt.Fprintf(b, "    script %s %o %q\n", c.Script.Path, c.Script.Mode, c.Script.Data)
		}
	case *Copy:
		if c.FromStage != nil {
			fmt.Fprintf(b, "    from stage %d\n", c.FromStage.Index)
		} else if c.From != "" {
			fmt.Fprintf(b, "    from image %s\n", c.From)
		}
		dumpTransfer(b, &c.Transfer)
	case *Add:
		dumpTransfer(b, &c.Transfer)
	case *OnBuild:
		fmt.Fprintf(b, "    trigger %q\n", c.Expression)
	case *Entrypoint:
		fmt.Fprintf(b, "    args %q resets cmd %v\n", c.Args, c.ResetsCmd)
	}
}

func dumpTransfer(b *strings.Builder, t *Transfer) {
	fmt.Fprintf(b, "    sources %q target %q chown %q chmod %q link %v\n", t.Sources, t.Target, t.Chown, t.Chmod, t.Link)
	for _, h := range t.Heredocs {
		fmt.Fprintf(b, "    document %s %q\n", h.Name, h.Data)
	}
}

func asParseError(t *testing.T, err error) *ParseError {
	t.Helper()
	var pe *ParseError
	if !errors.As(err, &pe) {
		t.Fatalf("got error %v (%T), want a *ParseError", err, err)
	}
	return pe
}

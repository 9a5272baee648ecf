package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
)

// errWarnings ends --check where it has found something; the report has said what.
var errWarnings = errors.New("the Dockerfile has warnings")

// calls says whether the flags ask for something else than a build.
func (f *buildFlags) calls() bool { return f.check || f.call != "build" }

// call does what --call asks for instead of a build, on a parsed Dockerfile. The
// result is for when the progress display has ended.
func (a *app) call(ctx context.Context, f *buildFlags, o *build.Options) (result func() error, err error) {
	if f.call == "targets" {
		return func() error { return a.printTargets(o.File) }, nil
	}
	warnings, err := build.Lint(ctx, *o)
	return func() error { return a.printCheck(o.File, warnings) }, err
}

// printCheck writes what --check has found as docker does.
func (a *app) printCheck(file *dockerfile.File, warnings []dockerfile.Warning) error {
	n := len(warnings)
	switch n {
	case 0:
		fmt.Fprintln(a.stdout, "Check complete, no warnings found.")
	case 1:
		fmt.Fprintln(a.stdout, "Check complete, 1 warning has been found!")
	default:
		fmt.Fprintf(a.stdout, "Check complete, %d warnings have been found!\n", n)
	}
	for _, w := range warnings {
		fmt.Fprint(a.stdout, "\n", warningText(w, file))
	}
	if n == 0 {
		return nil
	}
	return &hintError{errWarnings, "each has an address that says more; # check=skip=RULE at the top of the Dockerfile silences a rule"}
}

// warningText is a warning with the lines that it is about.
func warningText(w dockerfile.Warning, file *dockerfile.File) string {
	head := "WARNING: " + w.Rule
	if w.URL != "" {
		head += " - " + w.URL
	}
	text := printable(head+"\n"+w.Text) + "\n"
	if w.Line > 0 && file != nil {
		text += progress.SourceBox(file.Name, file.Lines, w.Line, w.Line)
	}
	return text
}

// printTargets lists the stages that --target can name, as docker does.
func (a *app) printTargets(file *dockerfile.File) error {
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 4, ' ', 0)
	fmt.Fprintln(tw, "TARGET\tDESCRIPTION")
	for i, s := range file.Stages {
		name := s.Name
		last := i == len(file.Stages)-1
		if name == "" && !last {
			continue
		}
		if last {
			if name != "" {
				name += " "
			}
			name += "(default)"
		}
		fmt.Fprintf(tw, "%s\t%s\n", name, "")
	}
	return tw.Flush()
}

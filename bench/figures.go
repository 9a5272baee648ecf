package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// figuresCommand takes every round of docs/figures.md that is missing.
func figuresCommand(ctx context.Context, args []string) error {
	var o options
	fs := flag.NewFlagSet("bench figures", flag.ContinueOnError)
	only := measuring(fs, &o, filepath.Join("bench", "out", "figures"))
	report := fs.String("report", "", "measure nothing: write the report of this directory to stdout")
	into := fs.String("into", "", "with -report: put the tables between the markers of this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("argument %q: there are only flags", fs.Arg(0))
	}
	if *report != "" {
		return writeReport(*report, *into, os.Stdout)
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(figureGroups, func(g group) bool { return g.name == name }) {
			return fmt.Errorf("-only %s: there is no such group", name)
		}
	}
	return measureFigures(ctx, o)
}

func measureFigures(ctx context.Context, o options) (err error) {
	e, err := newEnv(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	var failed []string
	for _, g := range figureGroups {
		if len(o.only) > 0 && !slices.Contains(o.only, g.name) {
			continue
		}
		bad, gerr := e.measureGroup(ctx, g)
		failed = append(failed, bad...)
		if gerr != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted: what was measured is kept")
			}
			failed = append(failed, g.name)
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", g.name, gerr)
		}
	}
	f, err := os.Create(filepath.Join(e.out, "report.md"))
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := errors.Join(writeReport(e.out, "", f), f.Close()); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("these failed (the report says why): %s", strings.Join(failed, ", "))
	}
	return nil
}

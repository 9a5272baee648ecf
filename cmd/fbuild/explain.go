package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
)

// errNoReport says that there is no build to explain.
var errNoReport = errors.New("no build of it is remembered")

// explainFlags are those of `fbuild explain`.
type explainFlags struct {
	file, target, platform, format string
	build                          int
	all, unused                    bool
}

func (a *app) explainCommand() *cobra.Command {
	f := &explainFlags{}
	cmd := &cobra.Command{
		Use: "explain [flags] [STEP] [PATH]", Short: "Say why each step of the last build ran, or was reused",
		Long: `Say for each step of the last build of a Dockerfile whether it ran, and why, or how its
result was found. STEP shows one step in full: its number as the build prints it (3, 3/7
or build:3, with the stage), or the line of the Dockerfile (:12 or Dockerfile:12). PATH is
the build context, the current directory where there is none. Nothing is built.

With --unused: the files of the context that no step looked at, the largest first, as a
help for a .dockerignore.`,
		Example: `  fbuild explain
  fbuild explain 4
  fbuild explain build:3 -f docker/Dockerfile .
  fbuild explain --format=json | jq '.steps[] | select(.verdict == "run")'
  fbuild explain --unused`,
		RunE: func(cmd *cobra.Command, args []string) error {
			step, path, err := stepAndPath(args)
			if err != nil {
				return err
			}
			if err := checkFormat(f.format); err != nil {
				return err
			}
			if f.unused && step != "" {
				return &hintError{usagef("--unused is about the whole build, not about step %s", step), "leave one of them out"}
			}
			return a.withStore(cmd.Context(), func(s *cache.Store) error { return a.explain(cmd.Context(), s, f, step, path) })
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "the Dockerfile (default PATH/Dockerfile)")
	fl.StringVar(&f.target, "target", "", "the stage that was built (default: that of the last build)")
	fl.StringVar(&f.platform, "platform", "", "the platform that was built for (default: that of the last build, of several the first)")
	fl.IntVar(&f.build, "build", 1, "which build: 1 is the last, 2 the one before, ...")
	fl.BoolVarP(&f.all, "all", "a", false, "leave nothing out of long lists")
	fl.BoolVar(&f.unused, "unused", false, "list the files of the context that no step looked at")
	fl.StringVar(&f.format, "format", "text", "text or json")
	completeFormat(cmd)
	register(cmd, "target", (&buildFlags{}).completeStage)
	return cmd
}

func completeFormat(cmd *cobra.Command) {
	register(cmd, "format", words{word("text", "for people"), word("json", "for programs")}.complete)
}

func checkFormat(format string) error {
	if format != "text" && format != "json" {
		return &hintError{usagef("--format %q is not supported", format), "there are text and json"}
	}
	return nil
}

// stepRE is what a step can be called: [build 3/7], 3/7, 3, build:3, :12, Dockerfile:12.
var stepRE = regexp.MustCompile(`^(?:\[(?:(?P<in>\S+) +)? *(?P<n>\d+)/\d+\]|(?P<bare>\d+)(?:/\d+)?|(?P<name>[^/]*):(?P<at>\d+))$`)

// stepAndPath tells the arguments apart: a step looks as one, anything else is the
// context.
func stepAndPath(args []string) (step, path string, err error) {
	path = "."
	if len(args) > 2 {
		return "", "", usagef("explain takes a step and a build context, not %d arguments", len(args))
	}
	for i, arg := range args {
		isStep := stepRE.MatchString(arg)
		if st, serr := os.Stat(arg); serr == nil && st.IsDir() && (i > 0 || len(args) == 1 && strings.Contains(arg, "/")) {
			isStep = false
		}
		switch {
		case isStep && step == "":
			step = arg
		case i == len(args)-1:
			path = arg
		default:
			return "", "", &hintError{usagef("%q is no step", arg), "a step is its number as the build prints it (3 or build:3) or a line of the Dockerfile (:12)"}
		}
	}
	return step, path, nil
}

// findReports returns the builds of the Dockerfile that the flags mean, with the one
// that is meant first.
func (f *explainFlags) find(s *cache.Store, path string) ([]build.Report, error) {
	if path != "-" && !build.IsRemoteContext(path) {
		if err := checkContext(path, ""); err != nil {
			return nil, err
		}
	}
	from := origin(path, f.file)
	if from.Dockerfile == "" {
		return nil, &hintError{usagef("builds with a context from stdin are not remembered"), "give the directory or the address as PATH"}
	}
	list, err := build.Reports(s, from.Dockerfile)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, &hintError{
			fmt.Errorf("%s: %w", from.Dockerfile, errNoReport),
			"build it first; -f names another Dockerfile, --root another store",
		}
	}
	target := list[0].Target
	if f.target != "" {
		target = f.target
	}
	platform := ""
	if f.platform != "" {
		p, err := onePlatform([]string{f.platform})
		if err != nil {
			return nil, err
		}
		platform = p.String()
	}
	var same []build.Report
	for _, r := range list {
		if r.Target != target || platform != "" && r.Platform != platform {
			continue
		}
		platform = r.Platform
		same = append(same, r)
	}
	if len(same) == 0 {
		return nil, &hintError{fmt.Errorf("%s, target %q, platform %q: %w", from.Dockerfile, target, platform, errNoReport), "builds are remembered with the --target and the --platform that they had"}
	}
	if f.build < 1 || f.build > len(same) {
		return nil, &hintError{usagef("--build %d: %d builds are remembered", f.build, len(same)), "1 is the last one"}
	}
	return same[f.build-1:], nil
}

// pickStep finds the step that a text names.
func pickStep(r *build.Report, text string) (int, error) {
	m := stepRE.FindStringSubmatch(text)
	group := func(name string) string { return m[stepRE.SubexpIndex(name)] }
	stage, number, line := group("in"), group("n")+group("bare"), ""
	if at := group("at"); at != "" {
		number, stage = at, group("name")
		if stage == "" || stage == filepath.Base(r.Dockerfile) || stage == "Dockerfile" {
			line, number, stage = at, "", ""
		}
	}
	var found []int
	for i, s := range r.Steps {
		if line != "" && strconv.Itoa(s.Line) == line ||
			strconv.Itoa(s.Number) == number && (stage == "" || strings.EqualFold(stage, s.Stage)) {
			found = append(found, i)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 && stage == "" && line == "" {
		var names []string
		for _, i := range found {
			names = append(names, fmt.Sprintf("%s:%s", r.Steps[i].Stage, number))
		}
		return 0, &hintError{usagef("step %s is in several stages", text), "say which: " + strings.Join(names, ", ")}
	}
	if len(found) > 1 { // ONBUILD triggers have one line
		return found[0], nil
	}
	return 0, &hintError{usagef("the build has no step %s", text), "fbuild explain lists its steps: RUN, COPY, ADD and WORKDIR"}
}

// explain does one `fbuild explain`.
func (a *app) explain(ctx context.Context, s *cache.Store, f *explainFlags, step, path string) error {
	reports, err := f.find(s, path)
	if err != nil {
		return err
	}
	if f.unused {
		return a.explainUnused(ctx, s, f, &reports[0])
	}
	e := &explanation{report: &reports[0], all: f.all, width: textWidth(a.stdout)}
	if step != "" {
		i, err := pickStep(e.report, step)
		if err != nil {
			return err
		}
		e.only = &e.report.Steps[i]
	}
	for i := range e.report.Steps {
		e.details = append(e.details, build.Detail(s, reports, i))
	}
	e.passOver()
	if f.format == "json" {
		return writeIndented(a.stdout, e.json())
	}
	_, err = fmt.Fprint(a.stdout, e.text())
	return err
}

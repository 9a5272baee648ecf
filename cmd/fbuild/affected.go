package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/fetch"
)

// exitAffected is the status of `fbuild affected --exit-code` where an image is.
const exitAffected = 10

// maxFileList bounds what --files - reads.
const maxFileList = 64 << 20

// affectedFlags are those of `fbuild affected`.
type affectedFlags struct {
	since, format string
	files         []string
	dockerfiles   []string
	exitCode, all bool
}

func (a *app) affectedCommand() *cobra.Command {
	f := &affectedFlags{}
	cmd := &cobra.Command{
		Use: "affected [flags] [DIR]", Short: "Say which images and steps a change would build again",
		Long: `Say for each Dockerfile below DIR (the current directory) whether its image would be
another one, which steps would run and why: against the last build of each, from what its
steps looked at. Nothing is built, fetched or stored. A Dockerfile is a file called
Dockerfile, Dockerfile.NAME or NAME.Dockerfile.

What changed is everything that differs from the last builds, or with --since only what
differs from a git revision (main... is where this branch left main), or the files of
--files. An image in whose reach nothing of it is counts as untouched, whatever the store
knows.

Exit codes: 0, or with --exit-code 10 where an image is affected; 1 where that could not
be found out, 2 wrong usage.`,
		Example: `  fbuild affected --since main...
  git diff --name-only HEAD~1 | fbuild affected --files -
  fbuild affected --since origin/main --format=json | jq -r '.images[] | select(.affected) | .dockerfile'
  fbuild affected --since HEAD~1 --exit-code -f api/Dockerfile || make -C api image`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("affected takes one directory, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return a.affected(cmd.Context(), f, dir)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.since, "since", "", "what differs from this git revision (REV... is where the branch left it)")
	fl.StringSliceVar(&f.files, "files", nil, "the files that changed, relative to DIR (- reads them from stdin, one a line)")
	fl.StringArrayVarP(&f.dockerfiles, "file", "f", nil, "a Dockerfile, instead of looking for all below DIR")
	fl.BoolVar(&f.exitCode, "exit-code", false, "end with status 10 where an image is affected")
	fl.BoolVarP(&f.all, "all", "a", false, "list the images that are not affected as well")
	fl.StringVar(&f.format, "format", "text", "text or json")
	completeFormat(cmd)
	register(cmd, "since", cobra.NoFileCompletions)
	return cmd
}

func (a *app) affected(ctx context.Context, f *affectedFlags, dir string) error {
	if err := checkFormat(f.format); err != nil {
		return err
	}
	if f.since != "" && len(f.files) > 0 {
		return &hintError{usagef("--since and --files are given together"), "git diff --name-only REV | fbuild affected --files - takes both"}
	}
	o := build.AffectedOptions{All: f.since == "" && len(f.files) == 0}
	var err error
	if o.Dir, err = filepath.Abs(dir); err != nil {
		return usagef("directory: %w", err)
	}
	if st, err := os.Stat(o.Dir); err != nil || !st.IsDir() {
		return usagef("%s is not a directory", dir)
	}
	for _, name := range f.dockerfiles {
		abs, err := filepath.Abs(name)
		if err != nil {
			return usagef("-f: %w", err)
		}
		if _, err := os.Stat(abs); err != nil {
			return usagef("-f: %w", err)
		}
		o.Dockerfiles = append(o.Dockerfiles, abs)
	}
	if o.Changed, err = f.changed(ctx, o.Dir); err != nil {
		return err
	}
	if o.Platform, err = onePlatform(nil); err != nil {
		return err
	}
	return a.withStore(ctx, func(s *cache.Store) error {
		o.Store = s
		list, err := build.FindAffected(ctx, o)
		if err != nil {
			return err
		}
		return a.printAffected(f, s, &o, list)
	})
}

// changed lists what changed, in full.
func (f *affectedFlags) changed(ctx context.Context, dir string) ([]string, error) {
	if f.since != "" {
		return fetch.Changed(ctx, dir, f.since)
	}
	var out []string
	for _, name := range f.files {
		if name != "-" {
			out = append(out, name)
			continue
		}
		sc := bufio.NewScanner(io.LimitReader(&patientFile{ctx, os.Stdin}, maxFileList))
		for sc.Scan() {
			if sc.Text() != "" {
				out = append(out, sc.Text())
			}
		}
		if err := sc.Err(); err != nil {
			return nil, fmt.Errorf("read --files: %w", err)
		}
	}
	for i, name := range out {
		if !filepath.IsAbs(name) {
			out[i] = filepath.Join(dir, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// printAffected prints the answer, and makes the exit status of it.
func (a *app) printAffected(f *affectedFlags, s *cache.Store, o *build.AffectedOptions, list []build.Affected) error {
	build.SortAffected(list)
	hit := 0
	out := jsonAffected{Images: []jsonImage{}}
	var b strings.Builder
	for i := range list {
		image := &list[i]
		if image.Hit() {
			hit++
		}
		steps := affectedSteps(s, image)
		if f.format == "json" {
			out.Images = append(out.Images, imageJSON(o, image, steps))
		} else if image.Hit() || f.all {
			imageText(&b, o, image, steps, f.all)
		}
	}
	out.Affected = hit
	var err error
	if f.format == "json" {
		err = writeIndented(a.stdout, out)
	} else {
		fmt.Fprintf(&b, "%d of %s affected\n", hit, counted(len(list), "image", "images"))
		_, err = fmt.Fprint(a.stdout, printable(b.String()))
	}
	if err == nil && f.exitCode && hit > 0 {
		return &statusError{errAffected, exitAffected}
	}
	return err
}

// errAffected ends affected --exit-code; the report has said the rest.
var errAffected = errors.New("images are affected")

// affectedStep is a step that a build would not reuse.
type affectedStep struct {
	build.StepReport
	label  string
	detail build.StepDetail
	why    string
}

// affectedSteps are the steps of a plan that are not reused.
func affectedSteps(s *cache.Store, image *build.Affected) []affectedStep {
	if image.Plan == nil {
		return nil
	}
	reports := []build.Report{*image.Plan, *image.Last}
	e := &explanation{report: image.Plan, details: make([]build.StepDetail, len(image.Plan.Steps))}
	var out []affectedStep
	for i, step := range image.Plan.Steps {
		if step.Verdict == build.VerdictExact || step.Verdict == build.VerdictTrace {
			continue
		}
		e.details[i] = build.Detail(s, reports, i)
		why := e.why(i)
		if step.Verdict == build.VerdictMay {
			why = step.Why
		}
		out = append(out, affectedStep{step, image.Plan.Label(step), e.details[i], why})
	}
	return out
}

// imageText is an image with the steps that would run.
func imageText(b *strings.Builder, o *build.AffectedOptions, image *build.Affected, steps []affectedStep, all bool) {
	name := relative(o.Dir, image.Dockerfile)
	if image.Target != "" {
		name += ", target " + image.Target
	}
	if image.Platform != "" {
		name += ", " + image.Platform
	}
	text := map[string]string{
		build.StatusSame: "the same image", build.StatusChanges: "another image", build.StatusNeverBuilt: "not known",
		build.StatusUntouched: "untouched", build.StatusBroken: "cannot be built",
	}[image.Status]
	if image.Why != "" {
		text += ": " + image.Why
	} else if image.Status == build.StatusChanges && len(steps) == 0 {
		text += ": its configuration"
	}
	fmt.Fprintf(b, "%s: %s\n", name, text)
	may := 0
	for _, s := range steps {
		if s.Verdict == build.VerdictMay && s.why == stepBelow && !all {
			may++
			continue
		}
		line := fmt.Sprintf("  %s %s", s.label, short(s.Title, titleColumn))
		verb := "runs"
		if s.Verdict == build.VerdictMay {
			verb = "may run"
		} else if s.Error != "" {
			verb = "fails"
		}
		if s.why != "" {
			verb += ": " + s.why
		}
		fmt.Fprintf(b, "%s\n      %s\n", line, verb)
	}
	if may > 0 {
		fmt.Fprintf(b, "  and %s after it may run\n", counted(may, "step", "steps"))
	}
}

// stepBelow is why most steps may run.
const stepBelow = build.WhyBelow

// relative shortens a path below a directory.
func relative(dir, name string) string {
	if rel, ok := strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/"); ok {
		return rel
	}
	return name
}

// jsonAffected is the JSON of `fbuild affected`.
type jsonAffected struct {
	Affected int         `json:"affected"`
	Images   []jsonImage `json:"images"`
}

type jsonImage struct {
	Dockerfile string     `json:"dockerfile"` // relative to DIR
	Target     string     `json:"target,omitempty"`
	Platform   string     `json:"platform,omitempty"` // where it is not this host's
	Names      []string   `json:"names,omitempty"`
	Affected   bool       `json:"affected"`
	Status     string     `json:"status"`
	Why        string     `json:"why,omitempty"`
	Files      []string   `json:"files,omitempty"` // of what changed, those in its reach
	Steps      []jsonStep `json:"steps,omitempty"` // that are not reused
}

func imageJSON(o *build.AffectedOptions, image *build.Affected, steps []affectedStep) jsonImage {
	out := jsonImage{
		Dockerfile: relative(o.Dir, image.Dockerfile), Target: image.Target, Platform: image.Platform, Names: image.Names,
		Affected: image.Hit(), Status: image.Status, Why: image.Why,
	}
	for _, t := range image.Touches {
		out.Files = append(out.Files, relative(o.Dir, t))
	}
	for _, s := range steps {
		j := jsonStep{
			Step: s.label, Stage: s.Stage, Number: s.Number, Line: s.Line, Instruction: s.Title, Verdict: s.Verdict,
			Why: s.why, ChangedTotal: s.detail.Total, Inputs: s.Inputs, Error: s.Error,
		}
		for _, c := range s.detail.Changed {
			j.Changed = append(j.Changed, jsonChange{"/" + c.Path, c.Mount, c.What})
		}
		out.Steps = append(out.Steps, j)
	}
	return out
}

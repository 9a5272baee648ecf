package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/outfile"
)

// report writes what the caller asked to know.
func (a *app) report(f *buildFlags, o *build.Options, res *build.Result) error {
	if n := len(res.Warnings); n > 0 && !f.quiet {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		more := " (use --debug to expand)"
		if f.debug {
			more = ""
		}
		fmt.Fprintf(a.stderr, "\n %d warning%s found%s:\n", n, plural, more)
		for _, w := range res.Warnings {
			text := w.String()
			if w.Rule == "" {
				text = w.Text
			}
			fmt.Fprintf(a.stderr, " - %s\n", printable(text))
			if f.debug && w.Rule != "" {
				fmt.Fprint(a.stderr, warningText(w, o.File))
			}
		}
	}
	if f.iidFile != "" && res.ImageID == "" {
		fmt.Fprintln(a.stderr, "fbuild: warning: no image was made, so", f.iidFile, "is not written")
	} else if f.iidFile != "" {
		if err := outfile.Write(f.iidFile, text(res.ImageID)); err != nil {
			return fmt.Errorf("write image id: %w", err)
		}
	}
	if f.metadata != "" {
		if err := writeMetadata(f.metadata, res); err != nil {
			return err
		}
	}
	if f.quiet && res.ImageID != "" && !writesStdout(o.Outputs) {
		fmt.Fprintln(a.stdout, res.ImageID)
	}
	return nil
}

// writeMetadata writes docker's keys of a result.
func writeMetadata(name string, res *build.Result) error {
	m := map[string]any{}
	if res.ImageID != "" {
		if !res.Descriptor.MediaType.IsIndex() {
			m["containerimage.config.digest"] = res.ImageID
		}
		m["containerimage.digest"] = res.Descriptor.Digest.String()
		m["containerimage.descriptor"] = res.Descriptor
	}
	if len(res.Names) > 0 {
		m["image.name"] = strings.Join(res.Names, ",")
	}
	if res.Layers.Frames > 0 {
		m["fbuild.layers"] = res.Layers // what was compressed, and what was there already
	}
	return writeJSON(name, m)
}

// failedStep is fbuild.step in the metadata file: what failed.
type failedStep struct {
	Dockerfile  string `json:"dockerfile"`
	Line        int    `json:"line"`
	Stage       string `json:"stage"`
	Instruction string `json:"instruction"`
}

// reportFailure writes the metadata file of a build whose step failed. It holds
// none of docker's keys, because there is no image.
func (f *buildFlags) reportFailure(o *build.Options, err error) error {
	var step *build.StepError
	if f.metadata == "" || !errors.As(err, &step) {
		return nil
	}
	m := map[string]any{
		"fbuild.error": err.Error(),
		"fbuild.step":  failedStep{o.File.Name, step.Location.Start, step.Stage, step.Instruction},
	}
	if exit := exitOf(err); exit != nil {
		m["fbuild.run.exit-code"] = exit.ShellCode()
	}
	return writeJSON(f.metadata, m)
}

// exitOf is how the command of a RUN ended, nil where that is not why the build
// failed.
func exitOf(err error) *exec.ExitError {
	var step *build.StepError
	var exit *exec.ExitError
	if errors.As(err, &step) && step.Command != "" && errors.As(step.Err, &exit) {
		return exit
	}
	return nil
}

// statusError ends fbuild with an exit status of its own.
type statusError struct {
	err  error
	code int
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// withStatus gives an error the exit status that --exit-code asks for.
func (f *buildFlags) withStatus(err error) error {
	if exit := exitOf(err); exit != nil && f.exitCode == "run" {
		return &statusError{err, exit.ShellCode()}
	}
	return err
}

// writeJSON writes a file that appears only when it is whole.
func writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = outfile.Write(name, text(string(data)+"\n"))
	}
	if err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	return nil
}

// text is what outfile.Write takes for a short one.
func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

package build

import (
	"fmt"

	"github.com/fbuild/fbuild/dockerfile"
)

// StepError is a step that failed, with the place that made it.
type StepError struct {
	Stage       string // as progress shows it
	Location    dockerfile.Location
	Instruction string // as progress shows it
	Command     string // of a RUN: the command line, as docker's message has it
	Err         error
}

// Error is docker's message for a RUN, and the cause alone for anything else.
func (e *StepError) Error() string {
	if e.Command != "" {
		return fmt.Sprintf("process %q did not complete successfully: %v", e.Command, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

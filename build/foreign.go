package build

import (
	"errors"
	"fmt"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/exec"
)

// ForeignError is a RUN whose programs this machine does not run.
type ForeignError struct {
	Platform v1.Platform // of the stage
	How      exec.Foreign
	Err      error // what the kernel said, nil where it was not tried
}

// Error says what is missing.
func (e *ForeignError) Error() string {
	text := fmt.Sprintf("the stage is %s, and this host runs linux/%s", e.Platform, runtime.GOARCH)
	switch e.How {
	case exec.Unfixed:
		text += fmt.Sprintf(": binfmt_misc has a handler for %s without the flag F, so it is not found in an image", e.Platform.Architecture)
	case exec.Unhandled:
		text += fmt.Sprintf(": binfmt_misc has no handler for %s", e.Platform.Architecture)
	case exec.Native, exec.Emulated, exec.Unknown:
	}
	if e.Err != nil {
		text += fmt.Sprintf(": %v", e.Err)
	}
	return text
}

// Unwrap is what the kernel said.
func (e *ForeignError) Unwrap() error { return e.Err }

// foreign returns the error of a command that cannot run here because of the stage's
// architecture; nil where it can, or might.
func foreign(c v1.ConfigFile) error {
	p := v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	how := exec.ForeignTo(p.Architecture)
	if p.OS != "linux" || how == exec.Unhandled || how == exec.Unfixed {
		return &ForeignError{Platform: p, How: how}
	}
	return nil
}

// maybeForeign explains a command that could not be started by the stage's architecture.
func maybeForeign(c v1.ConfigFile, err error) error {
	var exit *exec.ExitError
	how := exec.ForeignTo(c.Architecture)
	if how == exec.Native || !errors.As(err, &exit) || exit.Reason == "" {
		return err
	}
	return &ForeignError{Platform: v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}, How: how, Err: err}
}

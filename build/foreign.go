package build

import (
	"context"
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

// runs sees to it that commands of a stage's architecture run, with an emulator of this
// host where the kernel has none for it. Where nobody knows, the command tells.
func (r *runner) runs(ctx context.Context, c v1.ConfigFile) error {
	p := v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	how := exec.ForeignTo(p.Architecture)
	switch {
	case p.OS != "linux":
		return &ForeignError{Platform: p, How: exec.Unhandled}
	case how == exec.Native || how == exec.Emulated:
		return nil
	}
	path := exec.FindEmulator(p.Architecture)
	if path == "" {
		if how == exec.Unknown {
			return nil
		}
		return &ForeignError{Platform: p, How: how}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.emulated[p.Architecture] {
		return nil
	}
	box, err := r.open(ctx)
	if err != nil {
		return err
	}
	if err := box.Emulate(p.Architecture, path); err != nil {
		if how == exec.Unknown { // the kernel may have a handler that cannot be seen from here
			return nil
		}
		return &ForeignError{Platform: p, How: how, Err: err}
	}
	if r.emulated == nil {
		r.emulated = map[string]bool{}
	}
	r.emulated[p.Architecture] = true
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

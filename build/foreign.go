package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"

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

// emulation says by what the commands of a build's foreign architectures run. A handler of
// our own hides all of the host's, also from commands that run already: what those start
// would fail, and they may go on without it. So nothing is hidden that a command relies on.
type emulation struct {
	own  map[string]bool // architectures that the sandbox has an emulator for
	host map[string]bool // those left to the host's handlers, or to what cannot be seen
}

// choose returns the emulator to register for an architecture, "" for none. find looks
// for one in PATH.
func (e *emulation) choose(arch string, how exec.Foreign, find func(arch string) string) (path string, err error) {
	if e.own[arch] {
		return "", nil
	}
	path = find(arch)
	if len(e.own) == 0 && (e.host[arch] || how == exec.Emulated || how == exec.Unknown && path == "") {
		if e.host == nil {
			e.host = map[string]bool{}
		}
		e.host[arch] = true
		return "", nil
	}
	switch {
	case path == "" && (how == exec.Emulated || how == exec.Unknown):
		return "", fmt.Errorf("an emulator in PATH is used for linux/%s, which hides the handlers of this host, and there is none in PATH for linux/%s", one(e.own), arch)
	case path == "":
		return "", errNoEmulator
	case len(e.host) > 0:
		return "", fmt.Errorf("%s would hide the handler of this host that commands of linux/%s need", path, one(e.host))
	}
	return path, nil
}

var errNoEmulator = errors.New("no emulator")

// one is the first architecture of a set.
func one(set map[string]bool) string { return slices.Min(slices.Collect(maps.Keys(set))) }

// runs sees to it that commands of a stage's architecture run, with an emulator of this
// host where the kernel has none for it. Where nobody knows, the command tells.
func (r *runner) runs(ctx context.Context, c v1.ConfigFile) error {
	p := v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	how := exec.ForeignTo(p.Architecture)
	switch {
	case p.OS != "linux":
		return &ForeignError{Platform: p, How: exec.Unhandled}
	case how == exec.Native:
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	path, err := r.emulation.choose(p.Architecture, how, exec.FindEmulator)
	switch {
	case errors.Is(err, errNoEmulator):
		return &ForeignError{Platform: p, How: how}
	case err != nil:
		return &ForeignError{Platform: p, How: how, Err: err}
	case path == "":
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
	if r.emulation.own == nil {
		r.emulation.own = map[string]bool{}
	}
	r.emulation.own[p.Architecture] = true
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

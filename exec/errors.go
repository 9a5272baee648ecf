package exec

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

// ErrUnavailable says that this host does not let the caller run commands in a sandbox; the error around it names the cause and the cure.
var ErrUnavailable = errors.New("sandbox not available on this host")

// errClosed is what is left of a sandbox whose keeper is gone.
var errClosed = errors.New("the sandbox is closed")

// ExitError is the end of a command that was not status 0.
type ExitError struct {
	// Code is the exit status; 127 if the command was not found, 126 if it could not be executed; -1 if a signal ended it.
	Code int
	// Signal is the signal that ended the command, else 0.
	Signal int
	// Reason says why the command could not be started, "" if it ran.
	Reason string
}

// Error names the status as docker does.
func (e *ExitError) Error() string {
	switch {
	case e.Reason != "":
		return fmt.Sprintf("%s (exit code: %d)", e.Reason, e.Code)
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d (%s) (exit code: %d)", e.Signal, unix.SignalName(unix.Signal(e.Signal)), e.ShellCode())
	default:
		return fmt.Sprintf("exit code: %d", e.Code)
	}
}

// ShellCode is the status as a shell prints it: 128+n for signal n.
func (e *ExitError) ShellCode() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}

// unavailable makes a refusal of the host an ErrUnavailable.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, reexec.Diagnose(err))
}

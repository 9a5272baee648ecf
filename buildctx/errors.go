package buildctx

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrChanged is returned for a file that changed while it was read, twice, or that became something else since the scan.
var ErrChanged = errors.New("it changed during the build")

// PathError is a fault of one file of the context.
type PathError struct {
	Op   string // a verb: "read", "scan"
	Path string // inside the context
	Err  error
	Hint string // what the user can do, or ""
}

func (e *PathError) Error() string {
	p := e.Path
	if p == "" {
		p = "."
	}
	return fmt.Sprintf("%s %q in build context: %v", e.Op, p, e.Err)
}

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

const ignoreHint = "list it in .dockerignore"

// pathError adds the hint that fits to the cause.
func pathError(op, path string, err error) error {
	e := &PathError{Op: op, Path: path, Err: err}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "make it readable for this user, or " + ignoreHint
	case errors.Is(err, ErrChanged):
		e.Hint = "build again when nothing writes to it, or " + ignoreHint
	}
	return e
}

package fetch

import (
	"errors"
	"fmt"
)

// ErrChecksum is the cause where the bytes or the commit are not those that the
// caller asked for.
var ErrChecksum = errors.New("checksum differs")

// ErrTooLarge is the cause where a file exceeds the size that the caller allows.
var ErrTooLarge = errors.New("file is too large")

// Error is a source that could not be fetched.
type Error struct {
	Source string // the address, without credentials
	Hint   string // what to do, "" where nobody knows
	Err    error
}

// Error returns source and cause.
func (e *Error) Error() string { return fmt.Sprintf("fetch %s: %v", e.Source, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Package outfile writes the files that a build was asked for.
//
// Invariants: a file appears only when it is whole, readable for others as docker's
// are; a device or a pipe is written into and never replaced, since root could lose
// /dev/null otherwise.
package outfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Write makes the file at name of what fn writes. Errors of fn and of the file are
// returned as they are.
func Write(name string, fn func(io.Writer) error) (err error) {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fn(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = &os.PathError{Op: "create", Path: name, Err: pe.Err} // the name that was asked for
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error before counts
		}
	}()
	err = fn(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

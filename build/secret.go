package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fbuild/fbuild/dockerfile"
)

// maxSecret bounds one secret, in bytes, as docker does.
const maxSecret = 500 << 10

// MountError is a mount of a RUN that cannot be had.
type MountError struct {
	Err  error
	Hint string // what to do about it, "" where the cause says it
}

// Error is the cause.
func (e *MountError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *MountError) Unwrap() error { return e.Err }

// read returns the bytes of a secret. A variable that is not set is empty.
func (s Secret) read() ([]byte, error) {
	if s.File == "" {
		return []byte(os.Getenv(s.Env)), nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("it has more than %d bytes", maxSecret)
	}
	return data, nil
}

// secret returns the bytes that a mount asks for; ok is false where nobody gave
// them and the mount can do without.
func (b *builder) secret(m *dockerfile.Mount) (data []byte, ok bool, err error) {
	s, given := b.opts.Secrets[m.ID]
	switch {
	case !given && m.Required:
		return nil, false, &MountError{
			fmt.Errorf("secret %q is required, and was not given", m.ID),
			fmt.Sprintf("give it with --secret id=%s,src=FILE, or from a variable with --secret id=%s,env=NAME", m.ID, m.ID),
		}
	case !given:
		return nil, false, nil
	}
	data, err = s.read()
	if err != nil {
		return nil, false, &MountError{fmt.Errorf("read secret %q: %w", m.ID, err), "the file is read by the step that needs it: it must stay where --secret says"}
	}
	if m.Env != nil && bytes.IndexByte(data, 0) >= 0 {
		return nil, false, &MountError{fmt.Errorf("secret %q holds a NUL byte and cannot be a variable", m.ID), "mount it as a file: drop env= from the mount"}
	}
	return data, true, nil
}

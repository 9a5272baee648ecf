package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Statuses of a command that could not be started, as shells and docker have them.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// lookPath finds the command in the PATH of its own environment; a name with a slash is taken as it is.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", &ExitError{Code: startCode(err), Reason: fmt.Sprintf("exec: %q: %v", name, plain(err, name))}
		}
		return name, nil
	}
	var denied error
	for dir := range strings.SplitSeq(lookupEnv(env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		// "./x", not "x": execve of a bare name is relative to the working directory all the same, but reads like a lookup.
		p := path.Join(dir, name)
		if !path.IsAbs(p) {
			p = "./" + p
		}
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", &ExitError{Code: codeNotExecutable, Reason: fmt.Sprintf("exec: %q: permission denied", name)}
	}
	return "", &ExitError{Code: codeNotFound, Reason: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

// lookupEnv is the last value of KEY, as most programs would see it.
func lookupEnv(env []string, key string) string {
	value := ""
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			value = v
		}
	}
	return value
}

func executable(name string) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return unix.EISDIR
	}
	if fi.Mode()&0o111 == 0 {
		return fs.ErrPermission
	}
	return nil
}

func plain(err error, name string) string {
	var pe *fs.PathError
	switch {
	case errors.As(err, &pe):
		return fmt.Sprintf("stat %s: %v", name, pe.Err)
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	}
	return err.Error()
}

func startCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return codeNotFound
	}
	return codeNotExecutable
}

// startError explains an execve that failed although the file is there. Failures of the machine (no memory, no more processes) stay what they are.
func startError(name string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) || errno == unix.ENOMEM || errno == unix.EAGAIN {
		return fmt.Errorf("start %s: %w", name, err)
	}
	reason := fmt.Sprintf("exec %s: %v", name, err)
	switch {
	case errors.Is(err, unix.ENOENT):
		reason += " (the interpreter or loader that it names is missing)"
	case errors.Is(err, unix.ENOEXEC):
		reason += " (built for another platform, or a script without #!)"
	}
	return &ExitError{Code: startCode(err), Reason: reason}
}

func commandError(err error) outcome {
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return outcome{Error: exit.Reason, Code: exit.Code}
	}
	return outcome{Error: err.Error()}
}

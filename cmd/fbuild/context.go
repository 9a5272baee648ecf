package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/dockerfile"
)

// maxIgnore bounds the ignore file of a context that others made.
const maxIgnore = 1 << 20

// checkContext refuses what no build context can be made of, and a stdin that is to
// be both the context and the Dockerfile.
func checkContext(path, file string) error {
	if path == "-" && file == "-" {
		return &hintError{
			usagef("stdin cannot be both the build context and the Dockerfile"),
			"give the Dockerfile with -f - and the context as a directory or an address, or put the Dockerfile into the tar",
		}
	}
	if build.IsRemoteContext(path) {
		if err := build.CheckLocation(path, ""); err != nil {
			return &usageError{err}
		}
		return nil
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &hintError{
			usagef("build context %s: no such directory", path),
			"name the directory with the files to copy, often \".\"; a repository or archive is named by its address, as https://HOST/REPO.git#BRANCH",
		}
	}
	if err != nil {
		return usagef("build context: %w", err)
	}
	if !st.IsDir() {
		return &hintError{
			usagef("build context %s is not a directory", path),
			"a tar goes through stdin: fbuild build - < FILE; a Dockerfile is named with -f",
		}
	}
	return nil
}

// source is where the Dockerfile and the context of a build are.
type source struct {
	*build.FetchedContext
	file string // as -f has it
}

// openSource fetches a remote context. The caller closes it after the build.
func openSource(ctx context.Context, o *build.Options, path, file string) (*source, error) {
	f, err := build.FetchContext(ctx, o.Store, build.ContextSpec{
		Location: path, Stdin: &patientFile{ctx, os.Stdin}, Secrets: o.Secrets, SSH: o.SSH, Progress: o.Progress,
	})
	if err != nil {
		return nil, err
	}
	return &source{f, file}, nil
}

// dockerfile returns the Dockerfile's path and text, bounded in size. In a remote
// context -f names a path inside.
func (s *source) dockerfile() (name string, src []byte, err error) {
	name = s.file
	if name == "" {
		name = "Dockerfile"
	}
	switch {
	case s.Dockerfile != nil && s.file != "":
		return name, nil, &hintError{
			usagef("the context is a Dockerfile alone, and -f %s names another", s.file), "leave out -f, or give a tar as the context",
		}
	case s.Dockerfile != nil:
		return name, s.Dockerfile, nil
	case s.file == "-":
		src, err = io.ReadAll(io.LimitReader(os.Stdin, dockerfile.MaxSize+1))
		name = "Dockerfile"
	case s.Remote():
		src, err = build.ReadContextFile(s.Dir, name, dockerfile.MaxSize)
	default:
		if s.file == "" {
			name = filepath.Join(s.Dir, name)
		}
		src, err = readBounded(name, dockerfile.MaxSize)
	}
	if err != nil && s.Remote() && s.file != "-" {
		return name, nil, &hintError{fmt.Errorf("read Dockerfile: %w", err), "name it with -f FILE, as a path inside of the context"}
	}
	if err != nil {
		return name, nil, &hintError{fmt.Errorf("read Dockerfile: %w", err), "name it with -f FILE"}
	}
	return name, src, nil
}

// readBounded reads a file up to one byte more than most.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, most+1))
}

// ignore finds the ignore file that belongs to the Dockerfile; nil for none.
func (s *source) ignore(name string) ([]byte, error) {
	if s.Dir == "" {
		return nil, nil
	}
	if s.file == "-" {
		name = ""
	}
	if !s.Remote() {
		data, _, err := buildctx.FindIgnore(s.Dir, name)
		return data, err
	}
	names := []string{".dockerignore"}
	if name != "" {
		names = []string{name + ".dockerignore", ".dockerignore"}
	}
	for _, n := range names {
		data, err := build.ReadContextFile(s.Dir, n, maxIgnore)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, nil
}

// patience is how long a read of stdin goes without looking at the context.
const patience = 100 // ms

// patientFile is a file whose reads end with the context: a pipe or a terminal may
// never say anything.
type patientFile struct {
	ctx context.Context //nolint:containedctx // Read has no parameter for it
	f   *os.File
}

func (p *patientFile) Read(b []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}}
	for {
		if err := context.Cause(p.ctx); err != nil {
			return 0, err
		}
		n, err := unix.Poll(fds, patience)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("read stdin: %w", err)
		}
		if n > 0 {
			return p.f.Read(b)
		}
	}
}

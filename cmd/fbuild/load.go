package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/tail"
	"github.com/fbuild/fbuild/progress"
)

const (
	// loaderVar chooses the program that --load hands the image to.
	loaderVar = "FBUILD_LOADER"
	// askTime is how long a daemon may take to say that it is there.
	askTime = 20 * time.Second
	// loaderEnd is how long a program that was told to end may take.
	loaderEnd = 2 * time.Second
)

const (
	noLoaderHint = "install docker or podman; or write the archive with -o type=docker,dest=FILE and carry it to where it is run: docker load -i FILE, podman load -i FILE, ctr image import FILE"
	loadHint     = "is the daemon well, and is there room for the image? The steps are done and stay in the store, so trying again is quick; -o type=docker,dest=FILE writes the archive instead"
)

// loader is a program that takes an image on stdin.
type loader struct {
	name string   // as a person calls it
	path string   // the program
	args []string // before "load"
	note string   // why it and not another, "" where that is plain
}

// findLoader chooses docker where its daemon answers and else podman;
// $FBUILD_LOADER names one of them. It is asked before the first step runs, so
// that a long build does not end with nobody to take its image. dockerContext is
// docker's --context, "" for the usual one.
func findLoader(ctx context.Context, dockerContext string) (*loader, error) {
	names := []string{"docker", "podman"}
	if choice := os.Getenv(loaderVar); choice != "" {
		if !slices.Contains(names, choice) {
			return nil, &hintError{usagef("%s=%q: no such program to load an image with", loaderVar, choice), "there are docker and podman"}
		}
		names = []string{choice}
	}
	if dockerContext != "" {
		names = []string{"docker"}
	}
	var why []string
	for _, name := range names {
		path, err := osexec.LookPath(name)
		if err != nil || ourselves(path) {
			why = append(why, name+" is not installed")
			continue
		}
		l := &loader{name: name, path: path, note: strings.Join(why, "; ")}
		if name == "docker" && dockerContext != "" {
			l.args = []string{"--context", dockerContext}
		}
		if err := l.ask(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			why = append(why, fmt.Sprintf("%s does not answer: %v", name, err))
			continue
		}
		return l, nil
	}
	return nil, &hintError{fmt.Errorf("nothing to load the image into: %s", strings.Join(why, "; ")), noLoaderHint}
}

// ourselves reports a "docker" that is a link to fbuild.
func ourselves(path string) bool {
	self, err := os.Executable()
	if err != nil {
		return false
	}
	a, err1 := os.Stat(path)
	b, err2 := os.Stat(self)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// ask finds out whether the program and its daemon are there.
func (l *loader) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	format := "{{.Server.Version}}"
	if l.name == "podman" {
		format = "{{.Client.Version}}"
	}
	cmd := l.command(ctx, "version", "--format", format)
	var said tail.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return explainLoad(err, &said)
	}
	return nil
}

func (l *loader) command(ctx context.Context, args ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(ctx, l.path, append(slices.Clone(l.args), args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = loaderEnd
	return cmd
}

// load runs the program, gives it the archive that write writes, and shows what
// it loaded. An archive that ends early never looks like a whole one: the program
// is ended before its input is.
func (l *loader) load(ctx context.Context, step *progress.Step, write func(io.Writer) error) error {
	step.Status("loading with "+l.name, 0, 0, true)
	if l.note != "" {
		step.Status(l.note, 0, 0, true)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := l.command(ctx, "load")
	var out bytes.Buffer
	var said tail.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("load image with %s: %w", l.name, err)
	}
	pipe := bufio.NewWriterSize(in, 1<<20)
	werr := write(pipe)
	if werr == nil {
		werr = pipe.Flush()
	}
	if werr == nil {
		werr = in.Close()
	} else if !errors.Is(werr, unix.EPIPE) {
		cancel()
	}
	err = cmd.Wait() // which closes the pipe
	switch {
	case werr != nil && !errors.Is(werr, unix.EPIPE): // ours is the cause, not its end
		return werr
	case err != nil:
		return &hintError{fmt.Errorf("load image: %s load: %w", l.name, explainLoad(err, &said)), loadHint}
	case werr != nil:
		return &hintError{fmt.Errorf("load image: %s load stopped reading", l.name), loadHint}
	}
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSpace(line); line != "" {
			step.Status(line, 0, 0, true)
		}
	}
	return nil
}

// explainLoad adds the last line that was said to how the program ended.
func explainLoad(err error, out *tail.Buffer) error {
	lines := strings.Split(out.String(), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, last)
}

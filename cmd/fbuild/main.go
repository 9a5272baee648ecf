// Command fbuild builds container images from Dockerfiles, without a daemon and
// without root.
//
// Owns: flags, the words that a person reads, exit codes. How an image is built
// is package build's affair.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/internal/reexec"
)

// Exit codes, listed in --help.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitHost        = 3
	exitInterrupted = 130
)

func main() {
	reexec.Main(build.Children())
	limitMemory()
	os.Exit(run(arguments(os.Args)))
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

func run(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stop := onSignal(func() { cancel(errInterrupted) })
	defer stop()
	cmd := newRoot(os.Stdout, os.Stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if end, ok := errors.AsType[*executorError](err); ok {
		return end.code
	}
	if errors.Is(context.Cause(ctx), errInterrupted) {
		fmt.Fprintln(os.Stderr, "fbuild: error: interrupted")
		return exitInterrupted
	}
	if errors.Is(err, errDiffer) {
		return exitFailed // what differs has been said
	}
	text, hint, code := explain(err)
	if errors.Is(err, errAffected) { // an answer
		return code
	}
	fmt.Fprintln(os.Stderr, "fbuild: error:", printable(text))
	if hint != "" {
		fmt.Fprintln(os.Stderr, "fbuild: hint:", printable(hint))
	}
	return code
}

// impatience is how long after the first signal a second one means "at once":
// timeout(1) and many CI runners send two, to the process and to its group.
const impatience = 250 * time.Millisecond

// onSignal calls fn at the first SIGINT, SIGTERM or SIGHUP; a later one ends the
// process at once, which takes every child with it.
func onSignal(fn func()) (stop func()) {
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	pipe := make(chan os.Signal, 1) // a write to a closed pipe returns an error, and no signal ends us half way
	signal.Notify(pipe, unix.SIGPIPE)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var first time.Time
		for {
			select {
			case <-ch:
			case <-done:
				return
			}
			switch {
			case first.IsZero():
				first = time.Now()
				fn()
			case time.Since(first) > impatience:
				fmt.Fprintln(os.Stderr, "fbuild: error: interrupted")
				os.Exit(exitInterrupted)
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		signal.Stop(pipe)
		close(done)
		<-ended
	}
}

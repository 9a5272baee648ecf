// Command bench measures the fbuild binary against other builders, and its RUN
// steps against the same command in an overlayfs chroot.
//
// Owns: the figures of docs/figures.md, the bases and contexts they are measured
// on, the daemons of the peers while they run.
//
// Invariants: it drives binaries and imports nothing of ours. Runs of a cell are
// interleaved, A B A B; what a cell compares is the ratio of the runs of one
// round. Everything it started it ends by process id, and every file that it
// writes is below -out or in a temporary directory that it removes.
//
// On-disk format: OUT/runs.jsonl holds one record for each run (a round that is
// complete is not measured again), OUT/host.json the machine, OUT/.work the
// bases. The work directory's name begins with a dot because the bases hold Go
// sources, which "./..." would find.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	fbuild, out, repo string
	only              []string
	pairs             int
	wait              time.Duration
	tiny              bool
	user              string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == overlayChild {
		fmt.Fprintln(os.Stderr, "bench:", enterOverlay(os.Args[2])) // it returns only to say what went wrong
		os.Exit(125)                                                //nolint:forbidigo // this is main
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM) //nolint:forbidigo // this is main
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.fbuild, "fbuild", "bin/fbuild", "the program to measure")
	fs.StringVar(&o.out, "out", "bench/out", "directory of the results")
	fs.StringVar(&o.repo, "repo", ".", "the repository: the real inputs are read from its tests")
	fs.IntVar(&o.pairs, "pairs", 0, "rounds of each cell (0: 15 of the short ones, 9 of the pull, 6 of the long ones, 5 of go)")
	fs.DurationVar(&o.wait, "wait", 20*time.Second, "how long to wait for a quiet machine before a run")
	fs.BoolVar(&o.tiny, "tiny", false, "a twentieth of the size: to try the harness, not to measure")
	fs.StringVar(&o.user, "user", "fbuild-test", "the ordinary user of the rootless sides (.ci/user makes it)")
	only := fs.String("only", "", "groups to measure, by commas; the default is all: "+strings.Join(groupNames(), ","))
	report := fs.String("report", "", "measure nothing: write the report of this directory to stdout")
	into := fs.String("into", "", "with -report: put the tables between the markers of this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("argument %q: there are only flags", fs.Arg(0))
	}
	if *report != "" {
		return writeReport(*report, *into, os.Stdout)
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(groupNames(), name) {
			return fmt.Errorf("-only %s: there are %s", name, strings.Join(groupNames(), ", "))
		}
	}
	return measure(ctx, o)
}

// measure takes every round that is missing.
func measure(ctx context.Context, o options) (err error) {
	if os.Getuid() != 0 {
		return errors.New("measuring needs root: for dockerd, and to drop caches and bases of every owner")
	}
	e, err := newEnv(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	var failed []string
	for _, g := range groups {
		if len(o.only) > 0 && !slices.Contains(o.only, g.name) {
			continue
		}
		bad, gerr := e.measureGroup(ctx, g)
		failed = append(failed, bad...)
		if gerr != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted: what was measured is kept")
			}
			failed = append(failed, g.name)
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", g.name, gerr)
		}
	}
	f, err := os.Create(filepath.Join(e.out, "report.md"))
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := errors.Join(writeReport(e.out, "", f), f.Close()); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("these failed (the report says why): %s", strings.Join(failed, ", "))
	}
	return nil
}

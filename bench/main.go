// Command bench measures the fbuild binary against other builders: the yardstick of
// every claim about speed. It also measures RUN steps against the same command in an
// overlayfs chroot, and collects the benchmarks that lie beside the packages.
//
// Owns: the figures of docs/benchmarks.md and docs/figures.md, the bases and contexts
// they are measured on, the daemons of the peers while they run.
//
// Invariants: it drives binaries and imports nothing of ours. Runs of a cell are
// interleaved, A B A B; what a cell compares is the ratio of the runs of one
// round. Everything it started it ends by process id, and every file that it
// writes is below -out, -work or in a temporary directory that it removes.
//
// On-disk format: OUT/runs.jsonl holds one record for each run (a round that is
// complete is not measured again), OUT/host.json the machine, WORK the bases
// and the storages of all builders. The work directory's name begins with a dot because the bases hold Go
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

// options are the flags of whatever measures.
type options struct {
	fbuild, out, repo string
	workDir           string
	against           string // an older fbuild, beside
	only              []string
	pairs             int
	wait, budget      time.Duration
	tiny              bool
	user              string
}

const usageText = `usage: bench COMMAND [flags]

  run      measure a profile (-profile quick, traces or full) and write the report
  prepare  make the bases of a profile, and measure nothing
  list     what a profile measures, in its order
  report   the report of a directory of results (-into FILE: between the marks of a document)
  compare  OLD NEW, or DIR of a run with -against: what became slower; exits with 1 if something did
  inner    the benchmarks beside the packages, as benchstat reads them
  figures  the cells of docs/figures.md

bench COMMAND -h says more`

func main() {
	if len(os.Args) > 2 {
		if run, ok := children[os.Args[1]]; ok {
			if err := run(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(125) //nolint:forbidigo // this is main
			}
			return
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGPIPE) //nolint:forbidigo // this is main
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// children are what this program does when it runs itself.
var children = map[string]func(args []string) error{
	overlayChild: func(args []string) error { return enterOverlay(args[0]) }, // it returns only to say what went wrong
	parallelChild: func(args []string) error {
		return runParallel(context.Background(), args[0]) //nolint:forbidigo // of the child's main
	},
	floorChild: func(args []string) error { return compressFile(args[0], args[len(args)-1]) },
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no command\n%s", usageText)
	}
	commands := map[string]func(context.Context, []string) error{
		"run": runProfile, "prepare": prepareProfile, "list": listProfile, "report": reportCommand, "compare": compareCommand,
		"inner": innerCommand, "figures": figuresCommand,
	}
	c, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("command %q is not known\n%s", args[0], usageText)
	}
	return c(ctx, args[1:])
}

// measuring adds the flags of whatever measures.
func measuring(fs *flag.FlagSet, o *options, out string) (only *string) {
	fs.StringVar(&o.fbuild, "fbuild", "bin/fbuild", "the program to measure")
	fs.StringVar(&o.out, "out", out, "directory of the results")
	fs.StringVar(&o.workDir, "work", "bench/out/.work", "directory of bases and storages, kept from call to call")
	fs.StringVar(&o.repo, "repo", ".", "the repository: sources of workloads, and real inputs of its tests")
	fs.IntVar(&o.pairs, "pairs", 0, "rounds of each cell, instead of what the profile says")
	fs.DurationVar(&o.wait, "wait", 20*time.Second, "how long to wait for a quiet machine before a run")
	fs.BoolVar(&o.tiny, "tiny", false, "a twentieth of the size: to try the harness, not to measure")
	fs.StringVar(&o.user, "user", "fbuild-test", "the ordinary user of the rootless sides (.ci/user makes it)")
	return fs.String("only", "", "groups to measure, by commas; the default is all (bench list)")
}

// profileFlags reads the flags of a profile.
func profileFlags(name string, args []string) (o options, items []item, err error) {
	fs := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	only := measuring(fs, &o, "")
	prof := fs.String("profile", "quick", "quick (three workloads, two peers, under five minutes) or full (at most ninety)")
	sides := fs.String("sides", "", "these sides only, by commas: "+strings.Join(append(peerNames(), nativeSide), ", "))
	fs.StringVar(&o.against, "against", "", "an older fbuild, measured in turns with the new one; `bench compare DIR` judges")
	fs.DurationVar(&o.budget, "budget", 0, "begin nothing that would end later than that; the report says what is missing (0: none for quick, 90 minutes for full)")
	if err := fs.Parse(args); err != nil {
		return o, nil, err
	}
	if fs.NArg() > 0 {
		return o, nil, fmt.Errorf("argument %q: there are only flags", fs.Arg(0))
	}
	if o.out == "" {
		o.out = filepath.Join("bench", "out", *prof)
	}
	if *prof == "full" && o.budget == 0 {
		o.budget = fullBudget
	}
	if items, err = profile(*prof, bestPeer()); err != nil {
		return o, nil, err
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, n := range o.only {
		if !slices.ContainsFunc(items, func(it item) bool { return it.group.name == n }) {
			return o, nil, fmt.Errorf("-only %s: not in this profile (bench list)", n)
		}
	}
	if *sides != "" {
		items = withSides(items, strings.Split(*sides, ","))
	}
	for i := range items {
		if o.against != "" {
			items[i].group.sides = append(slices.Clone(items[i].group.sides), oldSide)
		}
	}
	return o, items, nil
}

// withSides leaves the named sides in each item.
func withSides(items []item, sides []string) []item {
	var out []item
	for _, it := range items {
		it.group.sides = slices.DeleteFunc(slices.Clone(it.group.sides), func(s string) bool { return !slices.Contains(sides, s) })
		if len(it.group.sides) > 0 {
			out = append(out, it)
		}
	}
	return out
}

func listProfile(_ context.Context, args []string) error {
	_, items, err := profileFlags("list", args)
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(listItems(items))
	return err
}

func runProfile(ctx context.Context, args []string) error {
	return withItems(ctx, "run", args, func(e *env, o options, items []item) error {
		if o.budget > 0 {
			e.deadline = time.Now().Add(o.budget)
		}
		failed, err := e.measureItems(ctx, items, o.only)
		f, ferr := os.Create(filepath.Join(e.out, "report.md"))
		if ferr == nil {
			ferr = errors.Join(writeYardstick(e.out, "", f), f.Close())
		}
		if err = errors.Join(err, ferr); err == nil && len(failed) > 0 {
			err = fmt.Errorf("these failed (the report says why): %s", strings.Join(failed, ", "))
		}
		return err
	})
}

func prepareProfile(ctx context.Context, args []string) error {
	return withItems(ctx, "prepare", args, func(e *env, o options, items []item) error {
		if len(o.only) > 0 {
			items = slices.DeleteFunc(items, func(it item) bool { return !slices.Contains(o.only, it.group.name) })
		}
		return e.prepare(ctx, items)
	})
}

// withItems opens the environment for the time that do takes.
func withItems(ctx context.Context, name string, args []string, do func(*env, options, []item) error) (err error) {
	o, items, err := profileFlags(name, args)
	if err != nil {
		return err
	}
	e, err := newEnv(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.makeGen(ctx); err != nil {
		return err
	}
	return do(e, o, items)
}

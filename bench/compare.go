package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

// fewest is how many runs a cell needs on both sides to be judged.
const fewest = 3

// verdict is what became of one cell of fbuild.
type verdict struct {
	cell, side     string
	what           string // "slower", "faster", "same", "too few runs"
	old, new       float64
	ratio          float64 // new / old, medians
	low, high      float64 // of the ratio, 95 %
	oldRuns, nRuns int
}

// compareCommand says what became slower from one directory of results to another.
func compareCommand(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("bench compare", flag.ContinueOnError)
	all := fs.Bool("all", false, "the other builders as well: whether the machine itself changed")
	tolerance := fs.Float64("tolerance", 0.02, "what counts as the same: the interval must lie beyond it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 2 {
		return errors.New("usage: bench compare [-all] [-tolerance 0.02] OLD NEW (directories of results)")
	}
	var sets [2][]record
	for i, dir := range fs.Args() {
		runs, err := readRuns(dir)
		if err != nil {
			return err
		}
		if len(runs) == 0 {
			return fmt.Errorf("%s: nothing was measured there", dir)
		}
		sets[i] = runs
	}
	vs := compareRuns(sets[0], sets[1], *tolerance, *all)
	return printVerdicts(os.Stdout, vs)
}

// compareRuns judges every cell that both have, in the order of the old.
func compareRuns(old, now []record, tolerance float64, all bool) []verdict {
	var out []verdict
	seen := map[string]bool{}
	for _, r := range old {
		key := r.Cell + "\x00" + r.Side
		ours := strings.HasPrefix(r.Side, fbuildSide)
		if r.Skip != "" || strings.HasSuffix(r.Cell, roundEnd) || seen[key] || !ours && !all {
			continue
		}
		seen[key] = true
		a, b := wallsOf(old, r.Cell, r.Side), wallsOf(now, r.Cell, r.Side)
		if len(b) == 0 {
			continue
		}
		out = append(out, judge(r.Cell, r.Side, a, b, tolerance))
	}
	return out
}

// wallsOf are the times of a cell that were not ended at a limit.
func wallsOf(runs []record, cell, side string) []float64 {
	var out []float64
	for _, r := range runs {
		if r.Cell == cell && r.Side == side && r.Skip == "" {
			out = append(out, r.Wall)
		}
	}
	return out
}

// judge compares two sets of times. They were not taken in turns, so that the
// machine is in the ratio as well: -all shows what it did to others.
func judge(cell, side string, old, now []float64, tolerance float64) verdict {
	v := verdict{cell: cell, side: side, old: median(old), new: median(now), oldRuns: len(old), nRuns: len(now)}
	v.ratio = v.new / v.old
	v.low, v.high = bootstrap(old, now)
	switch {
	case len(old) < fewest || len(now) < fewest:
		v.what = "too few runs"
	case v.low > 1+tolerance:
		v.what = "slower"
	case v.high < 1-tolerance:
		v.what = "faster"
	default:
		v.what = "same"
	}
	return v
}

// bootstrap is the interval of 95 % of the ratio of medians: of 4,000 draws with
// replacement from either set, the middle. The draws are the same every time.
func bootstrap(old, now []float64) (low, high float64) {
	if len(old) == 0 || len(now) == 0 {
		return math.NaN(), math.NaN()
	}
	const draws = 4000
	rng := rand.New(rand.NewPCG(uint64(len(old)), uint64(len(now)))) //nolint:gosec // no secret
	draw := func(from []float64) float64 {
		s := make([]float64, len(from))
		for i := range s {
			s[i] = from[rng.IntN(len(from))]
		}
		return median(s)
	}
	ratios := make([]float64, draws)
	for i := range ratios {
		ratios[i] = draw(now) / draw(old)
	}
	slices.Sort(ratios)
	return ratios[draws*25/1000], ratios[draws*975/1000-1]
}

// printVerdicts writes the table; something slower is an error.
func printVerdicts(w io.Writer, vs []verdict) error {
	slower := 0
	fmt.Fprintf(w, "%-32s %-16s %10s %10s  %-24s %s\n", "cell", "side", "old s", "new s", "new / old [95 %]", "")
	for _, v := range vs {
		mark := v.what
		if v.what == "slower" && strings.HasPrefix(v.side, fbuildSide) {
			slower++
			mark = "SLOWER"
		}
		fmt.Fprintf(w, "%-32s %-16s %10s %10s  %-24s %s\n", v.cell, v.side, digits(v.old), digits(v.new),
			fmt.Sprintf("%.2f [%.2f, %.2f] n=%d,%d", v.ratio, v.low, v.high, v.oldRuns, v.nRuns), mark)
	}
	if len(vs) == 0 {
		return errors.New("the two have no cell in common")
	}
	if slower > 0 {
		return fmt.Errorf("%d of %d cells became slower", slower, len(vs))
	}
	return nil
}

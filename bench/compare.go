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

// measures are what can be compared.
var measures = map[string]func(record) float64{
	"wall":   func(r record) float64 { return r.Wall },
	"cpu":    func(r record) float64 { return r.CPU },
	"memory": func(r record) float64 { return float64(r.RSS) / (1 << 20) },
	"disk":   func(r record) float64 { return float64(r.Written) / (1 << 20) },
}

// compareCommand says what became slower from one directory of results to another,
// or from an older fbuild to the new one in a directory that has both.
func compareCommand(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("bench compare", flag.ContinueOnError)
	all := fs.Bool("all", false, "the other builders as well: whether the machine itself changed")
	tolerance := fs.Float64("tolerance", 0.02, "what counts as the same: the interval must lie beyond it")
	by := fs.String("by", "wall", "what to compare: wall and cpu (seconds), memory and disk (MiB)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	of := measures[*by]
	if n := fs.NArg(); n < 1 || n > 2 || of == nil {
		return errors.New("usage: bench compare [-all] [-by wall|cpu|memory|disk] [-tolerance 0.02] OLD NEW, or DIR of a run with -against")
	}
	var sets [][]record
	for _, dir := range fs.Args() {
		runs, err := readRuns(dir)
		if err != nil {
			return err
		}
		if len(runs) == 0 {
			return fmt.Errorf("%s: nothing was measured there", dir)
		}
		sets = append(sets, runs)
	}
	if len(sets) == 1 {
		return printVerdicts(os.Stdout, comparePairs(sets[0], of, *tolerance))
	}
	return printVerdicts(os.Stdout, compareRuns(sets[0], sets[1], of, *tolerance, *all))
}

// comparePairs judges fbuild against the older one that was measured in turns with
// it: the ratios of the rounds have nothing of what the machine did meanwhile.
func comparePairs(runs []record, of func(record) float64, tolerance float64) []verdict {
	var out []verdict
	seen := map[string]bool{}
	for _, r := range runs {
		if r.Side != oldSide || r.Skip != "" || strings.HasSuffix(r.Cell, roundEnd) || seen[r.Cell] {
			continue
		}
		seen[r.Cell] = true
		old, now := valuesOf(runs, r.Cell, oldSide, of), valuesOf(runs, r.Cell, fbuildSide, of)
		pairs := ratios(now, old)
		if len(pairs) == 0 {
			continue
		}
		v := verdict{cell: r.Cell, side: fbuildSide, old: median(values(old)), new: median(values(now)), ratio: median(pairs), oldRuns: len(pairs), nRuns: len(pairs)}
		v.low, v.high = bootstrap([]float64{1}, pairs)
		v.judge(tolerance)
		out = append(out, v)
	}
	return out
}

// compareRuns judges every cell that both have, in the order of the old.
func compareRuns(old, now []record, of func(record) float64, tolerance float64, all bool) []verdict {
	var out []verdict
	seen := map[string]bool{}
	for _, r := range old {
		key := r.Cell + "\x00" + r.Side
		if r.Skip != "" || strings.HasSuffix(r.Cell, roundEnd) || seen[key] || !ours(r.Side) && !all {
			continue
		}
		seen[key] = true
		a, b := values(valuesOf(old, r.Cell, r.Side, of)), values(valuesOf(now, r.Cell, r.Side, of))
		if len(b) == 0 {
			continue
		}
		slices.Sort(a)
		slices.Sort(b)
		// They were not taken in turns, so that the machine is in the ratio as well:
		// -all shows what it did to others.
		v := verdict{cell: r.Cell, side: r.Side, old: median(a), new: median(b), oldRuns: len(a), nRuns: len(b)}
		v.ratio = v.new / v.old
		v.low, v.high = bootstrap(a, b)
		v.judge(tolerance)
		out = append(out, v)
	}
	return out
}

// valuesOf are those of a cell, by round.
func valuesOf(runs []record, cell, side string, of func(record) float64) map[int]float64 {
	out := map[int]float64{}
	for _, r := range runs {
		if r.Cell == cell && r.Side == side && r.Skip == "" {
			out[r.Round] = of(r)
		}
	}
	return out
}

// judge says what became of it.
func (v *verdict) judge(tolerance float64) {
	switch {
	case v.oldRuns < fewest || v.nRuns < fewest:
		v.what = "too few runs"
	case v.low > 1+tolerance:
		v.what = "slower"
	case v.high < 1-tolerance:
		v.what = "faster"
	default:
		v.what = "same"
	}
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
	fmt.Fprintf(w, "%-32s %-16s %10s %10s  %-24s %s\n", "cell", "side", "old", "new", "new / old [95 %]", "")
	for _, v := range vs {
		mark := v.what
		if v.what == "slower" && ours(v.side) {
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

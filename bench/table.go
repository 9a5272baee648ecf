package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// results are the runs of a directory, for the report.
type results struct {
	host  host
	runs  []record
	cells map[string]map[string][]record // cell -> side -> runs that were measured
}

func newResults(h host, runs []record) *results {
	r := &results{host: h, runs: runs, cells: map[string]map[string][]record{}}
	for _, run := range runs {
		if run.Skip != "" || strings.HasSuffix(run.Cell, roundEnd) {
			continue
		}
		if r.cells[run.Cell] == nil {
			r.cells[run.Cell] = map[string][]record{}
		}
		r.cells[run.Cell][run.Side] = append(r.cells[run.Cell][run.Side], run)
	}
	return r
}

// ours says whether a side is fbuild.
func ours(side string) bool { return strings.HasPrefix(side, fbuildSide) }

// rival says whether a side is another builder.
func rival(side string) bool {
	return !ours(side) && side != nativeSide && !strings.HasPrefix(side, floorSide)
}

// endToEnd is the time until the image is in the registry, round by round: cold
// and push, or cold alone where that pushes. Capped runs have none.
func (r *results) endToEnd(workload, side string) map[int]float64 {
	out := map[int]float64{}
	push := byRound(r.cells[workload+"/"+pushPhase][side])
	for _, c := range r.cells[workload+"/"+coldPhase][side] {
		if c.Capped {
			continue
		}
		if side == "kaniko" {
			out[c.Round] = c.Wall
		} else if p, ok := push[c.Round]; ok {
			out[c.Round] = c.Wall + p
		}
	}
	return out
}

// values are those of a map.
func values(m map[int]float64) []float64 { return slices.Collect(maps.Values(m)) }

// wall is a cell of a table: median and range.
func wall(rs []record) string {
	if len(rs) == 0 {
		return ""
	}
	v := column(rs, func(r record) float64 { return r.Wall })
	text := digits(median(v))
	if len(v) > 1 {
		text += fmt.Sprintf(" (%s-%s)", digits(slices.Min(v)), digits(slices.Max(v)))
	}
	if slices.ContainsFunc(rs, func(r record) bool { return r.Capped }) {
		text = "> " + text
	}
	return text + strings.Repeat("~", min(1, countNoisy(rs)))
}

func countNoisy(rs []record) int {
	n := 0
	for _, r := range rs {
		if r.Noisy {
			n++
		}
	}
	return n
}

// best is the other builder with the lowest median, and that.
func best(sides map[string][]float64) (name string, value float64) {
	for _, s := range slices.Sorted(maps.Keys(sides)) {
		if m := median(sides[s]); len(sides[s]) > 0 && (name == "" || m < value) {
			name, value = s, m
		}
	}
	return name, value
}

// ratioOf is fbuild against another, round by round, with the interval.
func ratioOf(ourTimes, theirs map[int]float64) (text string, ratio float64) {
	rs := ratios(ourTimes, theirs)
	if len(rs) == 0 {
		return "", 0
	}
	ratio = median(rs)
	text = fmt.Sprintf("%.2f", ratio)
	if len(rs) == 1 {
		return text + " (one pair)", ratio
	}
	low, high, coverage := interval(rs)
	if coverage < confidence {
		return fmt.Sprintf("%s [%.2f, %.2f] (%.0f %%)", text, low, high, 100*coverage), ratio
	}
	return fmt.Sprintf("%s [%.2f, %.2f]", text, low, high), ratio
}

// phaseTimes are the times of a cell by side and round, without capped runs.
func (r *results) phaseTimes(cell string) map[string]map[int]float64 {
	out := map[string]map[int]float64{}
	for side, rs := range r.cells[cell] {
		for _, run := range rs {
			if !run.Capped {
				if out[side] == nil {
					out[side] = map[int]float64{}
				}
				out[side][run.Round] = run.Wall
			}
		}
	}
	return out
}

// againstBest compares fbuild with the best other builder of some times.
func againstBest(times map[string]map[int]float64) (peer, text string, ratio float64) {
	rivals := map[string][]float64{}
	for side, t := range times {
		if rival(side) && len(ratios(times[fbuildSide], t)) > 0 {
			rivals[side] = values(t)
		}
	}
	peer, _ = best(rivals)
	if peer == "" {
		return "", "", 0
	}
	text, ratio = ratioOf(times[fbuildSide], times[peer])
	return peer, text, ratio
}

// size is bytes for people.
func size(n float64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%.0f MiB", n/(1<<20))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", n/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", n/(1<<10))
	}
	return fmt.Sprintf("%.0f B", n)
}

// row writes a row of a table.
func row(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// head writes the first two rows of a table; all columns but the first are numbers.
func head(b *strings.Builder, cells ...string) {
	b.WriteString("\n")
	row(b, cells...)
	b.WriteString("|---|" + strings.Repeat("--:|", len(cells)-1) + "\n")
}

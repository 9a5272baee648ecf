package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The tables stand between these lines of docs/figures.md.
const (
	beginMark = "<!-- figures: begin -->"
	endMark   = "<!-- figures: end -->"
)

// writeReport makes the tables of a directory of runs and writes them to W, or
// between the marks of a file.
func writeReport(dir, into string, w io.Writer) error {
	h, runs, err := readResults(dir)
	if err != nil {
		return err
	}
	text := renderReport(h, runs)
	if into == "" {
		_, err := io.WriteString(w, text)
		return err
	}
	return putBetween(into, beginMark, endMark, text)
}

// renderReport is the whole of it: machine, tables, what was not measured.
func renderReport(h host, runs []record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d processors (%s), %d MiB of memory, Linux %s, %s.\n\n", h.System, h.Processors, h.CPU, h.MemoryMiB, h.Kernel, h.Disk)
	var tools []string
	for name, v := range h.Versions {
		tools = append(tools, name+": "+v)
	}
	slices.Sort(tools)
	fmt.Fprintf(&b, "Versions: %s.\n", strings.Join(tools, "; "))
	if slices.ContainsFunc(runs, func(r record) bool { return r.Tiny }) {
		b.WriteString("\n**Sizes of -tiny: these are no figures.**\n")
	}
	if len(runs) == 0 {
		return b.String()
	}
	b.WriteString("\n| cell | side | runs | wall s: median (lowest to highest) | CPU s | peak MiB | fbuild / side [95 % interval] |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|\n")
	for _, g := range figureGroups {
		for _, p := range slices.Concat(g.phases, []string{""})[:max(1, len(g.phases))] {
			renderCell(&b, g, p, runs)
		}
	}
	renderNotes(&b, runs)
	return b.String()
}

// renderCell writes the rows of one cell, in the order in which sides came.
func renderCell(b *strings.Builder, g group, phase string, runs []record) {
	sides := map[string][]record{}
	var order []string
	for _, r := range runs {
		if r.Cell != g.cellName(phase) || r.Skip != "" {
			continue
		}
		if sides[r.Side] == nil {
			order = append(order, r.Side)
		}
		sides[r.Side] = append(sides[r.Side], r)
	}
	title := g.title
	if phase != "" {
		title += ", " + phase
	}
	for _, name := range order {
		s := sides[name]
		wall := column(s, func(r record) float64 { return r.Wall })
		fmt.Fprintf(b, "| %s | %s | %d%s | %s (%s to %s) | %s | %.0f | %s |\n", title, name, len(s), noisyMark(s),
			digits(median(wall)), digits(slices.Min(wall)), digits(slices.Max(wall)),
			digits(median(column(s, func(r record) float64 { return r.CPU }))),
			median(column(s, func(r record) float64 { return float64(r.RSS) / (1 << 20) })),
			ratioText(sides[subjectOf(name)], s, name))
		title = ""
	}
}

// subjectOf is the side of ours that a side is compared with: rootless with rootless.
func subjectOf(side string) string {
	if strings.HasSuffix(side, "-rootless") {
		return fbuildSide + "-rootless"
	}
	return fbuildSide
}

// ratioText is the median of the ratios, round by round, and its interval.
func ratioText(ours, theirs []record, side string) string {
	if side == subjectOf(side) {
		return ""
	}
	r := ratios(byRound(ours), byRound(theirs))
	if len(r) == 0 {
		return ""
	}
	low, high, coverage := interval(r)
	text := fmt.Sprintf("%.2f", median(r))
	switch {
	case len(r) == 1:
		return text + " (one pair)"
	case coverage < confidence:
		return fmt.Sprintf("%s [%.2f, %.2f] (%.0f %% only)", text, low, high, math.Floor(100*coverage))
	}
	return fmt.Sprintf("%s [%.2f, %.2f]", text, low, high)
}

func byRound(rs []record) map[int]float64 {
	m := map[int]float64{}
	for _, r := range rs {
		m[r.Round] = r.Wall
	}
	return m
}

func column(rs []record, of func(record) float64) []float64 {
	var out []float64
	for _, r := range rs {
		out = append(out, of(r))
	}
	return out
}

// noisyMark says how many runs began on a busy machine.
func noisyMark(rs []record) string {
	n := 0
	for _, r := range rs {
		if r.Noisy {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d noisy)", n)
}

// digits shows three significant digits.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// renderNotes says what was not measured, and why, unless it was measured later.
func renderNotes(b *strings.Builder, runs []record) {
	var lines []string
	for _, r := range runs {
		if r.Skip == "" || slices.ContainsFunc(runs, func(o record) bool {
			group, _, _ := strings.Cut(o.Cell, "/")
			return o.Skip == "" && group == r.Cell && o.Side == r.Side && o.Time > r.Time
		}) {
			continue
		}
		why, _, _ := strings.Cut(r.Skip, "\n")
		lines = append(lines, fmt.Sprintf("- %s of %s: %s", r.Cell, r.Side, why))
	}
	if len(lines) > 0 {
		b.WriteString("\nNot measured, or not to the end:\n\n" + strings.Join(lines, "\n") + "\n")
	}
}

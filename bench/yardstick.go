package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The tables stand between these lines of docs/benchmarks.md.
const (
	yardBegin = "<!-- bench: begin -->"
	yardEnd   = "<!-- bench: end -->"
)

// reportCommand writes the report of a directory.
func reportCommand(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("bench report", flag.ContinueOnError)
	into := fs.String("into", "", "put the report between the marks of this document, and the plots into the folder of its name beside it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("usage: bench report [-into docs/benchmarks.md] DIR")
	}
	return writeYardstick(fs.Arg(0), *into, os.Stdout)
}

// writeYardstick writes report and plots of a directory of runs, into the
// directory or into a document.
func writeYardstick(dir, into string, w io.Writer) error {
	h, runs, err := readResults(dir)
	if err != nil {
		return err
	}
	plots, rel := filepath.Join(dir, "plots"), "plots"
	if into != "" {
		rel = strings.TrimSuffix(filepath.Base(into), filepath.Ext(into))
		plots = filepath.Join(filepath.Dir(into), rel)
	}
	r := newResults(h, runs)
	drawn, err := r.draw(plots)
	if err != nil {
		return err
	}
	text := r.render(rel, drawn)
	if into == "" {
		_, err := io.WriteString(w, text)
		return err
	}
	return putBetween(into, yardBegin, yardEnd, text)
}

// putBetween replaces what stands between two lines of a document.
func putBetween(file, from, to, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	begin, end := strings.Index(string(old), from), strings.Index(string(old), to)
	if begin < 0 || end < begin {
		return fmt.Errorf("%s: no lines %q and %q", filepath.Base(file), from, to)
	}
	doc := string(old[:begin]) + from + "\n\n" + text + "\n" + string(old[end:])
	if err := os.WriteFile(file, []byte(doc), 0o644); err != nil { //nolint:gosec // a document of the repository
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}

// render is the whole report.
func (r *results) render(plots string, drawn map[string]bool) string {
	var b strings.Builder
	r.renderHost(&b)
	if len(r.cells) == 0 {
		b.WriteString("\nNothing was measured.\n")
		return b.String()
	}
	r.renderSummary(&b)
	if drawn["summary"] {
		fmt.Fprintf(&b, "\n![seconds from nothing to the registry, by workload and builder](%s/summary.svg)\n", plots)
	}
	r.renderLosses(&b)
	for _, w := range workloads {
		r.renderWorkload(&b, w)
	}
	r.renderNative(&b)
	r.renderGrowth(&b, plots, drawn)
	r.renderMissing(&b)
	return b.String()
}

func (r *results) renderHost(b *strings.Builder) {
	h := r.host
	fmt.Fprintf(b, "%s, %d processors (%s), %d MiB of memory, Linux %s, %s.\n", h.System, h.Processors, h.CPU, h.MemoryMiB, h.Kernel, h.Disk)
	if slices.ContainsFunc(r.runs, func(run record) bool { return run.Tiny }) {
		b.WriteString("\n**Sizes of -tiny: these are no figures.**\n")
	}
	noisy, all, first, last := 0, 0, "", ""
	settings := map[string][2]string{}
	for _, run := range r.runs {
		if run.Skip != "" || strings.HasSuffix(run.Cell, roundEnd) {
			continue
		}
		all++
		if run.Noisy {
			noisy++
		}
		if first == "" || run.Time < first {
			first = run.Time
		}
		last = max(last, run.Time)
		if rival(run.Side) || ours(run.Side) {
			settings[run.Side] = [2]string{run.Version, run.Settings}
		}
	}
	fmt.Fprintf(b, "\n%d runs, from %s to %s; %d of them began while the machine was busy (`~` in the tables).\n", all, first, last, noisy)
	b.WriteString("\n| side | version | how it is called |\n|---|---|---|\n")
	for _, s := range slices.Sorted(maps.Keys(settings)) {
		row(b, s, settings[s][0], settings[s][1])
	}
}

// renderSummary is what a job of a CI system waits for.
func (r *results) renderSummary(b *strings.Builder) {
	sides := r.sidesOfAll()
	b.WriteString("\n### From nothing to the registry\n\nSeconds of *cold* and *push* together, medians: empty storage, the base and the result in a registry on the loopback interface.\n")
	head(b, append(append([]string{"workload"}, sides...), "best other", "fbuild / it [95 %]")...)
	for _, w := range workloads {
		times := map[string]map[int]float64{}
		for _, s := range sides {
			times[s] = r.endToEnd(w.name, s)
		}
		if len(times[fbuildSide]) == 0 {
			continue
		}
		cells := []string{w.title}
		for _, s := range sides {
			text := ""
			if len(times[s]) > 0 {
				text = digits(median(values(times[s])))
			}
			cells = append(cells, text)
		}
		peer, text, _ := againstBest(times)
		row(b, append(cells, peer, text)...)
	}
}

// sidesOfAll are the sides that were measured, ours first, in the order of the list.
func (r *results) sidesOfAll() []string {
	var out []string
	for _, p := range peers {
		for _, sides := range r.cells {
			if len(sides[p.name]) > 0 && p.name != walkSide {
				out = append(out, p.name)
				break
			}
		}
	}
	return out
}

// renderLosses names every cell in which fbuild is not first.
func (r *results) renderLosses(b *strings.Builder) {
	b.WriteString("\n### Where fbuild is not first\n\n")
	n, all := 0, 0
	for _, w := range workloads {
		for _, p := range w.phases {
			cell := w.name + "/" + p
			peer, text, ratio := againstBest(r.phaseTimes(cell))
			if peer == "" {
				continue
			}
			all++
			if ratio <= 1 {
				continue
			}
			n++
			why := reasons[cell]
			if why == "" {
				why = reasons[p]
			}
			if why == "" {
				why = "not looked into yet"
			}
			fmt.Fprintf(b, "- %s, %s: %s s against %s s of %s, %s times. %s.\n", w.title, p, digits(median(values(r.phaseTimes(cell)[fbuildSide]))),
				digits(median(values(r.phaseTimes(cell)[peer]))), peer, text, strings.ToUpper(why[:1])+why[1:])
		}
	}
	if n == 0 {
		b.WriteString("Nowhere in what was measured.\n")
	}
	fmt.Fprintf(b, "\n%d of %d cells that another builder has as well. fbuild's *cold* holds the compression of the layers; BuildKit and docker compress in *push*, which the first table adds.\n", n, all)
}

// renderWorkload is a workload phase by phase, and what it took beside time.
func (r *results) renderWorkload(b *strings.Builder, w workload) {
	var sides []string
	for _, p := range peers {
		if slices.ContainsFunc(w.phases, func(ph string) bool { return len(r.cells[w.name+"/"+ph][p.name]) > 0 }) {
			sides = append(sides, p.name)
		}
	}
	if len(sides) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### %s\n\n%s%s. Seconds: median (lowest-highest).\n", strings.ToUpper(w.title[:1])+w.title[1:], strings.ToUpper(w.about[:1]), w.about[1:])
	head(b, append(append([]string{"phase"}, sides...), "fbuild / best other [95 %]")...)
	for _, p := range w.phases {
		cell := w.name + "/" + p
		if p == floorPhase || len(r.cells[cell]) == 0 {
			continue
		}
		cells := []string{p}
		for _, s := range sides {
			cells = append(cells, wall(r.cells[cell][s]))
		}
		peer, text, _ := againstBest(r.phaseTimes(cell))
		if peer != "" {
			text += " " + peer
		}
		row(b, append(cells, text)...)
	}
	b.WriteString("\nBeside time, medians:\n")
	head(b, append([]string{""}, sides...)...)
	for _, q := range quantities {
		cells, some := []string{q.title}, false
		for _, s := range sides {
			rs := r.cells[w.name+"/"+q.phase(s)][s]
			text := ""
			if v := median(column(rs, q.of)); len(rs) > 0 && (v > 0 || q.zero) {
				text, some = q.show(v), true
			}
			cells = append(cells, text)
		}
		if some {
			row(b, cells...)
		}
	}
}

func in(phase string) func(string) string { return func(string) string { return phase } }

// pushOf is the phase in which a side pushes.
func pushOf(side string) string {
	if side == "kaniko" {
		return coldPhase
	}
	return pushPhase
}

// quantities are the rows of the second table of a workload.
var quantities = []struct {
	title string
	phase func(side string) string
	of    func(record) float64
	show  func(float64) string
	zero  bool
}{
	{"processor seconds, cold", in(coldPhase), func(r record) float64 { return r.CPU }, digits, false},
	{"processor seconds, push", in(pushPhase), func(r record) float64 { return r.CPU }, digits, false},
	{"peak memory, cold", in(coldPhase), func(r record) float64 { return float64(r.RSS) }, size, false},
	{"peak memory, push", in(pushPhase), func(r record) float64 { return float64(r.RSS) }, size, false},
	{"written to disk, cold", in(coldPhase), func(r record) float64 { return float64(r.Written) }, size, false},
	{"written to disk, nothing changed", in(nothingPhase), func(r record) float64 { return float64(r.Written) }, size, false},
	{"layers above the base", pushOf, func(r record) float64 { return float64(r.Layers) }, size, false},
	{"sent, push", pushOf, func(r record) float64 { return float64(r.Sent) }, size, false},
	{"sent, push again", in(rePushPhase), func(r record) float64 { return float64(r.Sent) }, size, true},
	{"start of the daemon, s (not in any time above)", in(coldPhase), func(r record) float64 { return r.Setup }, digits, false},
}

// renderNative puts builders beside the bare commands and the bytes.
func (r *results) renderNative(b *strings.Builder) {
	first := true
	for _, w := range workloads {
		rs := r.cells[w.name+"/"+coldPhase][nativeSide]
		if len(rs) == 0 {
			continue
		}
		if first {
			b.WriteString("\n### Without a builder\n\nThe same commands in a chroot on overlayfs, with no layer and no pull; and the floors, for the tar of what they wrote: " +
				"`openssl dgst -sha256`, `tar`, gzip (level 6) and zstd (default) on all processors. Seconds.\n")
			head(b, "workload", "fbuild, cold", "native", "bytes", "sha256", "tar", "gzip", "zstd")
			first = false
		}
		floor := r.cells[w.name+"/"+floorPhase]
		cells := []string{w.title, wall(r.cells[w.name+"/"+coldPhase][fbuildSide]), wall(rs), ""}
		for _, f := range []string{"sha256", "tar", "gzip", "zstd"} {
			fr := floor[floorSide+f]
			cells = append(cells, wall(fr))
			if len(fr) > 0 {
				cells[3] = size(fr[0].X)
			}
		}
		row(b, cells...)
	}
}

// renderGrowth is the table of fitted slopes, and the plots.
func (r *results) renderGrowth(b *strings.Builder, plots string, drawn map[string]bool) {
	first := true
	for _, g := range growths {
		for _, s := range r.growthSides(g) {
			xs, times, mem := r.series(g, s)
			if len(xs) < 2 {
				continue
			}
			if first {
				b.WriteString("\n### Growth\n\nThe base is in the store already. A line is fitted to time and to peak memory; the exponent is that of the larger half of the points, 1 being proportional.\n")
				head(b, "what grows", "side", "from - to", "seconds, first - last", "fitted seconds", "exponent", "MiB, first - last", "MiB per unit")
				first = false
			}
			l, m := fit(xs, times), fit(xs, mem)
			n := len(xs) - 1
			row(b, g.title, s, fmt.Sprintf("%g - %g %s", xs[0], xs[n], g.unit), digits(times[0])+" - "+digits(times[n]),
				fmt.Sprintf("%.3g + %.3g per %s", l.a, l.b, strings.TrimSuffix(g.unit, "s")), fmt.Sprintf("%.2f", power(xs, times)),
				fmt.Sprintf("%.0f - %.0f", mem[0], mem[n]), fmt.Sprintf("%.2g", m.b))
		}
	}
	for _, g := range growths {
		if drawn[g.name] {
			fmt.Fprintf(b, "\n![%s](%s/%s.svg)\n", g.title, plots, g.name)
		}
	}
}

// growthSides are the sides that a growth was measured on, ours first.
func (r *results) growthSides(g growth) []string {
	have := map[string]bool{}
	for _, p := range g.group(nil).phases {
		for s := range r.cells[g.name+"/"+p] {
			have[s] = true
		}
	}
	return slices.SortedFunc(maps.Keys(have), func(a, b string) int {
		if ours(a) != ours(b) {
			return map[bool]int{true: -1, false: 1}[ours(a)]
		}
		return strings.Compare(a, b)
	})
}

// series are the points of a growth: x, seconds, MiB.
func (r *results) series(g growth, side string) (xs, times, mem []float64) {
	for i, p := range g.group(nil).phases {
		var rs []record
		for _, run := range r.cells[g.name+"/"+p][side] {
			if !run.Capped {
				rs = append(rs, run)
			}
		}
		if len(rs) > 0 {
			xs = append(xs, g.points[i])
			times = append(times, median(column(rs, func(r record) float64 { return r.Wall })))
			mem = append(mem, median(column(rs, func(r record) float64 { return float64(r.RSS) / (1 << 20) })))
		}
	}
	return xs, times, mem
}

// renderMissing says what was skipped, capped, or not reached in the time.
func (r *results) renderMissing(b *strings.Builder) {
	said := map[string]bool{}
	var lines []string
	for _, run := range r.runs {
		if run.Skip == "" {
			continue
		}
		why, _, _ := strings.Cut(run.Skip, "\n")
		group, phase, _ := strings.Cut(run.Cell, "/")
		key := run.Side + ": " + why
		if phase == "" && said[key] {
			continue
		}
		said[key] = true
		where := group
		if phase != "" {
			where += ", " + phase
		}
		lines = append(lines, fmt.Sprintf("- %s of %s: %s", where, run.Side, why))
	}
	if len(lines) > 0 {
		b.WriteString("\n### Not measured\n\n" + strings.Join(lines, "\n") + "\n")
	}
	if left := r.left(); len(left) > 0 {
		b.WriteString("\n### Not reached\n\nOf the full profile the time that it had did not give:\n\n" + strings.Join(left, "\n") + "\n")
	}
}

// left are the items of the full profile that are incomplete, unless only the
// quick one was measured.
func (r *results) left() []string {
	j := &journal{runs: map[runKey]record{}}
	for _, run := range r.runs {
		j.runs[runKey{run.Cell, run.Side, run.Round}] = run
	}
	items, err := profile("full", kitSide)
	if err != nil || !r.full() {
		return nil
	}
	byWhy := map[string][]string{}
	var order []string
	for _, it := range items {
		n := it.left(j)
		if n == 0 {
			continue
		}
		text := it.group.name
		if n < it.group.rounds {
			text += fmt.Sprintf(" (%d of %d rounds)", n, it.group.rounds)
		}
		if byWhy[it.why] == nil {
			order = append(order, it.why)
		}
		byWhy[it.why] = append(byWhy[it.why], text)
	}
	var out []string
	for _, why := range order {
		out = append(out, "- "+why+": "+strings.Join(byWhy[why], ", "))
	}
	return out
}

// full says whether anything is there that the quick profile does not measure.
func (r *results) full() bool {
	return slices.ContainsFunc(r.runs, func(run record) bool {
		group, _, _ := strings.Cut(run.Cell, "/")
		return !slices.Contains(quickWorkloads, group)
	})
}

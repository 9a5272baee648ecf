package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// item is a piece of a profile: some rounds of a group on some sides. fbuild is
// in each, so that whatever is compared was measured in turns.
type item struct {
	group group
	cost  time.Duration // of a round, about, on two processors
	why   string        // what it is for, for the list
}

// The sides of an item of the full profile.
var (
	mainSides  = []string{fbuildSide, kitSide, "buildah-rootless", "dind"}
	quickSides = []string{fbuildSide, kitSide, "buildah-rootless"}
	// kanikoSides and otherSides are measured in rounds of their own, with fbuild again.
	kanikoSides = []string{fbuildSide, "kaniko"}
	tracedSides = []string{fbuildSide, untracedSide, kitSide}
	otherSides  = []string{fbuildSide, walkSide, "fbuild-root", "docker-buildkit", "docker-classic", "buildah-fuse", "buildah-vfs"}
)

// corePhases are measured first; laterPhases of a long workload have a round of their
// own, with another cold build.
var (
	corePhases  = []string{coldPhase, pushPhase, rePushPhase, nothingPhase, sourcePhase, floorPhase}
	laterPhases = []string{readmePhase, manifestPhase, docPhase, sharedPhase, droppedPhase}
	// tracePhases are those that a trace is for.
	tracePhases = []string{coldPhase, nothingPhase, sourcePhase, readmePhase, docPhase, sharedPhase}
)

// The first rounds of the items that come later.
const (
	laterRound  = 50
	kanikoRound = 100
	otherRound  = 200
)

// quickWorkloads need nothing but Go, busybox and the peers: no network, no debootstrap.
var quickWorkloads = []string{"steps", "files", "copy"}

// traceWorkloads are those of the profile traces, the most telling first.
var traceWorkloads = []string{"node-wrong", "node-last", "node-right", "apt", "steps", "copy"}

// only leaves certain phases.
func (w workload) only(phases ...string) workload {
	w.phases = slices.DeleteFunc(slices.Clone(w.phases), func(p string) bool { return !slices.Contains(phases, p) })
	return w
}

// core leaves the phases that are measured first: all of a short workload.
func (w workload) core() workload {
	if w.short {
		return w
	}
	return w.only(corePhases...)
}

func workloadNamed(name string) workload {
	for _, w := range workloads {
		if w.name == name {
			return w
		}
	}
	return workload{}
}

// seconds of one round of the main sides, measured here; only the order of
// magnitude matters, for -budget.
var roundSeconds = map[string]int{
	"steps": 40, "files": 70, "copy": 140, "node-wrong": 270, "node-right": 190, "node-last": 150, "apt": 170, "big": 130, "runs": 100, "meta": 90, "go": 200, "stages": 40,
	"monorepo": 80,
}

// growthSeconds are those of one growth on two sides.
const growthSeconds = 100

// fullBudget is what the full profile takes at most, unless the caller says otherwise.
const fullBudget = 90 * time.Minute

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// profiles says what is measured, the most valuable first.
func profile(name, peer string) ([]item, error) {
	var out []item
	switch name {
	case "quick":
		for _, n := range quickWorkloads {
			w := workloadNamed(n).only(append(slices.Clone(pushPhases), editPhases...)...)
			rounds := map[string]int{"steps": 3}[n]
			out = append(out, item{w.group(quickSides, 0, max(1, rounds)), seconds(roundSeconds[n] * 2 / 3), "three workloads, two peers"})
		}
		return out, nil
	case "traces":
		for _, n := range traceWorkloads {
			w := workloadNamed(n).only(tracePhases...)
			out = append(out, item{w.group(tracedSides, 0, w.rounds), seconds(roundSeconds[n] * 2 / 3), "what traces are for"})
		}
		return out, nil
	case "full":
	default:
		return nil, fmt.Errorf("-profile %s: there are quick, traces and full", name)
	}
	for _, w := range workloads {
		sides := append(slices.Clone(mainSides), nativeSide)
		out = append(out, item{w.core().group(sides, 0, 1), seconds(roundSeconds[w.name]), "every workload once, on the main sides"})
		if w.name == "runs" {
			out = append(out, item{growths[0].group([]string{fbuildSide, peer}), seconds(growthSeconds), "growth"})
		}
	}
	for _, g := range growths[1:] {
		out = append(out, item{g.group([]string{fbuildSide, peer}), seconds(growthSeconds), "growth"})
	}
	for _, n := range []string{"steps", "files", "node-wrong", "runs", "copy", "big", "apt", "go"} {
		w := workloadNamed(n).only(coldPhase, nothingPhase, sourcePhase, readmePhase)
		out = append(out, item{w.group(kanikoSides, kanikoRound, 1), seconds(roundSeconds[n]), "kaniko"})
	}
	for _, w := range workloads {
		if m := w.only(append([]string{coldPhase}, laterPhases...)...); len(m.phases) > 1 && !w.short {
			out = append(out, item{m.group(mainSides, laterRound, 1), seconds(roundSeconds[w.name] * 3 / 2), "the rarer phases"})
		}
	}
	for _, w := range workloads {
		m := w.core()
		m.phases = slices.DeleteFunc(slices.Clone(m.phases), func(p string) bool { return p == floorPhase })
		out = append(out, item{m.group(mainSides, 1, w.rounds-1), seconds(roundSeconds[w.name]), "further rounds: the spread"})
	}
	for _, w := range workloads {
		m := w.only(coldPhase, pushPhase, nothingPhase, sourcePhase)
		out = append(out, item{m.group(otherSides, otherRound, 1), seconds(roundSeconds[w.name] * 3 / 2), "the classic builder, other storage drivers and recorders"})
	}
	return out, nil
}

// left is how many rounds of an item are missing.
func (it item) left(j *journal) int {
	n := 0
	for round := it.group.first; round < it.group.first+it.group.rounds; round++ {
		if !j.finished(it.group.name, fbuildSide, round) {
			n++
		}
	}
	return n
}

// cost is how long a round of an item takes: as the last one of the same sides
// did, with a third for what is not timed, or what the profile says.
func (j *journal) cost(it item) time.Duration {
	var sum time.Duration
	have := map[string]bool{}
	last := map[runKey]float64{}
	for k, r := range j.runs {
		name, _, _ := strings.Cut(k.cell, "/")
		if name != it.group.name || !slices.Contains(it.group.sides, k.side) {
			continue
		}
		have[k.side] = true
		if phase := strings.TrimPrefix(k.cell, name+"/"); slices.Contains(it.group.phases, phase) {
			last[runKey{cell: k.cell, side: k.side}] = r.Wall
		}
	}
	for _, wall := range last {
		sum += time.Duration(wall * float64(time.Second))
	}
	if len(have) < len(it.group.sides) {
		return it.cost
	}
	return sum*4/3 + 15*time.Second
}

// measureItems takes the rounds that are missing, as long as the time lasts.
func (e *env) measureItems(ctx context.Context, items []item, only []string) (failed []string, err error) {
	for _, it := range items {
		if len(only) > 0 && !slices.Contains(only, it.group.name) {
			continue
		}
		n := it.left(e.journal)
		if !e.deadline.IsZero() && n > 0 && time.Now().Add(e.journal.cost(it)).After(e.deadline) {
			fmt.Fprintf(os.Stderr, "%s, round %d: some %v, which the budget does not have\n", it.group.name, it.group.first, e.journal.cost(it))
			continue
		}
		bad, err := e.measureGroup(ctx, it.group)
		failed = append(failed, bad...)
		if err != nil {
			if ctx.Err() != nil {
				return failed, errors.New("interrupted: what was measured is kept")
			}
			failed = append(failed, it.group.name)
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", it.group.name, err)
		}
	}
	return failed, nil
}

// bestPeer is the one that growth is measured beside.
func bestPeer() string {
	for program, variable := range map[string]string{"buildkitd": buildkitdVar, "buildctl": buildctlVar, "rootlesskit": rootlesskitVar} {
		if _, err := findTool(variable, program); err != nil {
			return "docker-buildkit"
		}
	}
	return kitSide
}

// prepare makes bases and images of peers, so that measuring is all that is left.
func (e *env) prepare(ctx context.Context, items []item) error {
	done := map[string]bool{}
	var errs []error
	for _, it := range items {
		for _, w := range workloads {
			if w.name != it.group.name || done[w.name] {
				continue
			}
			done[w.name] = true
			fmt.Fprintf(os.Stderr, "%s: making the base\n", w.name)
			if _, err := w.base(e, ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
			}
		}
		if slices.Contains(it.group.sides, "dind") && !done["dind"] && e.host.Versions["dockerd"] != "" {
			done["dind"] = true
			fmt.Fprintln(os.Stderr, "dind: making the image")
			if err := e.startHostd(ctx); err != nil {
				errs = append(errs, fmt.Errorf("dind: %w", err))
			}
		}
		if it.group.name == "growth-base" && !done["growth-base"] {
			done["growth-base"] = true
			fmt.Fprintln(os.Stderr, "growth-base: making the layers")
			if trees, err := e.bigTrees(ctx, 32, e.scaled(128)); err != nil {
				errs = append(errs, err)
			} else if _, err := e.layersOf(ctx, "grow32", trees...); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// listItems says what a profile has, for people.
func listItems(items []item) string {
	var b strings.Builder
	var sum time.Duration
	for _, it := range items {
		all := it.cost * time.Duration(it.group.rounds)
		sum += all
		fmt.Fprintf(&b, "%-16s %2d rounds from %3d  ~%4.1f min  %s\n    sides: %s\n    phases: %s\n", it.group.name, it.group.rounds, it.group.first, all.Minutes(),
			it.why, strings.Join(it.group.sides, ", "), strings.Join(it.group.phases, ", "))
	}
	fmt.Fprintf(&b, "about %.0f minutes\n", sum.Minutes())
	return b.String()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// measureGroup takes the rounds of a group that are missing and returns the sides
// that failed.
func (e *env) measureGroup(ctx context.Context, g group) (failed []string, err error) {
	if len(g.phases) == 0 {
		g.phases = []string{""}
	}
	if g.every == 0 {
		g.every = speedEvery
	}
	if e.pairs > 0 {
		g.rounds = e.pairs
	}
	if e.complete(g) {
		fmt.Fprintf(os.Stderr, "%s: measured already\n", g.name)
		return nil, nil
	}
	fmt.Fprintf(os.Stderr, "%s: preparing\n", g.name)
	b, err := g.open(ctx, e, g)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", g.name, err)
	}
	defer func() {
		if b.close != nil {
			err = errors.Join(err, b.close())
		}
	}()
	dead := map[string]bool{}
	for _, s := range b.sides {
		if s.skip != "" {
			dead[s.name] = true
			if err := e.skipped(g, s, s.skip); err != nil {
				return nil, err
			}
		}
	}
	for round := range g.rounds {
		bad, err := e.measureRound(ctx, g, b, round, dead)
		failed = append(failed, bad...)
		if err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// sidesOf are the sides of a group that have a record; which there are is known
// for certain only when the group is open.
func (e *env) sidesOf(g group) map[string]bool {
	out := map[string]bool{}
	for k := range e.journal.runs {
		if k.cell == g.name || k.cell == g.cellName(g.phases[0]) { // a reason to skip stands under the group
			out[k.side] = true
		}
	}
	return out
}

// complete says whether nothing of a group is missing: every side of its first
// round has all others, or had its one.
func (e *env) complete(g group) bool {
	sides := e.sidesOf(g)
	if len(sides) == 0 {
		return false
	}
	for s := range sides {
		rounds := g.rounds
		if slices.Contains(onceSides, s) {
			rounds = 1
		}
		for round := range rounds {
			for _, p := range g.phases {
				if !e.journal.has(g.cellName(p), s, round) {
					return false
				}
			}
		}
	}
	return true
}

// measureRound takes one round of all sides, phase by phase, interleaved.
func (e *env) measureRound(ctx context.Context, g group, b *bench, round int, dead map[string]bool) (failed []string, err error) {
	var sides []side
	whole := true
	for _, s := range b.sides {
		if dead[s.name] || round > 0 && slices.Contains(onceSides, s.name) {
			continue
		}
		sides = append(sides, s)
		for _, p := range g.phases {
			whole = whole && e.journal.has(g.cellName(p), s.name, round)
		}
	}
	if whole {
		return nil, nil
	}
	fail := func(s side, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		dead[s.name] = true
		failed = append(failed, g.name+" of "+s.name)
		fmt.Fprintf(os.Stderr, "%s: %s: %v\n", g.name, s.name, err)
		return e.skipped(g, s, err.Error())
	}
	for _, s := range sides {
		if s.reset == nil {
			continue
		}
		if err := s.reset(ctx, round); err != nil {
			if err := fail(s, err); err != nil {
				return failed, err
			}
		}
	}
	for _, phase := range g.phases {
		if b.begin != nil {
			if err := b.begin(phase, round); err != nil {
				return failed, err
			}
		}
		for _, s := range sides {
			if dead[s.name] {
				continue
			}
			if err := e.measureRun(ctx, g, b, s, phase, round); err != nil {
				if err := fail(s, err); err != nil {
					return failed, err
				}
			}
		}
	}
	return failed, nil
}

// measureRun takes one run and writes it down.
func (e *env) measureRun(ctx context.Context, g group, b *bench, s side, phase string, round int) error {
	m := meter{every: g.every}
	for _, other := range b.sides {
		if other.daemon != 0 && other.daemon != s.daemon {
			m.others = append(m.others, other.daemon)
		}
	}
	busy, noisy, err := quiet(ctx, e.wait)
	if err != nil {
		return err
	}
	r := e.record(g.cellName(phase), s, round)
	r.Busy, r.Load, r.Noisy = busy, loadAverage(), noisy
	got, err := s.run(ctx, m, phase, round)
	if err != nil {
		return err
	}
	if got.compared == 0 {
		got.compared = got.wall
	}
	r.Wall, r.Whole, r.CPU, r.RSS = got.compared.Seconds(), got.wall.Seconds(), got.cpu.Seconds(), got.rss
	mark := ""
	if noisy {
		mark = fmt.Sprintf("  noisy: %.0f %% busy", 100*busy)
	}
	fmt.Fprintf(os.Stderr, "%-16s %2d  %-18s %8.3f s  cpu %7.3f s  %5d MiB%s\n", r.Cell, round, s.name, r.Wall, r.CPU, r.RSS>>20, mark)
	return e.journal.add(r)
}

func (e *env) record(cell string, s side, round int) record {
	return record{
		Cell: cell, Side: s.name, Round: round, Version: s.version, Subject: e.host.Versions["fbuild"],
		Kernel: e.host.Kernel, Tiny: e.tiny, Time: time.Now().UTC().Format(time.RFC3339),
	}
}

// skipped writes down why a side was not measured. Round -1 keeps the runs that
// it had.
func (e *env) skipped(g group, s side, why string) error {
	r := e.record(g.name, s, -1)
	r.Skip = why
	return e.journal.add(r)
}

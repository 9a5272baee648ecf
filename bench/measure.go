package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	var took time.Duration // of the last round
	for round := g.first; round < g.first+g.rounds; round++ {
		if e.late(took) {
			break
		}
		begin := time.Now()
		bad, err := e.measureRound(ctx, g, b, round, dead)
		took = time.Since(begin)
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
	if len(g.sides) > 0 {
		return e.sidesDone(g)
	}
	for s := range sides {
		rounds := g.rounds
		if onceOnly(s) {
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
		if dead[s.name] || round > g.first && onceOnly(s.name) {
			continue
		}
		sides = append(sides, s)
		for _, p := range g.phases {
			whole = whole && (!s.takes(p) || e.journal.has(g.cellName(p), s.name, round) || e.notYet(g, p, s.name))
		}
	}
	if whole {
		return nil, nil
	}
	if round%2 == 1 { // A B, then B A
		slices.Reverse(sides)
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
			if dead[s.name] || !s.takes(phase) {
				continue
			}
			if err := e.measureRun(ctx, g, b, s, phase, round); err != nil {
				if err := fail(s, err); err != nil {
					return failed, err
				}
			}
		}
	}
	if g.sides == nil {
		return failed, nil
	}
	for _, s := range sides {
		r := e.record(g.name, s, round)
		if err := e.journal.finish(r); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// measureRun takes one run and writes it down.
func (e *env) measureRun(ctx context.Context, g group, b *bench, s side, phase string, round int) error {
	m := meter{every: g.every}
	if e.hostd != nil { // it runs containers, as a node of a cluster does
		m.others = append(m.others, e.hostd.cmd.Process.Pid)
	}
	for _, other := range b.sides {
		if other.daemon != 0 && other.daemon != s.daemon {
			m.others = append(m.others, other.daemon)
		}
	}
	r := e.record(g.cellName(phase), s, round)
	if s.before != nil {
		err := s.before(ctx, phase, round)
		if none, ok := errors.AsType[notYetError](err); ok {
			r.Round, r.Skip = -1, none.why
			return e.journal.add(r)
		}
		if err != nil {
			return err
		}
	}
	busy, noisy, err := quiet(ctx, e.wait)
	if err != nil {
		return err
	}
	r.Busy, r.Load, r.Noisy = busy, loadAverage(), noisy
	got, err := e.limited(ctx, g, s, m, phase, round, &r)
	err = errors.Join(err, e.keepLog(r, got.stderr))
	if err != nil {
		return err
	}
	if got.compared == 0 {
		got.compared = got.wall
	}
	r.Wall, r.Whole, r.CPU, r.RSS = got.compared.Seconds(), got.wall.Seconds(), got.cpu.Seconds(), got.rss
	r.Layers, r.Setup, r.X = got.layers, got.setup.Seconds(), got.x
	mark := ""
	if r.Capped {
		mark = "  ended at its limit"
	}
	if noisy {
		mark = fmt.Sprintf("  noisy: %.0f %% busy", 100*busy)
	}
	fmt.Fprintf(os.Stderr, "%-22s %3d  %-18s %8.3f s  cpu %7.3f s  %5d MiB%s\n", r.Cell, round, s.name, r.Wall, r.CPU, r.RSS>>20, mark)
	if err := e.journal.add(r); err != nil || !r.Capped {
		return err
	}
	return fmt.Errorf("%s ended at its limit of %v: its later phases are left out", phase, g.limit)
}

// keepLog keeps what a run printed until the next run of the cell: for whoever
// doubts that it did what its name says.
func (e *env) keepLog(r record, text string) error {
	dir := filepath.Join(e.out, "logs")
	if err := openDirs(dir); err != nil {
		return err
	}
	name := strings.NewReplacer("/", "+", " ", "-", ",", "").Replace(r.Cell + "+" + r.Side + ".log")
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		return fmt.Errorf("keep log: %w", err)
	}
	return nil
}

// limited runs a side, ends it at the limit of the group, and fills in what the
// disk and the registry were given.
func (e *env) limited(ctx context.Context, g group, s side, m meter, phase string, round int, r *record) (sample, error) {
	runCtx, cancel := ctx, func() {}
	if g.limit > 0 {
		runCtx, cancel = context.WithTimeout(ctx, g.limit)
	}
	defer cancel()
	disk, pushed := writtenTo(e.device), e.registry.received.Load()
	got, err := s.run(runCtx, m, phase, round)
	r.Sent = e.registry.received.Load() - pushed
	if err != nil {
		err = errors.Join(err, e.endStrays(m, s.daemon))
		if ctx.Err() == nil && runCtx.Err() != nil {
			r.Capped = true
			got.wall, got.compared = g.limit, 0
			return got, nil
		}
		return got, err
	}
	if disk >= 0 {
		unix.Sync()
		r.Written = max(0, writtenTo(e.device)-disk-r.Sent) // the registry is on the same disk
	}
	return got, nil
}

// endStrays ends by its id what an interrupted run left, but no daemon.
func (e *env) endStrays(m meter, daemon int) error {
	except := append(slices.Clone(m.others), daemon)
	all, err := descendants(os.Getpid(), except)
	for _, p := range all {
		if !isDaemon(p.pid) && p.pid != daemon {
			_ = unix.Kill(p.pid, unix.SIGKILL) // gone is as good
		}
	}
	m.settle(0)
	return err
}

// late says whether something that takes so long would end after the time that
// the caller gave.
func (e *env) late(took time.Duration) bool {
	return !e.deadline.IsZero() && time.Now().Add(took).After(e.deadline)
}

// notYet says whether a phase of a side was found not to be there.
func (e *env) notYet(g group, phase, side string) bool {
	r, ok := e.journal.runs[runKey{g.cellName(phase), side, -1}]
	return ok && r.Skip != ""
}

// sidesDone says whether nothing of the named sides is missing: each has all
// its rounds, or a reason.
func (e *env) sidesDone(g group) bool {
	for _, s := range g.sides {
		if e.notYet(group{name: g.name}, "", s) {
			continue
		}
		for round := g.first; round < g.first+g.rounds; round++ {
			if !e.journal.finished(g.name, s, round) && (round == g.first || !onceOnly(s)) {
				return false
			}
		}
	}
	return true
}

func (e *env) record(cell string, s side, round int) record {
	return record{
		Settings: s.settings,
		Cell:     cell, Side: s.name, Round: round, Version: s.version, Subject: e.host.Versions["fbuild"],
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

package build

import (
	"context"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// What earlier runs of a step read of the base it will read again: that is fetched as it
// begins, in few requests. Nothing waits for it, and a failure is none: who needs the bytes
// asks again.

// foresee fetches what the newest results of the step's identity asked the contents of.
func (t *tracer) foresee(ctx context.Context) {
	const newest = 2
	if len(t.list) == 0 || !t.b.hasLazies() {
		return
	}
	below, err := t.below.Shape(ctx, t.b)
	if err != nil {
		return // the step will say so
	}
	want := map[tree.PackID][]tree.Extent{}
	for _, r := range t.list[:min(newest, len(t.list))] {
		tr, err := t.b.loadTrace(ctx, r.Trace)
		if err != nil {
			continue
		}
		for i := range tr.Answers {
			q := &tr.Answers[i].Question
			if q.Root != 0 || q.Kind != trace.Content {
				continue
			}
			if n := below.Lookup(q.Path); n != nil && n.Kind == tree.File {
				for _, x := range n.Extents {
					want[x.Pack] = append(want[x.Pack], x)
				}
			}
		}
	}
	t.b.ahead(want) //nolint:contextcheck // it outlives the step, not the build
}

func (b *builder) hasLazies() bool {
	b.lazies.mu.Lock()
	defer b.lazies.mu.Unlock()
	return len(b.lazies.list) > 0
}

// ahead fetches places of lazy packs behind the steps, until the last of these is over.
func (b *builder) ahead(want map[tree.PackID][]tree.Extent) {
	b.lazies.mu.Lock()
	defer b.lazies.mu.Unlock()
	for _, z := range b.lazies.list {
		seen := map[int]bool{}
		var list []int
		for _, x := range want[z.id] {
			for _, k := range z.chunksOf(x.Off, x.Len) {
				if !seen[k] {
					seen[k] = true
					list = append(list, k)
				}
			}
		}
		z.behind(list)
	}
}

// behind fetches chunks. The caller holds the lock of lazies.
func (z *lazyLayer) behind(list []int) {
	s := &z.b.lazies
	if len(list) == 0 || s.over {
		return
	}
	ctx, stop := context.WithCancel(z.b.stepCtx)
	s.stops = append(s.stops, stop)
	s.ahead.Go(func() { _ = z.sweep(ctx, list) })
}

// endAhead stops what is fetched ahead: the steps are over.
func (b *builder) endAhead() {
	b.lazies.mu.Lock()
	b.lazies.over = true
	for _, stop := range b.lazies.stops {
		stop()
	}
	b.lazies.mu.Unlock()
	b.lazies.ahead.Wait()
}

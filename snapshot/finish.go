package snapshot

import (
	"context"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// finish has walk look at the step's directory and makes the result.
func (sc *scanner) finish(ctx context.Context, walk func(*scanner, context.Context) (tree.Tree, error)) (recorder.Result, error) {
	s := sc.step
	after, err := walk(sc, ctx)
	id, cerr := sc.spool.commit(err == nil)
	if err != nil {
		return recorder.Result{}, err
	}
	if cerr != nil {
		return recorder.Result{}, cerr
	}
	cs, err := tree.Diff(s.parent, after, func(a, b *tree.Node) (bool, error) {
		return sameBytes(nodeReader{s.packs, a}, nodeSegments(a), nodeReader{s.packs, b}, nodeSegments(b))
	})
	if err != nil {
		return recorder.Result{}, err
	}
	// What was stored differs from the parent's bytes at its path, so that the
	// changes hold all of the pack.
	return recorder.Result{Changes: wholeSeconds(cs), Pack: id, Notes: sc.notes}, nil
}

// commit ends the pack, if there is one, and returns its name.
func (s *spool) commit(good bool) (tree.PackID, error) {
	if s.w == nil {
		return "", nil
	}
	if !good {
		s.w.Abort()
		return "", nil
	}
	return s.w.ID(), s.w.Commit()
}

// wholeSeconds rounds the times of changes as the layer writer does (LAWS 13).
func wholeSeconds(cs tree.Changes) tree.Changes {
	copies := map[*tree.Node]*tree.Node{}
	for i := range cs {
		n := cs[i].Node
		if n == nil || n.Mtime.Nsec == 0 {
			continue
		}
		if copies[n] == nil {
			c := n.Attrs()
			c.Mtime = c.Mtime.Truncate()
			copies[n] = &c
		}
		cs[i].Node = copies[n]
	}
	return cs
}

package build

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/tree"
)

// squash returns s with one layer in the place of all that the build put on its
// base image, and one entry of history for it, as kaniko's --single-snapshot has
// it: that of the last instruction. The steps keep their own results.
func (b *builder) squash(ctx context.Context, s *state) (*state, error) {
	base := s.fs.base()
	if base == s.fs {
		return s, nil
	}
	chain, err := s.fs.chainID(ctx)
	if err != nil {
		return nil, err
	}
	key := newKey("squash").str(string(chain)).sum()
	res, unlock, err := b.reuse(ctx, key, base)
	if err != nil {
		return nil, err
	}
	if unlock != nil {
		step := b.opts.Progress.Step("squashing layers")
		step.Start()
		cs, err := b.difference(ctx, base, s.fs)
		step.Done(err)
		if err != nil {
			unlock()
			return nil, err
		}
		res = b.commit(key, base, cs, unlock)
	}
	out := *s
	out.cfg = cloneConfig(s.cfg)
	out.fs = base.push(res.layer)
	out.cfg.History = squashHistory(s.cfg.History, s.baseHistory, res)
	return &out, nil
}

func (b *builder) difference(ctx context.Context, from, to *fsState) (tree.Changes, error) {
	before, err := from.Tree(ctx, b)
	if err != nil {
		return nil, err
	}
	after, err := to.Tree(ctx, b)
	if err != nil {
		return nil, err
	}
	return tree.Diff(before, after, b.same)
}

// squashHistory is the base's history and one entry for what was added. Its time
// is that of the last step, so that known steps give the same image.
func squashHistory(list []v1.History, base int, res result) []v1.History {
	out := append([]v1.History{}, list[:base]...)
	if len(list) == base {
		return out
	}
	h := list[len(list)-1]
	for _, e := range list[base:] {
		if !e.Created.IsZero() {
			h.Created = e.Created
		}
	}
	h.EmptyLayer = res.layer == nil
	return append(out, h)
}

// base returns the file system of the base image under f: the empty one where
// there is none.
func (f *fsState) base() *fsState {
	for f.layer != nil && (f.layer.src == nil || f.layer.shared) {
		f = f.parent
	}
	return f
}

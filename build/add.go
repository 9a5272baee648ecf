package build

import (
	"context"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// addStep does ADD.
func (r *stageRun) addStep(ctx context.Context, s *state, in *dockerfile.Add, step *progress.Step) (result, bool, error) {
	src, err := r.contextSource(ctx, &in.Transfer)
	if err != nil {
		return result{}, false, err
	}
	return r.transfer(ctx, s, &copyRun{b: r.b, tr: &in.Transfer, src: src, add: in, step: step}, nil)
}

// pickFile picks the file of a URL. It is no archive unless --unpack says so.
func (c *copyRun) pickFile(ctx context.Context, src string) error {
	if c.b.planning() {
		return &unknownError{"a plan does not ask for what is at an address"}
	}
	f, err := c.b.remoteFile(ctx, src, c.add.Checksum, c.step)
	if err != nil {
		return err
	}
	c.picks = append(c.picks, pick{
		match: match{Path: f.Name, Name: f.Name}, file: f, unpack: c.add.Unpack != nil && *c.add.Unpack,
	})
	return nil
}

// pickGit picks the tree of a repository.
func (c *copyRun) pickGit(ctx context.Context, src string) error {
	if c.b.planning() {
		return &unknownError{"a plan does not ask for what is at an address"}
	}
	g, err := c.b.remoteGit(ctx, src, c.add.Checksum, c.add.KeepGitDir != nil && *c.add.KeepGitDir, c.step)
	if err != nil {
		return err
	}
	c.picks = append(c.picks, pick{match: match{Own: true}, git: g})
	return nil
}

// fetch gives the remote picks their trees.
func (c *copyRun) fetch(ctx context.Context) error {
	for i := range c.picks {
		p, err := &c.picks[i], error(nil)
		switch {
		case p.file != nil:
			p.from, err = c.fetchFile(ctx, p)
		case p.git != nil:
			p.from, err = c.fetchGit(ctx, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copyRun) fetchFile(ctx context.Context, p *pick) (*origin, error) {
	n, err := p.file.Node(ctx, c.sink)
	if err != nil {
		return nil, err
	}
	e := tree.Empty().Edit()
	if err := e.Put(p.Path, n); err != nil {
		return nil, err
	}
	return &origin{tree: e.Tree(), paths: []string{p.Path}}, nil
}

func (c *copyRun) fetchGit(ctx context.Context, p *pick) (*origin, error) {
	l, err := p.git.Context(ctx)
	if err != nil {
		return nil, err
	}
	t, err := l.ctx.Tree(ctx, []string{"."})
	if err != nil {
		return nil, err
	}
	f, err := newFilter("", c.tr.Exclude)
	if err != nil {
		return nil, err
	}
	o := &origin{paths: []string{""}, local: l}
	o.tree, p.Implied, err = f.apply(t, "")
	return o, err
}

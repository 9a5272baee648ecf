package build

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// copySource is where a COPY or ADD takes its files from.
type copySource struct {
	local *localContext // a directory of this host, or
	fs    *fsState      // the file system of a stage or image
}

// copyStep does COPY, and ADD where in is nil.
func (r *stageRun) copyStep(ctx context.Context, s *state, tr *dockerfile.Transfer, in *dockerfile.Copy, step *progress.Step) (result, bool, error) {
	src, err := r.source(ctx, in)
	if err != nil {
		return result{}, false, err
	}
	c := &copyRun{b: r.b, below: s.fs, belowKey: s.key, tr: tr, src: src, unpack: in == nil, step: step}
	defer c.close()
	res, cached, err := c.do(ctx)
	if err == nil {
		s.key = c.key
	}
	return res, cached, err
}

// source finds what --from means: a stage, a named context, or an image.
func (r *stageRun) source(ctx context.Context, c *dockerfile.Copy) (*copySource, error) {
	b := r.b
	if c == nil || c.From == "" {
		l, err := b.mainContext(ctx)
		return &copySource{local: l}, err
	}
	if c.FromStage != nil && c.FromStage.Context == "" {
		s, err := b.stage(c.FromStage).wait(ctx)
		if err != nil {
			return nil, err
		}
		return &copySource{fs: s.fs}, nil
	}
	name := c.From
	if c.FromStage != nil {
		name = c.FromStage.Context
	}
	if dir, ok := b.contextDir(name); ok {
		l, err := b.localContext(ctx, name, dir, nil)
		return &copySource{local: l}, err
	}
	bs, err := b.base(ctx, name, b.opts.Platform)
	if err != nil {
		return nil, err
	}
	return &copySource{fs: bs.fs}, nil
}

// copyRun is one COPY or ADD on its way.
type copyRun struct {
	b *builder
	// below is the stage's file system before the step and belowKey its key: the
	// stage itself moves on while the alias is stored behind it.
	below    *fsState
	belowKey Key
	tr       *dockerfile.Transfer
	src      *copySource
	unpack   bool // ADD: local archives are unpacked
	step     *progress.Step

	sink    *sink
	tree    tree.Tree // the source as far as it is known
	matches [][]match
	docs    []tree.Node // the heredocs
	key     Key
}

func (c *copyRun) close() {
	if c.sink != nil {
		c.sink.abort()
	}
}

func (c *copyRun) do(ctx context.Context) (result, bool, error) {
	if c.src.fs != nil && c.src.fs.sealed() && !c.b.opts.NoCache {
		alias, err := c.definition(ctx)
		if err != nil {
			return result{}, false, err
		}
		var key Key
		if c.b.getJSON(kindAlias, string(alias), &key) {
			if res, ok := c.b.recorded(ctx, key, c.below); ok {
				c.key = key
				return res, true, nil
			}
		}
	}
	c.step.Start()
	if err := c.look(ctx); err != nil {
		return result{}, false, err
	}
	res, unlock, err := c.b.reuse(ctx, c.key, c.below)
	if err != nil {
		return result{}, false, err
	}
	if unlock == nil {
		c.putAlias()
		return res, true, nil
	}
	cs, err := c.apply(ctx)
	if err != nil {
		unlock()
		return result{}, false, err
	}
	c.putAlias()
	return c.b.commit(c.key, c.below, cs, unlock, c.indexer(cs)), false, nil
}

// definition is a key for what the instruction says, known without looking at a
// file: the layers of the source stand for its contents. A host directory has
// none.
func (c *copyRun) definition(ctx context.Context) (Key, error) {
	chain, err := c.src.fs.chainID(ctx)
	if err != nil {
		return "", err
	}
	return c.head("copy definition").str(string(chain)).strs(c.tr.Sources).sum(), nil
}

func (c *copyRun) head(kind string) *keyer {
	k := newKey(kind).str(string(c.belowKey)).str(c.tr.Target).str(c.tr.Chown).str(c.tr.Chmod).str(c.b.epochKey())
	k.num(uint64(len(c.tr.Heredocs)))
	for _, h := range c.tr.Heredocs {
		k.str(h.Name).str(h.Data)
	}
	if c.unpack {
		k.str("unpack")
	}
	return k
}

// putAlias lets the next build find the key without looking at a file, once the
// layers of the source have names.
func (c *copyRun) putAlias() {
	if c.src.fs == nil {
		return
	}
	key := c.key
	c.b.behind(func(ctx context.Context) error {
		alias, err := c.definition(ctx)
		if err != nil {
			return err
		}
		return c.b.putJSON(kindAlias, string(alias), key, nil, nil)
	})
}

// look finds what the sources match, and the digest of all of it: the key of
// what is copied, whatever the times and wherever it comes from.
func (c *copyRun) look(ctx context.Context) (err error) {
	if c.src.local != nil {
		c.sink = newSink(c.b)
		c.tree, err = c.src.local.ctx.Tree(ctx, c.tr.Sources)
	} else {
		c.tree, err = c.src.fs.Tree(ctx, c.b)
	}
	if err != nil {
		return err
	}
	if c.src.local != nil {
		for _, n := range c.src.local.ctx.Notes() {
			c.step.Warn(n)
		}
	}
	if c.matches, err = matchSources(c.tree, c.tr.Sources); err != nil {
		return err
	}
	if len(c.tr.Sources) > 0 && len(c.paths()) == 0 && len(c.tr.Heredocs) == 0 {
		c.step.Warn("no source file matches: nothing is copied")
	}
	if c.src.local != nil {
		c.tree, err = c.src.local.ctx.Digests(ctx, c.tree, c.paths(), c.sink)
	} else {
		c.tree, err = digestFiles(ctx, c.tree, c.matches, c.b.store.Packs())
	}
	if err != nil {
		return err
	}
	return c.setKey()
}

func (c *copyRun) setKey() error {
	k := c.head("copy")
	if err := k.selection(c.tree, c.matches); err != nil {
		return err
	}
	c.key = k.sum()
	return nil
}

func (c *copyRun) paths() []string {
	var out []string
	for _, ms := range c.matches {
		for _, m := range ms {
			out = append(out, m.Path)
		}
	}
	return out
}

// apply edits the stage's tree and returns the difference.
func (c *copyRun) apply(ctx context.Context) (tree.Changes, error) {
	if c.src.local != nil {
		t, err := c.src.local.ctx.Fill(ctx, c.tree, c.paths(), c.sink)
		if err != nil {
			return nil, err
		}
		c.tree = t
		// The bytes that were stored decide (LAWS 23).
		if err := c.setKey(); err != nil {
			return nil, err
		}
	}
	if err := c.storeHeredocs(ctx); err != nil {
		return nil, err
	}
	if c.sink != nil {
		if err := c.sink.commit(); err != nil {
			return nil, err
		}
	}
	parent, err := c.below.Tree(ctx, c.b)
	if err != nil {
		return nil, err
	}
	e := parent.Edit()
	cp, err := c.copier(parent, e)
	if err != nil {
		return nil, err
	}
	if err := c.copyAll(ctx, cp); err != nil {
		return nil, err
	}
	return tree.Diff(parent, e.Tree(), c.b.same)
}

// copier resolves --chown and --chmod against the stage's tree. Files of a host
// directory belong to root where nothing else is said.
func (c *copyRun) copier(parent tree.Tree, e *tree.Editor) (*copier, error) {
	spec := copySpec{Target: c.tr.Target, Now: tree.TimeOf(c.b.now()).Truncate()}
	if c.tr.Chown != "" {
		o, err := lookupOwner(parent, c.b.store.Packs(), c.tr.Chown)
		if err != nil {
			return nil, err
		}
		spec.Owner = o
	}
	if c.tr.Chmod != "" {
		mode, err := dockerfile.ParseMode(c.tr.Chmod)
		if err != nil {
			return nil, err
		}
		spec.Mode = mode.Apply
	}
	return newCopier(e, spec), nil
}

func (c *copyRun) copyAll(ctx context.Context, cp *copier) error {
	files := 0
	for _, ms := range c.matches {
		for _, m := range ms {
			if n := c.tree.Lookup(m.Path); n != nil && n.Kind != tree.Dir {
				files++
			}
		}
	}
	if files+len(c.docs) > 1 && !cp.targetIsDir() {
		if _, at, err := cp.target(); err != nil || at == nil || at.Kind != tree.Dir {
			return errors.Join(err, fmt.Errorf("%d files are copied to %q, which is no directory: end it with a slash", files+len(c.docs), c.tr.Target))
		}
	}
	for _, ms := range c.matches {
		for _, m := range ms {
			if c.unpack {
				done, err := c.unpackOne(ctx, cp, m)
				if err != nil {
					return err
				}
				if done {
					continue
				}
			}
			if err := cp.copy(c.tree, m); err != nil {
				return err
			}
		}
	}
	return c.copyHeredocs(cp)
}

// unpackOne unpacks a match of ADD that is an archive, as its content says.
func (c *copyRun) unpackOne(ctx context.Context, cp *copier, m match) (bool, error) {
	n := c.tree.Lookup(m.Path)
	if n == nil || n.Kind != tree.File || n.Size == 0 {
		return false, nil
	}
	r, err := c.b.store.Packs().Open(n)
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close() }() // only read
	pack, err := c.b.store.CreateTarPack()
	if err != nil {
		return false, err
	}
	defer pack.Abort()
	cs, info, err := layer.Extract(ctx, r, pack.ID(), pack, layer.Limits{})
	if errors.Is(err, layer.ErrNotArchive) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("unpack %q: %w", "/"+m.Path, err)
	}
	for _, note := range info.Notes {
		c.step.Warn(note)
	}
	if err := pack.Commit(); err != nil {
		return false, err
	}
	return true, cp.unpack(cs)
}

// storeHeredocs puts the documents of the instruction into the pack.
func (c *copyRun) storeHeredocs(ctx context.Context) error {
	for _, h := range c.tr.Heredocs {
		if c.sink == nil {
			c.sink = newSink(c.b)
		}
		n, err := c.sink.bytes(ctx, h.Data)
		if err != nil {
			return err
		}
		n.Kind, n.Mode, n.Mtime = tree.File, 0o644, tree.TimeOf(c.b.now()).Truncate()
		c.docs = append(c.docs, n)
	}
	return nil
}

func (c *copyRun) copyHeredocs(cp *copier) error {
	for i, n := range c.docs {
		to, at, err := cp.target()
		if err != nil {
			return err
		}
		if cp.targetIsDir() || at != nil && at.Kind == tree.Dir {
			to = tree.Join(to, path.Base(c.tr.Heredocs[i].Name))
		}
		if err := cp.file(to, &n); err != nil {
			return err
		}
	}
	return nil
}

// indexer enters what was stored into the content index, where it is in the layer
// and so durable with it (LAWS 33).
func (c *copyRun) indexer(cs tree.Changes) func() {
	if c.sink == nil {
		return nil
	}
	added, packs := c.sink.added, packsOf(cs)
	return func() {
		for d, ex := range added {
			if len(ex) > 0 && slices.Contains(packs, ex[0].Pack) {
				c.b.store.AddContent(d, ex)
			}
		}
	}
}

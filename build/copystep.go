package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// copySource is where a COPY or ADD takes its files from.
type copySource struct {
	local *localContext // a directory of this host, or
	fs    *fsState      // the file system of a stage or image
}

// copyStep does COPY.
func (r *stageRun) copyStep(ctx context.Context, s *state, in *dockerfile.Copy, step *progress.Step) (result, bool, error) {
	src, err := r.source(ctx, in)
	if err != nil {
		return result{}, false, err
	}
	return r.transfer(ctx, s, &copyRun{b: r.b, tr: &in.Transfer, src: src, step: step}, in.FromStage)
}

// scratchKey is the key of the empty file system.
func scratchKey() Key { return newKey("scratch").sum() }

// transfer puts the copy on the stage's file system. With --link it is made on the
// empty one, and so is its key: what is below may change. As in BuildKit a --chmod
// takes --link back.
func (r *stageRun) transfer(ctx context.Context, s *state, c *copyRun, from *dockerfile.Stage) (result, bool, error) {
	link := c.tr.Link && c.tr.Chmod == ""
	c.below, c.belowKey, c.rep, c.place = s.fs, s.key, r.rep, r.stage.Label()
	if link {
		c.below, c.belowKey = &fsState{}, scratchKey()
	} else if r.b.tracing() {
		c.tracer = &tracer{b: r.b, rep: r.rep, step: c.step, base: s.base, below: c.below}
	}
	defer c.close()
	res, cached, err := c.do(ctx)
	if err != nil {
		return result{}, false, err
	}
	if err := r.b.opts.tracks.copies(ctx, r.stage, c, from); err != nil {
		return result{}, false, err
	}
	if link {
		s.key = newKey("link").str(string(s.key)).str(string(c.key)).sum()
	} else {
		s.key = c.key
	}
	for i := range c.picks {
		switch p := &c.picks[i]; {
		case p.file != nil:
			s.barrier = barred(s.barrier, p.file.Key)
		case p.git != nil:
			s.barrier = barred(s.barrier, p.git.Key)
		}
	}
	return res, cached, nil
}

// source finds what --from means: a stage, a named context, or an image.
func (r *stageRun) source(ctx context.Context, c *dockerfile.Copy) (*copySource, error) {
	b := r.b
	if c.From == "" {
		return r.contextSource(ctx, &c.Transfer)
	}
	if c.FromStage != nil && c.FromStage.Context == "" {
		s, err := b.stage(c.FromStage).wait(ctx)
		if err != nil {
			return nil, err
		}
		r.rep.begun = time.Now() // waiting is not its work
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

// contextSource is the build context, where anything is taken from it.
func (r *stageRun) contextSource(ctx context.Context, t *dockerfile.Transfer) (*copySource, error) {
	if !slices.ContainsFunc(t.Sources, func(src string) bool { return dockerfile.SourceKind(src) == "" }) {
		return &copySource{}, nil
	}
	l, err := r.b.mainContext(ctx)
	return &copySource{local: l}, err
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
	add      *dockerfile.Add // nil for COPY
	step     *progress.Step

	sink  *sink
	picks []pick
	docs  []tree.Node // the heredocs
	// content names what is copied and how, whatever is below; key is that on belowKey.
	content, key Key

	tracer *tracer // nil where the step has no trace
	rep    *StepReport
	place  string       // the stage's label
	edits  *trace.Edits // what the copy looked at below
}

func (c *copyRun) close() {
	if c.sink != nil {
		c.sink.abort()
	}
}

func (c *copyRun) do(ctx context.Context) (result, bool, error) {
	if res, ok, err := c.known(ctx); ok || err != nil {
		return res, true, err
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
	hit, err := c.traced(ctx)
	if err != nil {
		unlock()
		return result{}, false, err
	}
	if hit != nil && !c.b.opts.CacheCheck {
		c.putAlias()
		return c.tracer.adopt(hit, unlock), true, nil
	}
	cs, err := c.apply(ctx)
	if err == nil && hit != nil {
		err = c.tracer.checkChanges(hit, cs)
	}
	if err != nil {
		unlock()
		return result{}, false, err
	}
	c.putAlias()
	if hit != nil {
		return c.tracer.adopt(hit, unlock), true, nil
	}
	return c.commit(ctx, cs, unlock), false, nil
}

// known finds a result without looking at a file: the layers of the source stand for
// its contents.
func (c *copyRun) known(ctx context.Context) (res result, ok bool, err error) {
	if c.src.fs == nil || !c.src.fs.sealed() || c.b.fresh(ctx) {
		return result{}, false, nil
	}
	alias, err := c.definition(ctx)
	if err != nil {
		return result{}, false, err
	}
	if c.content, ok = c.b.alias(ctx, alias); !ok {
		return result{}, false, nil
	}
	c.key = c.exactKey()
	if res, ok = c.b.recorded(ctx, c.key, c.below); ok {
		c.b.offer(c.key, c.below, res)
		c.b.offerAlias(alias, c.content)
		return res, true, nil
	}
	if !c.b.planning() {
		if res, ok = c.b.adopt(ctx, c.key, c.below); ok {
			return res, true, nil
		}
	}
	hit, err := c.traced(ctx)
	if hit == nil || c.b.opts.CacheCheck {
		return result{}, false, err
	}
	return c.tracer.adopt(hit, func() {}), true, nil
}

// traced finds a result of the same files on something else below.
func (c *copyRun) traced(ctx context.Context) (*traceHit, error) {
	if c.tracer == nil {
		return nil, nil
	}
	c.tracer.key, c.tracer.asked = c.key, false
	c.tracer.id = c.b.newIdentity("copy", c.tracer.base).str(string(c.content)).sum()
	return c.tracer.findUnless(ctx, c.b.caches.Load()) // see tracer.results; it is done at once, with times that do not go back
}

// commit stores what was copied.
func (c *copyRun) commit(ctx context.Context, cs tree.Changes, unlock func()) result {
	index, def := c.indexer(cs), c.copiedKey()
	stored := func(rec stepRecord) {
		index()
		c.b.keepCopied(def, rec.DiffID)
	}
	if c.tracer == nil {
		return c.b.commitStep(commitment{key: c.key, below: c.below, changes: cs, unlock: unlock, stored: stored})
	}
	c.tracer.key = c.key
	c.tracer.id = c.b.newIdentity("copy", c.tracer.base).str(string(c.content)).sum()
	return c.tracer.commitEdit(ctx, c.below, cs, unlock, stored, func(tree.Tree) []trace.Question { return c.edits.Questions() })
}

// definition is a key for what the instruction says, known without looking at a
// file: the layers of the source stand for its contents. A host directory has
// none.
func (c *copyRun) definition(ctx context.Context) (Key, error) {
	chain, err := c.src.fs.chainID(ctx)
	if err != nil {
		return "", err
	}
	return c.head("copy definition 4").str(string(chain)).strs(c.tr.Sources).sum(), nil
}

func (c *copyRun) head(kind string) *keyer {
	k := newKey(kind).str(c.tr.Target).str(c.tr.Chown).str(c.tr.Chmod).str(c.b.epochKey())
	k.num(uint64(len(c.tr.Heredocs)))
	for _, h := range c.tr.Heredocs {
		k.str(h.Name).str(h.Data)
	}
	return k.strs(c.tr.Exclude).str(strconv.FormatBool(c.tr.Parents))
}

// exactKey is the key of the content on what is below.
func (c *copyRun) exactKey() Key {
	return newKey("copy 4").str(string(c.belowKey)).str(string(c.content)).sum()
}

// putAlias lets the next build find the content without looking at a file, once the
// layers of the source have names.
func (c *copyRun) putAlias() {
	if c.src.fs == nil {
		return
	}
	content := c.content
	c.b.behind(func(ctx context.Context) error {
		alias, err := c.definition(ctx)
		if err != nil {
			return err
		}
		if err := c.b.putJSON(kindAlias, string(alias), content, nil, nil); err != nil {
			return err
		}
		c.b.offerAlias(alias, content)
		return nil
	})
}

// look finds what the sources match, and the digest of all of it: the key of
// what is copied, whatever the times and wherever it comes from.
func (c *copyRun) look(ctx context.Context) error {
	c.sink = newSink(c.b)
	c.sink.step = c.step
	t, err := c.scan(ctx)
	if err != nil {
		return err
	}
	all := &origin{tree: t, local: c.src.local}
	for _, src := range c.tr.Sources {
		var err error
		switch dockerfile.SourceKind(src) {
		case dockerfile.SourceHTTP:
			err = c.pickFile(ctx, src)
		case dockerfile.SourceGit:
			err = c.pickGit(ctx, src)
		default:
			err = c.pickPaths(all, src)
		}
		if err != nil {
			return err
		}
	}
	if len(c.tr.Sources) > 0 && len(c.picks) == 0 && len(c.tr.Heredocs) == 0 {
		c.step.Warn("no source file matches: nothing is copied")
	}
	for _, o := range c.origins() {
		if o.local != nil {
			o.tree, err = o.local.ctx.Digests(ctx, o.tree, o.paths, c.sink)
		} else {
			o.tree, err = digestFiles(ctx, o.tree, o.paths, c.b.store.Packs())
		}
		if err != nil {
			return err
		}
	}
	return c.setKey()
}

func (c *copyRun) setKey() error {
	k := c.head("copy content").num(uint64(len(c.picks)))
	for i := range c.picks {
		p := &c.picks[i]
		k.str(p.Name).str(strconv.FormatBool(p.unpack))
		switch {
		case p.file != nil:
			k.str("http").str(p.file.Key)
		case p.git != nil:
			k.str("git").str(p.git.Key)
		default:
			// Of directories that are there, those that are implied change less.
			k.strs(slices.Sorted(maps.Keys(p.Implied)))
			if err := k.subtree(p.from.tree, p.Path); err != nil {
				return err
			}
		}
	}
	c.content = k.sum()
	c.key = c.exactKey()
	return nil
}

// apply edits the stage's tree and returns the difference.
func (c *copyRun) apply(ctx context.Context) (tree.Changes, error) {
	if err := c.fill(ctx); err != nil {
		return nil, err
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
	c.edits = trace.NewEdits(parent)
	if c.tr.Chown != "" {
		c.edits.Ask(askUser(parent)...)
	}
	cp.dst.edits = c.edits
	cp.spec.Earlier = c.earlierTimes(ctx, parent)
	if err := c.copyAll(ctx, cp); err != nil {
		return nil, err
	}
	return tree.Diff(parent, e.Tree(), c.b.same)
}

// fill brings all contents into the store.
func (c *copyRun) fill(ctx context.Context) error {
	if c.b.planning() {
		return c.storeHeredocs(ctx)
	}
	if err := c.fetch(ctx); err != nil {
		return err
	}
	for _, o := range c.origins() {
		if o.local == nil {
			continue
		}
		t, err := o.local.ctx.Fill(ctx, o.tree, o.paths, c.sink)
		if err != nil {
			return err
		}
		o.tree = t
	}
	// The bytes that were stored decide (LAWS 23).
	if err := c.setKey(); err != nil {
		return err
	}
	if err := c.storeHeredocs(ctx); err != nil {
		return err
	}
	return c.sink.commit()
}

// copier resolves --chown and --chmod against the stage's tree. Files of a host
// directory belong to root where nothing else is said.
func (c *copyRun) copier(parent tree.Tree, e *tree.Editor) (*copier, error) {
	spec := copySpec{Target: c.tr.Target, DirMode: 0o755, Now: tree.TimeOf(c.b.now()).Truncate()}
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
		if m, ok := mode.Octal(); ok { // as BuildKit has it, for octal modes only
			spec.DirMode = m & 0o777
		}
	}
	return newCopier(e, spec), nil
}

func (c *copyRun) copyAll(ctx context.Context, cp *copier) error {
	files := len(c.docs)
	for i := range c.picks {
		if p := &c.picks[i]; p.from.tree.Lookup(p.Path).Kind != tree.Dir {
			files++
		}
	}
	if files > 1 && !cp.targetIsDir() {
		if _, at, err := cp.target(); err != nil || at == nil || at.Kind != tree.Dir {
			return errors.Join(err, fmt.Errorf("%d files are copied to %q, which is no directory: end it with a slash", files, c.tr.Target))
		}
	}
	for i := range c.picks {
		p := &c.picks[i]
		if p.unpack {
			done, err := c.unpackOne(ctx, cp, p)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		if err := cp.copy(p.from.tree, p.match); err != nil {
			return err
		}
	}
	return c.copyHeredocs(cp)
}

// unpackOne unpacks a pick that is an archive, as its content says.
func (c *copyRun) unpackOne(ctx context.Context, cp *copier, p *pick) (bool, error) {
	n := p.from.tree.Lookup(p.Path)
	if n == nil || n.Kind != tree.File || n.Size == 0 {
		return false, nil
	}
	if c.b.planning() {
		return false, &unknownError{"it may unpack an archive that changed"}
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
		return false, fmt.Errorf("unpack %q: %w", p.Name, err)
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
	added, packs := c.sink.added, packsOf(cs)
	return func() {
		for d, ex := range added {
			if len(ex) > 0 && slices.Contains(packs, ex[0].Pack) {
				c.b.store.AddContent(d, ex)
			}
		}
	}
}

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// mountSet are the mounts of one RUN: what they hold is found out before the key
// is known, and they are served while the command runs.
type mountSet struct {
	b    *builder
	step *progress.Step
	list []*runMount
}

// runMount is one --mount.
type runMount struct {
	dockerfile.Mount
	src *copySource // of a bind, and of a cache that starts from something; else nil

	// tree holds what Source names, at the path at: for a local context from the
	// start, for the layers of a stage when a step must see files.
	tree tree.Tree
	at   string
	sink *sink  // of a local context
	sum  string // names what is bound or started from, whatever its times
	view *mountView
}

// mountView is a tree ready to be served.
type mountView struct {
	tree   tree.Tree
	layers []string // files of tree.Encode
	at     string   // what is bound in it
	dir    bool
	root   int // of trace.Questions: the first bind mount is 1
}

// lookMounts finds what the mounts of a RUN hold; nil for none.
func (r *stageRun) lookMounts(ctx context.Context, in *dockerfile.Run, step *progress.Step) (*mountSet, error) {
	set := &mountSet{b: r.b, step: step}
	for _, m := range in.Mounts {
		rm := &runMount{Mount: m}
		set.list = append(set.list, rm)
		if m.Type != dockerfile.MountBind && (m.Type != dockerfile.MountCache || m.From == "") {
			continue
		}
		var err error
		if rm.src, err = r.mountSource(ctx, &m); err == nil {
			err = set.look(ctx, rm)
		}
		if err != nil {
			set.close()
			return nil, &MountError{Err: fmt.Errorf("mount %s: %w", m.Target, err)} // no process has run yet
		}
	}
	return set, nil
}

// mountSource finds what from= means: the build context, nothing, or what it means
// for a COPY.
func (r *stageRun) mountSource(ctx context.Context, m *dockerfile.Mount) (*copySource, error) {
	if m.From == "" {
		l, err := r.b.mainContext(ctx)
		return &copySource{local: l}, err
	}
	if _, named := r.b.context(m.From); m.From == dockerfile.Scratch && m.FromStage == nil && !named {
		return &copySource{fs: &fsState{}}, nil
	}
	return r.source(ctx, &dockerfile.Copy{From: m.From, FromStage: m.FromStage})
}

// look finds out what a source holds: a digest of all of it, or for a whole stage
// the names of its layers.
func (s *mountSet) look(ctx context.Context, m *runMount) error {
	if m.src.local != nil {
		s.step.Start()
		m.sink = newSink(s.b)
		t, err := m.src.local.ctx.Tree(ctx, []string{literal(m.Source)})
		if err != nil {
			return err
		}
		for _, n := range m.src.local.ctx.Notes() {
			s.step.Warn(n)
		}
		if err := m.find(t); err != nil {
			return err
		}
		if m.tree, err = m.src.local.ctx.Digests(ctx, t, []string{m.at}, m.sink); err != nil {
			return err
		}
		return m.digest()
	}
	if m.whole() {
		chain, err := m.src.fs.chainID(ctx)
		m.sum = "layers " + string(chain)
		return err
	}
	// The digest of what the same layers hold at the same place is known for ever.
	if m.src.fs.sealed() {
		alias, err := m.alias(ctx)
		if err != nil || s.b.getJSON(kindAlias, string(alias), &m.sum) {
			return err
		}
	}
	s.step.Start()
	if err := m.open(ctx, s.b); err != nil {
		return err
	}
	t, err := digestFiles(ctx, m.tree, []string{m.at}, s.b.store.Packs())
	if err != nil {
		return err
	}
	m.tree = t
	if err := m.digest(); err != nil {
		return err
	}
	sum := m.sum
	s.b.behind(func(ctx context.Context) error {
		alias, err := m.alias(ctx)
		if err != nil {
			return err
		}
		return s.b.putJSON(kindAlias, string(alias), sum, nil, nil)
	})
	return nil
}

// alias is a key for a source in layers, known without looking at a file.
func (m *runMount) alias(ctx context.Context) (Key, error) {
	chain, err := m.src.fs.chainID(ctx)
	return newKey("mount source").str(string(chain)).str(m.Source).sum(), err
}

// literal makes a name a source that is no pattern.
func literal(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// open reads the layers of the source.
func (m *runMount) open(ctx context.Context, b *builder) error {
	t, err := m.src.fs.Tree(ctx, b)
	if err != nil {
		return err
	}
	return m.find(t)
}

// find looks up what Source names in t, following symlinks inside it.
func (m *runMount) find(t tree.Tree) error {
	at, n, err := t.Resolve(tree.Clean(m.Source))
	switch {
	case err != nil:
		return err
	case n == nil:
		return fmt.Errorf("source %q: %w", path.Join("/", m.Source), ErrNoSource)
	case n.Kind != tree.Dir && (n.Kind != tree.File || m.Type == dockerfile.MountCache):
		return &MountError{fmt.Errorf("source %q is a %s", path.Join("/", m.Source), kindNames[n.Kind]), "name a directory, or for a bind mount a file"}
	}
	m.tree, m.at = t, at
	return nil
}

// digest sums up everything that a command can see in the mount, but no times.
func (m *runMount) digest() error {
	k := newKey("mounted")
	if n := m.tree.Lookup(m.at); n.Kind == tree.Dir {
		k.num(uint64(n.Mode)).num(uint64(n.UID)).num(uint64(n.GID))
		for _, x := range n.Xattrs {
			k.str(x.Name).str(x.Value)
		}
	}
	if err := k.subtree(m.tree, m.at); err != nil {
		return err
	}
	m.sum = "tree " + string(k.sum())
	return nil
}

// key adds the options of the mounts, what bound trees hold and what caches start
// from to the key of the RUN. What caches and secrets hold is in no key.
func (s *mountSet) key(run Key) Key {
	if s == nil || len(s.list) == 0 {
		return run
	}
	k := newKey("run with mounts").str(string(run))
	s.options(k, func(m *runMount) string { return m.sum })
	return k.sum()
}

// options writes what the instruction says of the mounts, and sum's text for each.
func (s *mountSet) options(k *keyer, sum func(m *runMount) string) {
	if s == nil {
		return
	}
	k.num(uint64(len(s.list)))
	for _, m := range s.list {
		k.str(m.Type).str(m.Target).str(m.ID).str(m.Sharing).num(uint64(m.Size)).num(flag(m.ReadOnly)).num(flag(m.Required))
		env := ""
		if m.Env != nil {
			env = *m.Env
		}
		k.str(env)
		for _, id := range []*uint32{m.Mode, m.UID, m.GID} {
			k.num(flag(id != nil))
			if id != nil {
				k.num(uint64(*id))
			}
		}
		k.str(sum(m))
	}
}

// borrowed reports whether of what is bound a shared cache alone says what it holds.
func (s *mountSet) borrowed() bool {
	return slices.ContainsFunc(s.binds(), func(m *runMount) bool { return m.src.fs != nil && m.src.fs.borrowed() })
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// fill makes the views of what is bound: the bytes of local files are stored, and
// decide about the key (LAWS 23).
func (s *mountSet) fill(ctx context.Context) error {
	for i, m := range s.binds() {
		if err := s.makeView(ctx, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		m.view.root = i + 1
	}
	return nil
}

// binds are the bind mounts, in the order of the instruction.
func (s *mountSet) binds() []*runMount {
	if s == nil {
		return nil
	}
	var out []*runMount
	for _, m := range s.list {
		if m.Type == dockerfile.MountBind {
			out = append(out, m)
		}
	}
	return out
}

// viewAt is where the view of a bind mount has what is bound: not at the root, which
// has no time in a difference.
const viewAt = "mount"

// makeView makes the view of what is bound, or of what a cache starts from, once.
func (s *mountSet) makeView(ctx context.Context, m *runMount) error {
	if m.view != nil {
		return nil
	}
	if m.src.local == nil {
		if err := m.open(ctx, s.b); err != nil {
			return err
		}
		if m.whole() { // as its layers have it
			files, err := m.src.fs.files(ctx, s.b)
			m.view = &mountView{tree: m.tree, layers: files, dir: true}
			return err
		}
	} else {
		t, err := m.src.local.ctx.Fill(ctx, m.tree, []string{m.at}, m.sink)
		if err != nil {
			return err
		}
		m.tree = t
		if err := m.digest(); err != nil {
			return err
		}
		if err := m.sink.commit(); err != nil {
			return err
		}
	}
	at := viewAt
	if m.Type == dockerfile.MountCache {
		at = "" // to be the directory itself
	}
	t, err := cut(m.tree, m.at, at)
	if err != nil {
		return err
	}
	cs, err := tree.Diff(tree.Empty(), t, s.b.same)
	if err != nil {
		return err
	}
	name, err := s.b.writeIndex(cs)
	m.view = &mountView{tree: t, layers: []string{name}, at: at, dir: m.tree.Lookup(m.at).Kind == tree.Dir}
	return err
}

// shape is the tree that a bind mount is served from, for questions.
func (m *runMount) shape(ctx context.Context, b *builder) (tree.Tree, error) {
	if m.view != nil {
		return m.view.tree, nil
	}
	t, at := m.tree, m.at
	if t.Root() == nil {
		var err error
		if t, err = m.src.fs.Shape(ctx, b); err != nil {
			return t, err
		}
		if at, _, err = t.Resolve(tree.Clean(m.Source)); err != nil || t.Lookup(at) == nil {
			return t, errors.Join(err, fmt.Errorf("source %q: %w", m.Source, ErrNoSource))
		}
	}
	if m.whole() {
		return t, nil
	}
	return cut(t, at, viewAt)
}

// whole tells whether all of a stage or image is named, as its layers have it. What
// questions about it mean follows from that, so that it is known before anything is
// looked up (see runIdentity).
func (m *runMount) whole() bool {
	return m.src != nil && m.src.local == nil && tree.Clean(m.Source) == ""
}

// cut returns a tree of what stands at p alone, at the path to.
func cut(t tree.Tree, p, to string) (tree.Tree, error) {
	e := tree.Empty().Edit()
	first := map[*tree.Node]string{}
	err := t.WalkFrom(p, func(q string, n *tree.Node) error {
		rel := strings.TrimPrefix(to+"/"+strings.TrimPrefix(q[len(p):], "/"), "/")
		rel = strings.TrimSuffix(rel, "/")
		if to, ok := first[n]; ok {
			return e.Link(rel, to)
		}
		if len(n.Links()) > 1 {
			first[n] = rel
		}
		return e.Put(rel, n.Attrs())
	})
	return e.Tree(), err
}

// close drops what only this RUN needed. The pack of what was bound from a local
// context goes: no index knows it.
func (s *mountSet) close() {
	if s == nil {
		return
	}
	for _, m := range s.list {
		if m.sink == nil {
			continue
		}
		for _, extents := range m.sink.added {
			for _, x := range extents {
				if x.Pack != "" { // a pack that is missing is no loss
					_ = os.Remove(filepath.Join(s.b.store.Packs().Dir(), string(x.Pack)))
				}
			}
		}
		m.sink.abort()
	}
}

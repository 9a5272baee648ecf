package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrStale says that the last build was of other files than those of now.
var ErrStale = errors.New("the files are not those of the last build")

// What became of a file of the context that no step looked at.
const (
	UnusedNotCopied = "not copied" // no COPY, ADD or bind mount takes it
	UnusedNotRead   = "not read"   // it is copied, and is not in the image
	UnusedShipped   = "shipped"    // it is in the image
)

// UnusedFile is a file of the context that no step looked at.
type UnusedFile struct {
	Path string // relative to the context
	Size int64
	How  string // UnusedNotCopied, ...
}

// Unused are the files of a context that no step of a build looked at.
type Unused struct {
	Files []UnusedFile // the largest first
	All   []string     // the files of the context that are not ignored
	Bytes int64        // of them
	// Blind are the steps that have no trace: all that stands below them counts as read.
	Blind []StepReport
}

// FindUnused finds the files of the context that no step of the last build looked at.
// A RUN looks at a file when it asks for the file itself: a listing of the directory
// is no look.
func FindUnused(ctx context.Context, s *cache.Store, last *Report, p v1.Platform) (*Unused, error) {
	if IsRemoteContext(last.Setup.Context) || last.Setup.Context == "" {
		return nil, &ContextError{Location: last.Setup.Context, Err: errors.New("it is not a directory of this host"), Hint: "--unused needs a local context"}
	}
	a := &Affected{Dockerfile: last.Dockerfile, Target: last.Target, Last: last}
	o, err := (&AffectedOptions{Store: s, Platform: p}).again(a)
	if err != nil {
		return nil, err
	}
	t := &tracks{store: s, last: last, used: map[string]bool{}, copied: map[string]bool{}, of: map[*dockerfile.Stage]lineage{}}
	o.tracks = t
	plan, err := Plan(ctx, *o)
	if err != nil {
		return nil, err
	}
	for _, step := range plan.Steps {
		if step.Keyword() == "RUN" && step.Verdict != VerdictExact && step.Verdict != VerdictTrace || step.Verdict == VerdictMay || step.Error != "" {
			return nil, fmt.Errorf("%s %s would run: %w", plan.Label(step), step.Title, ErrStale)
		}
	}
	return t.result()
}

// lineage is where files of the context stand in an image: image path -> context path.
type lineage map[string]string

// tracks follows the files of the context through the stages of a plan.
type tracks struct {
	store *cache.Store
	last  *Report

	mu     sync.Mutex
	used   map[string]bool // looked at
	copied map[string]bool
	of     map[*dockerfile.Stage]lineage
	final  lineage
	below  []string // directories of the context all of which counts as looked at
	blind  []StepReport
	files  tree.Tree
}

// begin gives a stage the files of the stage that it starts from.
func (t *tracks) begin(st *dockerfile.Stage) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of[st] = maps.Clone(t.of[st.BaseStage])
	if t.of[st] == nil {
		t.of[st] = lineage{}
	}
}

// end is called when the target is done: it looks what there is in the context.
func (t *tracks) end(ctx context.Context, b *builder, target *dockerfile.Stage) error {
	l, err := b.mainContext(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.final = t.of[target]
	t.files, err = l.ctx.Tree(ctx, []string{"."})
	return err
}

// copies follows a COPY or ADD.
func (t *tracks) copies(ctx context.Context, st *dockerfile.Stage, c *copyRun, from *dockerfile.Stage) error {
	if t == nil || c.src.local == nil && (c.src.fs == nil || from == nil) {
		return nil
	}
	if len(c.picks) == 0 {
		if err := c.look(ctx); err != nil {
			return err
		}
	}
	parent, err := c.below.Tree(ctx, c.b)
	if err != nil {
		return err
	}
	cp, err := c.copier(parent, parent.Edit())
	if err != nil {
		return err
	}
	placed := map[*tree.Node][]string{}
	cp.placed = func(n *tree.Node, to string) { placed[n] = append(placed[n], to) }
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range c.picks {
		p := &c.picks[i]
		if p.from == nil { // of a remote source
			continue
		}
		clear(placed)
		if err := cp.copy(p.from.tree, p.match); err != nil {
			return err
		}
		err := p.from.tree.WalkFrom(p.Path, func(at string, n *tree.Node) error {
			source := at
			if c.src.local == nil {
				source = t.of[from][at]
			}
			if n.Kind == tree.Dir || source == "" {
				return nil
			}
			if c.src.local != nil {
				t.copied[source] = true
				t.used[source] = t.used[source] || p.unpack && isArchiveName(source)
			}
			for _, to := range placed[n] {
				t.of[st][to] = source
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isArchiveName tells files that an ADD probably unpacks by their names.
func isArchiveName(name string) bool {
	return slices.ContainsFunc([]string{".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"}, func(end string) bool { return strings.HasSuffix(name, end) })
}

// runs follows a RUN: what it looked at is used, what it replaced is gone.
func (t *tracks) runs(ctx context.Context, b *builder, st *dockerfile.Stage, in *dockerfile.Run, rep *StepReport, res result) error {
	if t == nil {
		return nil
	}
	id := rep.Trace
	if old := t.last.same(*rep); id == "" && old != nil && old.Key == rep.Key {
		id = old.traceID(t.store)
	}
	var changes tree.Changes
	if res.layer != nil {
		var err error
		if changes, err = res.layer.open(ctx, b); err != nil {
			return err
		}
	}
	tr := traceOf(t.store, id)
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.of[st]
	if tr == nil {
		t.blind = append(t.blind, *rep)
		for _, m := range bindMounts(in) {
			if m.From == "" {
				t.below = append(t.below, tree.Clean(m.Source))
			}
			for _, source := range t.of[m.FromStage] {
				t.used[source] = true
			}
		}
		for _, source := range mine {
			t.used[source] = true
		}
	} else {
		binds := bindMounts(in)
		for i := range tr.Answers {
			q := tr.Answers[i].Question
			if q.Root == 0 {
				if source, ok := mine[q.Path]; ok && !isListing(q) {
					t.used[source] = true
				}
				continue
			}
			if q.Root > len(binds) || isListing(q) {
				continue
			}
			m := binds[q.Root-1]
			at := tree.Join(tree.Clean(m.Source), q.Path)
			if source := t.source(m, at); source != "" {
				t.used[source] = true
			}
		}
	}
	for i := range changes {
		delete(mine, changes[i].Path)
		if c := &changes[i]; c.Whiteout() || c.Opaque {
			maps.DeleteFunc(mine, func(p, _ string) bool { return strings.HasPrefix(p, c.Path+"/") })
		}
	}
	return nil
}

// source is the file of the context that a path of a bind mount is, "" for none.
func (t *tracks) source(m *dockerfile.Mount, at string) string {
	if m.From == "" {
		return at
	}
	return t.of[m.FromStage][at]
}

// bindMounts are the bind mounts of a RUN, in the order of the roots of its trace.
func bindMounts(in *dockerfile.Run) []*dockerfile.Mount {
	var out []*dockerfile.Mount
	for i := range in.Mounts {
		if m := &in.Mounts[i]; m.Type == dockerfile.MountBind {
			out = append(out, m)
		}
	}
	return out
}

// isListing tells the question that is none about an entry itself.
func isListing(q trace.Question) bool { return q.Kind == trace.List }

func (t *tracks) isBelow(p string) bool {
	return slices.ContainsFunc(t.below, func(dir string) bool { return dir == "" || p == dir || strings.HasPrefix(p, dir+"/") })
}

// result compares what was looked at with what there is.
func (t *tracks) result() (*Unused, error) {
	u := &Unused{Blind: t.blind}
	shipped := map[string]bool{}
	for _, source := range t.final {
		shipped[source] = true
	}
	err := t.files.Walk(func(p string, n *tree.Node) error {
		if n.Kind == tree.Dir {
			return nil
		}
		u.All = append(u.All, p)
		u.Bytes += n.Size
		f := UnusedFile{Path: p, Size: n.Size}
		switch {
		case t.used[p], t.isBelow(p):
			return nil
		case shipped[p]:
			f.How = UnusedShipped
		case t.copied[p]:
			f.How = UnusedNotRead
		default:
			f.How = UnusedNotCopied
		}
		u.Files = append(u.Files, f)
		return nil
	})
	slices.SortFunc(u.Files, largestFirst)
	return u, err
}

func largestFirst(a, b UnusedFile) int {
	return cmp.Or(cmp.Compare(b.Size, a.Size), tree.Compare(a.Path, b.Path))
}

// Patterns are lines for a .dockerignore that leave out what is neither looked at nor
// in the image: whole directories where nothing else is in them, the largest first.
func (u *Unused) Patterns() []UnusedFile {
	needed := map[string]bool{} // directories
	idle := map[string]UnusedFile{}
	for _, f := range u.Files {
		if f.How != UnusedShipped {
			idle[f.Path] = f
		}
	}
	for _, p := range u.All {
		if _, ok := idle[p]; ok {
			continue
		}
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			needed[d] = true
		}
	}
	sums := map[string]UnusedFile{}
	for p, f := range idle {
		name := p
		for d := path.Dir(p); d != "." && !needed[d]; d = path.Dir(d) {
			name = d + "/"
		}
		s, ok := sums[name]
		if !ok {
			s = UnusedFile{Path: name, How: f.How}
		}
		s.Size += f.Size
		if s.How != f.How {
			s.How = UnusedNotRead
		}
		sums[name] = s
	}
	return slices.SortedFunc(maps.Values(sums), largestFirst)
}

package build

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// stacks puts the layer of a hit on what stands below now, and checks that the layer
// is the difference that doing so makes (LAWS 5): every whiteout hits, no entry is
// what was there already, the directories above are as the layer repeats them. Where
// it is not, the trace lacked a question: that is a miss, and is said.
func (t *tracer) stacks(ctx context.Context, hit *traceHit, tr *trace.Trace) (bool, error) {
	below := t.roots[0]
	hit.after = below
	if hit.res.layer == nil {
		return true, nil
	}
	cs, err := hit.res.layer.shape(ctx, t.b)
	if err != nil {
		return false, err
	}
	if hit.after, err = below.Apply(cs); err == nil {
		err = fits(below, hit.after, cs)
	}
	if err == nil {
		hit.changes = cs
		return true, nil
	}
	if !tr.Times && isRepeated(err) {
		// The step gave a file a time that it had not; now it has.
		t.rep.Why = err.Error()
		return false, nil
	}
	t.rep.Why = "its trace is incomplete: " + err.Error()
	if t.b.opts.Check || t.b.opts.CacheCheck {
		return false, fmt.Errorf("layer %s does not fit: %w", hit.Step.DiffID, err)
	}
	t.step.Warn(fmt.Sprintf("the step runs, because a layer that its trace leads to does not fit: %v (please report this)", err))
	return false, nil
}

// misfit says that a layer is not a difference from what it was put on.
type misfit struct {
	path     string
	what     string
	repeated bool // the entry is what was there already
}

func (e *misfit) Error() string { return fmt.Sprintf("/%s: %s", e.path, e.what) }

func isRepeated(err error) bool {
	var m *misfit
	return errors.As(err, &m) && m.repeated
}

// fits reports whether cs is the difference of after from below, but for the times of
// directories, which a layer repeats as they were.
func fits(below, after tree.Tree, cs tree.Changes) error {
	again, err := tree.Diff(below, after, nil)
	if err != nil {
		return err
	}
	first, firstAgain := map[*tree.Node]string{}, map[*tree.Node]string{}
	for c, a := range pairs(cs, again) {
		switch {
		case c == nil:
			return &misfit{path: a.Path, what: "the layer does not say what becomes of it"}
		case a == nil && c.Whiteout():
			return &misfit{path: c.Path, what: "the layer removes it, and it is not there"}
		case a == nil:
			return &misfit{path: c.Path, what: "the layer has what is there already", repeated: c.Node != nil && c.Node.Kind != tree.Dir}
		case c.Whiteout() != a.Whiteout() || c.LinkTo != "" || c.Opaque:
			return &misfit{path: c.Path, what: "the layer removes and makes it otherwise"}
		case c.Whiteout():
		case !sameEntry(c.Node, a.Node) || link(first, c) != link(firstAgain, a):
			return &misfit{path: c.Path, what: "it is another entry than the layer has"}
		}
	}
	return nil
}

// sameEntry compares two entries but for the times of directories and for contents.
func sameEntry(a, b *tree.Node) bool {
	return sameButTime(a, b) && (a.Kind == tree.Dir || a.Mtime == b.Mtime)
}

func sameButTime(a, b *tree.Node) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Size == b.Size &&
		a.Target == b.Target && a.Major == b.Major && a.Minor == b.Minor && slices.Equal(a.Xattrs, b.Xattrs)
}

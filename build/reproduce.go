package build

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/tree"
)

// IrreproducibleError says which steps gave something else when they were done again.
type IrreproducibleError struct{ Steps []StepDifference }

// StepDifference is what one step made otherwise.
type StepDifference struct {
	Stage     string
	Number    int // within the stage
	Title     string
	Line      int // in the Dockerfile
	Files     []FileDifference
	Total     int  // of Files, of which the first few are kept
	OnlyTimes bool // of files; the contents are the same
}

// FileDifference is one path that is not what it was.
type FileDifference struct{ Path, What string }

// Error lists the steps and files, a line each.
func (e *IrreproducibleError) Error() string {
	var b strings.Builder
	b.WriteString("the build is not reproducible: done again without a cache,")
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "\n  line %d, %s made other files (%d):", s.Line, s.Title, s.Total)
		for _, f := range s.Files {
			fmt.Fprintf(&b, "\n    %s: %s", f.Path, f.What)
		}
		if more := s.Total - len(s.Files); more > 0 {
			fmt.Fprintf(&b, "\n    and %d more", more)
		}
	}
	return b.String()
}

// OnlyTimes reports whether nothing but times of files differs.
func (e *IrreproducibleError) OnlyTimes() bool {
	return !slices.ContainsFunc(e.Steps, func(s StepDifference) bool { return !s.OnlyTimes })
}

// maxFileDifferences is how many paths of a step are named.
const maxFileDifferences = 10

// second is the other build of a verification: it uses no result of an earlier one and
// leaves no record, so that nobody uses its own.
type second struct{ steps []*reportedStep }

// verifyReproducible does the whole build again and compares what the steps made.
func (b *builder) verifyReproducible(ctx context.Context, target *dockerfile.Stage) error {
	o := b.opts
	o.VerifyReproducible, o.again = false, &second{}
	o.NoCache, o.CacheRepo, o.CacheFrom, o.CacheTo = true, "", nil, nil
	o.Trace, o.Outputs, o.Tags = TraceOff, nil, nil
	shared, err := openShared(&o)
	if err != nil {
		return err
	}
	if err := nextSecond(ctx, time.Now()); err != nil {
		return err
	}
	b.warn("building again without a cache, to compare")
	if _, err := buildOnce(ctx, o, target, shared); err != nil {
		return fmt.Errorf("build again: %w", err)
	}
	var clamp *tree.Time
	for _, out := range b.opts.Outputs {
		if out.RewriteTimestamp && b.opts.Epoch != nil {
			t := tree.TimeOf(*b.opts.Epoch)
			clamp = &t
		}
	}
	var e IrreproducibleError
	for _, one := range b.reports.inOrder() {
		i := slices.IndexFunc(o.again.steps, func(two *reportedStep) bool { return two.order == one.order && two.Number == one.Number })
		if i < 0 {
			continue
		}
		d, err := b.compareSteps(ctx, one, o.again.steps[i], clamp)
		if err != nil {
			return err
		}
		if d.Total > 0 {
			e.Steps = append(e.Steps, d)
		}
	}
	if len(e.Steps) > 0 {
		return &e
	}
	return nil
}

// ownMounts is where the cache mounts of the second build are: what an earlier build left
// in the store's must not be what makes the two the same.
func (b *builder) ownMounts() string { return filepath.Join(b.temp, "mounts") }

// cacheMount takes the directory of a cache mount.
func (b *builder) cacheMount(ctx context.Context, key, sharing string, info cache.MountInfo, init func(dir string) error) (string, func(), error) {
	if b.opts.again == nil {
		return b.store.CacheMount(ctx, key, sharing, info, init)
	}
	if err := os.MkdirAll(b.ownMounts(), 0o700); err != nil {
		return "", nil, fmt.Errorf("make cache mounts: %w", err)
	}
	return b.store.CacheMountIn(ctx, b.ownMounts(), key, sharing, info, init)
}

// nextSecond waits until the clock shows another second than when the steps ended: what
// writes the time would not be seen otherwise.
func nextSecond(ctx context.Context, ended time.Time) error {
	t := time.NewTimer(time.Until(ended.Truncate(time.Second).Add(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// inOrder returns the steps as the Dockerfile has them.
func (r *reporting) inOrder() []*reportedStep {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(slices.Values(r.steps), func(a, b *reportedStep) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Number, b.Number))
	})
}

func (b *builder) compareSteps(ctx context.Context, one, two *reportedStep, clamp *tree.Time) (StepDifference, error) {
	d := StepDifference{Stage: one.Stage, Number: one.Number, Title: one.Title, Line: one.Line, OnlyTimes: true}
	x, err := b.indexed(ctx, one.layer)
	if err != nil {
		return d, err
	}
	y, err := b.indexed(ctx, two.layer)
	if err != nil {
		return d, err
	}
	compareChanges(x, y, clamp, func(path string, what []string) {
		d.Total++
		d.OnlyTimes = d.OnlyTimes && slices.Equal(what, []string{"time"})
		if len(d.Files) < maxFileDifferences {
			d.Files = append(d.Files, FileDifference{"/" + path, strings.Join(what, ", ")})
		}
	})
	return d, nil
}

// indexed returns a layer's changes with the digests of its files; none for no layer.
func (b *builder) indexed(ctx context.Context, l *fsLayer) (tree.Changes, error) {
	if l == nil {
		return nil, nil
	}
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	if l.sealed != nil {
		return l.sealed, nil
	}
	return l.open(ctx, b)
}

// compareChanges calls differ for each path at which two layers are not the same.
func compareChanges(x, y tree.Changes, clamp *tree.Time, differ func(path string, what []string)) {
	firstX, firstY := map[*tree.Node]string{}, map[*tree.Node]string{}
	for a, b := range pairs(x, y) {
		switch {
		case b == nil:
			differ(a.Path, []string{"made the first time only"})
		case a == nil:
			differ(b.Path, []string{"made the second time only"})
		default:
			what := compareChange(a, b, clamp)
			if link(firstX, a) != link(firstY, b) && !slices.Contains(what, "kind") {
				what = append(what, "hard link")
			}
			if len(what) > 0 {
				differ(a.Path, what)
			}
		}
	}
}

func compareChange(x, y *tree.Change, clamp *tree.Time) []string {
	a, b := x.Node, y.Node
	switch {
	case x.Opaque != y.Opaque, (a == nil) != (b == nil), a != nil && a.Kind != b.Kind:
		return []string{"kind"}
	case a == nil:
		return nil
	}
	var what []string
	add := func(differs bool, format string, args ...any) {
		if differs {
			what = append(what, fmt.Sprintf(format, args...))
		}
	}
	add(a.Mode != b.Mode, "mode %04o, then %04o", a.Mode, b.Mode)
	add(a.UID != b.UID || a.GID != b.GID, "owner %d:%d, then %d:%d", a.UID, a.GID, b.UID, b.GID)
	add(a.Target != b.Target, "target %q, then %q", a.Target, b.Target)
	add(a.Major != b.Major || a.Minor != b.Minor, "device number")
	add(!slices.Equal(a.Xattrs, b.Xattrs), "extended attributes")
	if a.Kind == tree.File {
		add(a.Size != b.Size, "size %d, then %d", a.Size, b.Size)
		add(a.Size == b.Size && a.Size > 0 && a.Digest != b.Digest, "content")
	}
	add(clamped(a.Mtime, clamp) != clamped(b.Mtime, clamp), "time")
	return what
}

// clamped is a time as the output has it.
func clamped(t tree.Time, clamp *tree.Time) tree.Time {
	if t = t.Truncate(); clamp != nil && clamp.Before(t) {
		return *clamp
	}
	return t
}

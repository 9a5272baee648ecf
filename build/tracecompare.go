package build

import (
	"context"
	"fmt"

	"github.com/fbuild/fbuild/tree"
)

// layerDifference is a place at which two layers differ.
type layerDifference struct {
	path    string
	was, is string // in words
}

// compareLayers returns where two layers on one parent differ, at most limit places.
// Times count only where the build asks for them (LAWS 9). Contents are compared last,
// by their digests, and not where something else differs already.
func (b *builder) compareLayers(old, now tree.Changes, limit int) ([]layerDifference, error) {
	c := layerComparer{b: b, limit: limit, old: map[*tree.Node]string{}, now: map[*tree.Node]string{}}
	var same [][2]*tree.Node // files that differ in their bytes only, if at all
	var paths []string
	for o, n := range pairs(old, now) {
		switch {
		case n == nil:
			c.add(o.Path, describe(o), "not in the layer")
		case o == nil:
			c.add(n.Path, "not in the layer", describe(n))
		case c.entries(o, n) && o.Node != nil && o.Node.Kind == tree.File:
			same, paths = append(same, [2]*tree.Node{o.Node, n.Node}), append(paths, o.Path)
		}
	}
	if len(c.found) > 0 && limit == 1 {
		return c.found, nil
	}
	for k, pair := range same {
		if err := c.contents(paths[k], pair[0], pair[1]); err != nil {
			return nil, err
		}
		if len(c.found) >= limit {
			break
		}
	}
	return c.found, nil
}

type layerComparer struct {
	b        *builder
	limit    int
	found    []layerDifference
	old, now map[*tree.Node]string // the first paths of linked nodes
}

func (c *layerComparer) add(path, was, is string) {
	if len(c.found) < c.limit {
		c.found = append(c.found, layerDifference{path, was, is})
	}
}

// entries compares all but bytes.
func (c *layerComparer) entries(old, now *tree.Change) bool {
	same := old.Whiteout() == now.Whiteout() && old.Opaque == now.Opaque && old.LinkTo == now.LinkTo && (old.Node == nil) == (now.Node == nil)
	if same && old.Node != nil {
		same = sameButTime(old.Node, now.Node) && link(c.old, old) == link(c.now, now)
		if c.b.opts.CacheTimes {
			same = same && old.Node.Mtime == now.Node.Mtime
		}
	}
	if !same {
		c.add(old.Path, describe(old), describe(now))
	}
	return same
}

func (c *layerComparer) contents(path string, old, now *tree.Node) error {
	if equal, known := tree.EqualContent(old, now); known && equal {
		return nil
	}
	was, err := c.b.digest(old)
	if err != nil {
		return fmt.Errorf("compare contents of %q: %w", "/"+path, err)
	}
	is, err := c.b.digest(now)
	if err != nil {
		return fmt.Errorf("compare contents of %q: %w", "/"+path, err)
	}
	if was != is {
		c.add(path, "contents "+string(was), "contents "+string(is))
	}
	return nil
}

// describe shows a change as golden files do.
func describe(c *tree.Change) string {
	text := tree.Format(tree.Changes{*c})
	return text[:len(text)-1]
}

// earlier returns an earlier result of the identity that holds the same as cs, times
// aside: the step uses its layer, so that what follows sees no change (LAWS 9). Times
// count where the layer has them, so that it must fit: see docs/traces.md.
func (t *tracer) earlier(ctx context.Context, parent tree.Tree, cs tree.Changes) *traceHit {
	if t.b.fresh(ctx) {
		return nil
	}
	for _, r := range t.results(ctx) {
		if (r.Step.DiffID == "") != (len(cs) == 0) || r.source != "" {
			continue
		}
		l, ok := t.b.tracedLayer(&r)
		if !ok {
			continue
		}
		hit := &traceHit{tracedResult: r, res: result{layer: l, created: r.Step.Created}}
		if l == nil {
			return hit
		}
		var err error
		if hit.changes, err = l.open(ctx, t.b); err != nil {
			continue // it is of no use
		}
		if diffs, err := t.b.compareLayers(hit.changes, cs, 1); err != nil || len(diffs) > 0 {
			continue
		}
		after, err := parent.Apply(hit.changes)
		if err == nil && fits(parent, after, hit.changes) == nil {
			return hit
		}
	}
	return nil
}

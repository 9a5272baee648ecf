package build

import (
	"context"
	"fmt"
	"slices"

	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/tree"
)

// origin is a tree that picks are taken from.
type origin struct {
	tree  tree.Tree
	paths []string      // what is taken
	local *localContext // has the contents that the tree lacks; nil: the store has them
}

// pick is one thing to copy: an entry of a tree, or what a remote source stands for.
type pick struct {
	match
	from   *origin // nil for a remote source that was not fetched yet
	file   *remoteFile
	git    *remoteGit
	unpack bool // where it is an archive
}

// scan returns the tree that the sources which are paths are looked for in.
func (c *copyRun) scan(ctx context.Context) (tree.Tree, error) {
	if c.src.fs != nil {
		return c.src.fs.Tree(ctx, c.b)
	}
	if c.src.local == nil {
		return tree.Empty(), nil
	}
	skip, err := skipExcluded(c.tr.Exclude)
	if err != nil {
		return tree.Tree{}, err
	}
	var wanted []buildctx.Source
	for _, src := range c.tr.Sources {
		w := buildctx.Source{Path: src, Skip: skip}
		if dockerfile.SourceKind(src) != "" {
			continue
		}
		if c.tr.Parents {
			// Patterns are relative to the pivot, not to what is looked for below it.
			dir, _ := splitPivot(src)
			if w.Path = scanSource(src); w.Path != "/"+dir {
				w.Skip = nil
			}
		}
		wanted = append(wanted, w)
	}
	t, err := c.src.local.ctx.TreeOf(ctx, wanted)
	if err != nil {
		return t, err
	}
	for _, n := range c.src.local.ctx.Notes() {
		c.step.Warn(n)
	}
	return t, nil
}

// pickPaths picks what a path or pattern names. A filter has its own tree for each
// match: it looks at paths relative to that.
func (c *copyRun) pickPaths(all *origin, src string) error {
	dir, pattern := src, ""
	if c.tr.Parents {
		dir, pattern = splitPivot(src)
	}
	f, err := newFilter(pattern, c.tr.Exclude)
	if err != nil {
		return err
	}
	ms, err := matchSource(all.tree, dir)
	if err != nil {
		return err
	}
	for _, m := range ms {
		from := all
		switch n := all.tree.Lookup(m.Path); {
		case n == nil || f == filter{}:
		case n.Kind == tree.Dir:
			from = &origin{local: all.local}
			if from.tree, m.Implied, err = f.apply(all.tree, m.Path); err != nil {
				return err
			}
			if p := tree.Join(m.Path, pattern); !hasWildcard(src) && from.tree.Lookup(p) == nil {
				return fmt.Errorf("%q: %w", "/"+p, ErrNoSource)
			}
		case pattern != "" && !hasWildcard(src):
			return fmt.Errorf("%q: %w", "/"+tree.Join(m.Path, pattern), ErrNoSource)
		default:
			if out, err := f.excludes(m.Name); err != nil {
				return err
			} else if out || pattern != "" {
				continue
			}
		}
		from.paths = append(from.paths, m.Path)
		c.picks = append(c.picks, pick{match: m, from: from, unpack: c.add != nil && (c.add.Unpack == nil || *c.add.Unpack)})
	}
	return nil
}

// origins lists the trees that are picked from, each once.
func (c *copyRun) origins() []*origin {
	var out []*origin
	for i := range c.picks {
		if o := c.picks[i].from; o != nil && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

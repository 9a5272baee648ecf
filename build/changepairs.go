package build

import (
	"iter"

	"github.com/fbuild/fbuild/tree"
)

// pairs goes through two layers side by side, in the order of paths: what each has at a
// path, nil for nothing.
func pairs(x, y tree.Changes) iter.Seq2[*tree.Change, *tree.Change] {
	return func(yield func(a, b *tree.Change) bool) {
		for i, j := 0, 0; i < len(x) || j < len(y); {
			var order int
			switch {
			case j == len(y):
				order = -1
			case i == len(x):
				order = 1
			default:
				order = tree.Compare(x[i].Path, y[j].Path)
			}
			var a, b *tree.Change
			if order <= 0 {
				a, i = &x[i], i+1
			}
			if order >= 0 {
				b, j = &y[j], j+1
			}
			if !yield(a, b) {
				return
			}
		}
	}
}

// link is the first path at which the node of c stands.
func link(first map[*tree.Node]string, c *tree.Change) string {
	switch {
	case c.Node == nil:
		return c.LinkTo
	case c.Node.Kind == tree.Dir:
		return c.Path
	}
	p, ok := first[c.Node]
	if !ok {
		p = c.Path
		first[c.Node] = p
	}
	return p
}

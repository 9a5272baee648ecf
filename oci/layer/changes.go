package layer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// changes returns what the layer says, in order.
func (ix *index) changes() (tree.Changes, error) {
	w := walker{notes: ix.notes, budget: maxIndex}
	if ix.root.opaque {
		w.cs = append(w.cs, tree.Change{Opaque: true})
	}
	w.kids("", &ix.root)
	return w.cs, w.err
}

type walker struct {
	cs     tree.Changes
	notes  *notes
	budget int64 // bytes of paths
	err    error
}

func (w *walker) kids(path string, p *place) {
	names := make([]string, 0, len(p.kids))
	for name := range p.kids {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, whMeta) {
			w.notes.add("%q is left out: it belongs to aufs", tree.Join(path, name))
			continue
		}
		w.place(tree.Join(path, name), p.kids[name])
	}
}

func (w *walker) place(path string, p *place) {
	if w.err != nil {
		return
	}
	if w.budget -= int64(len(path)) + 64; w.budget < 0 {
		w.err = fmt.Errorf("%w: paths take more memory than %d bytes", ErrTooLarge, int64(maxIndex))
		return
	}
	switch {
	case p.node != nil && p.node.Kind == tree.Dir:
		w.cs = append(w.cs, tree.Change{Path: path, Node: p.node, Opaque: p.hidden || p.opaque})
	case p.node != nil:
		w.cs = append(w.cs, tree.Change{Path: path, Node: p.node})
	case p.linkTo != "":
		w.cs = append(w.cs, tree.Change{Path: path, LinkTo: p.linkTo})
	case p.hidden:
		w.cs = append(w.cs, tree.Change{Path: path})
	case p.opaque:
		w.cs = append(w.cs, tree.Change{Path: path, Opaque: true})
	}
	w.kids(path, p)
}

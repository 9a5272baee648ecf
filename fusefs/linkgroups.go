package fusefs

import (
	"slices"

	"github.com/fbuild/fbuild/tree"
)

// linked is an inode with several names.
type linked struct {
	i     *inode
	names []string
	out   []int32      // its candidates
	below []*tree.Node // what the parent has at each of the names
	moved bool         // has a name that the parent has not
	node  *tree.Node
	kept  bool
}

// noteMet remembers that a group of the parent has lost the name p, to the
// candidate at at or to nobody.
func (c *collector) noteMet(a *tree.Node, p string, at int32) {
	if a == nil || a.Links() == nil {
		return
	}
	if at >= 0 {
		c.lost[p] = at
	}
	if !c.met[a] {
		c.met[a] = true
		c.meet = append(c.meet, a)
	}
}

// link enters p as one of the names of i.
func (c *collector) link(p string, a *tree.Node, i *inode, depth int32) {
	l := c.linked[i]
	if l == nil {
		l = &linked{i: i}
		c.linked[i] = l
		c.order = append(c.order, l)
	}
	l.names = append(l.names, p)
	l.below = append(l.below, a)
	l.out = append(l.out, c.add(candidate{path: p, depth: depth}))
	l.moved = l.moved || a == nil || a != i.base
}

// groups decides which link groups are written.
func (c *collector) groups() error {
	owner := map[int32]*linked{}
	for _, l := range c.order {
		if !l.i.dirty && !l.moved {
			continue
		}
		l.node = c.node(view{i: l.i}, l.names[0])
		for k, p := range l.names {
			owner[l.out[k]] = l
			c.noteMet(l.below[k], p, l.out[k])
			equal, err := c.equal(p, l.below[k], l.node)
			if err != nil {
				return err
			}
			l.kept = l.kept || !equal || !subset(l.names, l.below[k].Links())
		}
	}
	// Names of a group of the parent that no longer share a node are written, but
	// for those of one: left alone, stacking the layer would link them again.
	for _, a := range c.meet {
		heir := int32(-1)
		for _, p := range a.Links() {
			at, ok := c.lost[p]
			l := owner[at]
			if !ok || c.out[at].keep || l != nil && (l.kept || heir >= 0 && owner[heir] == l) {
				continue
			}
			switch {
			case heir < 0:
				heir = at
			case l != nil:
				l.kept = true
			default:
				c.out[at].keep = true
			}
		}
	}
	for _, l := range c.order {
		for k := 0; l.kept && k < len(l.out); k++ {
			o := &c.out[l.out[k]]
			o.node, o.keep, o.made, o.group = l.node, true, true, true
		}
	}
	return nil
}

func subset(names, of []string) bool {
	if len(names) < 2 {
		return true
	}
	for _, p := range names {
		if _, ok := slices.BinarySearchFunc(of, p, tree.Compare); !ok {
			return false
		}
	}
	return true
}

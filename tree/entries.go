package tree

import "slices"

// edit is the mutable form of a directory's entries: sorted, as changes mostly come
// in order, until too many have come in between.
type edit struct {
	by      *Editor
	sorted  dirents
	between int              // how often entries had to move
	kids    map[string]*Node // instead of sorted, if it is there
}

// maxBetween and manyKids bound what moving entries may cost.
const maxBetween, manyKids = 64, 1024

func (e *edit) get(name string) *Node {
	if e.kids != nil {
		return e.kids[name]
	}
	return e.sorted.find(name)
}

func (e *edit) set(name string, n *Node) {
	if e.kids != nil {
		e.kids[name] = n
		return
	}
	d := &e.sorted
	if k := len(d.names); k == 0 || d.names[k-1] < name {
		d.names, d.nodes = append(d.names, name), append(d.nodes, n)
		return
	}
	k, ok := slices.BinarySearch(d.names, name)
	if ok {
		d.nodes[k] = n
		return
	}
	d.names, d.nodes = slices.Insert(d.names, k, name), slices.Insert(d.nodes, k, n)
	e.moved()
}

func (e *edit) remove(name string) {
	if e.kids != nil {
		delete(e.kids, name)
		return
	}
	d := &e.sorted
	if k, ok := slices.BinarySearch(d.names, name); ok {
		d.names, d.nodes = slices.Delete(d.names, k, k+1), slices.Delete(d.nodes, k, k+1)
		e.moved()
	}
}

func (e *edit) moved() {
	if e.between++; e.between < maxBetween || len(e.sorted.names) < manyKids {
		return
	}
	e.kids = make(map[string]*Node, len(e.sorted.names))
	for i, name := range e.sorted.names {
		e.kids[name] = e.sorted.nodes[i]
	}
	e.sorted = dirents{}
}

// names returns the sorted names, which the caller must not keep.
func (e *edit) names() []string {
	if e.kids == nil {
		return e.sorted.names
	}
	names := make([]string, 0, len(e.kids))
	for name := range e.kids {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// freeze returns the entries of a directory that is not edited any more.
func (e *edit) freeze() *dirents {
	d := e.sorted
	if e.kids != nil {
		d.names = e.names()
		d.nodes = make([]*Node, len(d.names))
		for i, name := range d.names {
			d.nodes[i] = e.kids[name]
		}
	}
	if len(d.names) == 0 {
		return nil
	}
	return &dirents{names: slices.Clip(d.names), nodes: slices.Clip(d.nodes)}
}

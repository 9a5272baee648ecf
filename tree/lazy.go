package tree

import (
	"fmt"
	"sort"
	"strings"
	"sync"
)

// ApplyIndex is Decode and Apply of a layer index, and returns the packs that it
// names as well. What it says is checked to its end; but the entries of a directory
// that the lower tree lacks are made when somebody looks, so that a base costs the
// bytes of its index and the directories that are used. s is kept.
func (t Tree) ApplyIndex(s string) (Tree, []PackID, error) {
	ix, plain, err := scanIndex(s)
	if err != nil {
		return Tree{}, nil, err
	}
	if !plain {
		cs, err := decode(s)
		if err != nil {
			return Tree{}, nil, err
		}
		after, err := t.Apply(cs)
		return after, ix.packs, err
	}
	e := t.Edit()
	for i := range ix.hides {
		if err := e.hide(&ix.hides[i]); err != nil {
			return Tree{}, nil, fmt.Errorf("apply %q: %w", ix.hides[i].Path, err)
		}
	}
	ix.merge(e, e.root, &ix.dirs[0])
	for _, head := range ix.heads {
		e.join(&group{node: ix.nodeAt(head), names: ix.groups[head]})
	}
	return e.Tree(), ix.packs, nil
}

// index is a layer index that is decoded where it is looked at.
type index struct {
	s      string // all of it
	packs  []PackID
	hides  Changes          // whiteouts and opaque marks
	dirs   []lazyDir        // in the order of their entries; the first is the root, which has none
	same   map[int]int      // entries with the node of another one: where both begin
	heads  []int            // entries whose nodes others have as well
	groups map[int][]string // all names of those
}

// lazyDir is where the entries of a directory stand.
type lazyDir struct {
	entry      int // where its own entry begins
	start, end int
	path       string
	ix         *index
}

// scanIndex checks all of an index and finds its directories. It is plain if each
// directory above an entry has one of its own and no link leads to the lower tree:
// then a subtree does not depend on what is elsewhere.
func scanIndex(s string) (ix *index, plain bool, err error) {
	d, err := openIndex(s)
	if err != nil {
		return nil, false, err
	}
	d.scratch = true
	ix = &index{s: d.s, packs: d.packs, same: map[int]int{}, groups: map[int][]string{}}
	n := d.count()
	c := scanner{decoder: &d, ix: ix, plain: true, at: make([]int, 0, n)}
	ix.dirs = append(ix.dirs, lazyDir{start: d.at, ix: ix})
	c.open = append(c.open, 0)
	for range n {
		c.entry()
		if d.err != nil {
			return nil, false, d.err
		}
	}
	if err := d.end(); err != nil {
		return nil, false, err
	}
	c.closeFrom(0, d.at)
	ix.headPaths(ix.dirs[0].start, d.at)
	return ix, c.plain, nil
}

// scanner is the state of scanIndex.
type scanner struct {
	*decoder
	ix         *index
	plain      bool
	at         []int // where each entry begins; negative where its node can't have other names
	open       []int // the directories above the last entry
	prev, path []byte
}

func (c *scanner) entry() {
	begin := c.decoder.at
	shared := c.uint()
	if shared > uint64(len(c.prev)) {
		c.fail("prefix too long")
		return
	}
	c.path = append(append(c.path[:0], c.prev[:shared]...), c.string()...)
	if len(c.at) > 0 && c.err == nil && compareBytes(c.prev, c.path) >= 0 {
		c.fail("paths out of order")
		return
	}
	c.prev, c.path = c.path, c.prev
	flags := c.uint()
	c.place(begin)
	mark := -1
	switch {
	case flags&flagLink != 0:
		_ = c.string()
		c.plain = false
	case flags&flagSame != 0:
		k := c.uint()
		if k >= uint64(len(c.at)) || c.at[k] < 0 {
			c.fail("link to nothing")
			return
		}
		head := c.at[k]
		if c.ix.groups[head] == nil {
			c.ix.heads = append(c.ix.heads, head)
		}
		c.ix.groups[head] = append(c.ix.groups[head], string(c.prev))
		c.ix.same[begin] = head
		mark = head
	case flags&flagNode != 0:
		if c.node().Kind == Dir {
			c.ix.dirs = append(c.ix.dirs, lazyDir{entry: begin, start: c.decoder.at, path: string(c.prev), ix: c.ix})
			c.open = append(c.open, len(c.ix.dirs)-1)
		} else {
			mark = begin
		}
	}
	if flags&flagOpaque != 0 || flags&(flagLink|flagSame|flagNode) == 0 {
		c.ix.hides = append(c.ix.hides, Change{Path: string(c.prev), Opaque: flags&flagOpaque != 0})
	}
	c.plain = c.plain && (flags&flagOpaque == 0 || flags&flagNode != 0)
	c.at = append(c.at, mark)
}

// place finds the directory of the entry at c.prev.
func (c *scanner) place(begin int) {
	dir, name := Split(string(c.prev))
	for len(c.open) > 1 && !below(dir, c.ix.dirs[c.open[len(c.open)-1]].path) {
		c.closeFrom(len(c.open)-1, begin)
	}
	if c.ix.dirs[c.open[len(c.open)-1]].path != dir || name == "" || name == "." || name == ".." {
		c.plain = false
	}
}

func below(p, dir string) bool {
	return strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/')
}

func (c *scanner) closeFrom(k, end int) {
	for _, i := range c.open[k:] {
		c.ix.dirs[i].end = end
	}
	c.open = c.open[:k]
}

// headPaths finds the names of the entries whose nodes others have as well: it goes
// through the index again, which most have no reason for.
func (ix *index) headPaths(start, end int) {
	if len(ix.groups) == 0 {
		return
	}
	d := decoder{s: ix.s, at: start, packs: ix.packs, scratch: true}
	var path []byte
	for d.at < end {
		begin := d.at
		path = append(path[:d.uint()], d.string()...)
		switch flags := d.uint(); {
		case flags&flagLink != 0:
			_ = d.string()
		case flags&flagSame != 0:
			_ = d.uint()
		case flags&flagNode != 0:
			_ = d.node()
		}
		if names, ok := ix.groups[begin]; ok {
			ix.groups[begin] = append(names, string(path))
		}
	}
}

// lazyEntry is one entry of a directory.
type lazyEntry struct {
	name  string
	begin int
	node  *Node    // nil for a whiteout
	dir   *lazyDir // of a directory
}

// each calls fn for the entries of x.
func (ix *index) each(x *lazyDir, fn func(lazyEntry)) {
	d := decoder{s: ix.s, at: x.start, packs: ix.packs, slab: 8}
	path, above := []byte(x.path), 0
	if x.path != "" {
		above = len(x.path) + 1
	}
	for d.at < x.end {
		e := lazyEntry{begin: d.at}
		path = append(path[:d.uint()], d.string()...)
		e.name = string(path[above:])
		switch flags := d.uint(); {
		case flags&flagSame != 0:
			_ = d.uint()
			e.node = ix.nodeAt(ix.same[e.begin])
		case flags&flagNode != 0:
			e.node = d.node()
		}
		if e.node != nil && e.node.Kind == Dir {
			k := sort.Search(len(ix.dirs), func(k int) bool { return ix.dirs[k].entry >= e.begin })
			e.dir = &ix.dirs[k]
			d.at = e.dir.end
		}
		fn(e)
	}
}

// nodeAt decodes the node of the entry that begins at an offset.
func (ix *index) nodeAt(begin int) *Node {
	d := decoder{s: ix.s, at: begin, packs: ix.packs, slab: 1}
	_, _, _ = d.uint(), d.string(), d.uint()
	return d.node()
}

// merge puts the entries of x into dir, which the edit owns.
func (ix *index) merge(e *Editor, dir *Node, x *lazyDir) {
	ix.each(x, func(c lazyEntry) {
		if c.node == nil {
			return // hidden before
		}
		old, p := dir.edit.get(c.name), Join(x.path, c.name)
		if c.dir != nil && (old == nil || old.Kind != Dir) {
			e.drop(p, old)
			if c.dir.start < c.dir.end {
				c.node.dir = &dirents{from: &later{x: c.dir}}
			}
			dir.edit.set(c.name, c.node)
			return
		}
		e.putIn(dir, p, c.name, old, c.node)
		if c.dir != nil {
			ix.merge(e, dir.edit.get(c.name), c.dir)
		}
	})
}

// later makes the entries of a directory once.
type later struct {
	once sync.Once
	x    *lazyDir
}

func (d *dirents) load() *dirents {
	d.from.once.Do(func() {
		d.from.x.ix.each(d.from.x, func(c lazyEntry) {
			if c.node == nil {
				return // a whiteout of what the lower tree lacks
			}
			if c.dir != nil && c.dir.start < c.dir.end {
				c.node.dir = &dirents{from: &later{x: c.dir}}
			}
			d.names, d.nodes = append(d.names, c.name), append(d.nodes, c.node)
		})
	})
	return d
}

func compareBytes(a, b []byte) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			switch {
			case a[i] == '/':
				return -1
			case b[i] == '/':
				return 1
			}
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

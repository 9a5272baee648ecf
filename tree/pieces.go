package tree

import (
	"fmt"
	"strings"
)

// Piece is a part of changes on their way from one process to another: whole entries, as
// Encode writes them, in the order of Changes. Numbers of packs and of entries go on from
// piece to piece.
type Piece struct {
	Packs []PackID // those that no piece before names
	Data  []byte
	// Count is how many changes there are in all, where the first piece says it: room
	// is made for them.
	Count int
}

// Pieces encodes changes one by one.
type Pieces struct {
	e     encoder
	named int // packs that were taken
	all   int // Piece.Count, until it is said
	count int
	prev  []byte
}

// NewPieces returns an encoder of count changes, whose pieces take about room bytes.
func NewPieces(count, room int) *Pieces {
	return &Pieces{all: count, e: encoder{b: make([]byte, 0, room), packs: map[PackID]int{}, nodes: map[*Node]int{}}}
}

// Add appends a change; n is its node, nil for a whiteout, and is not kept but where
// shared says that other changes have the same. Its path follows those before.
func (p *Pieces) Add(path string, n *Node, shared bool) {
	same := 0
	for same+8 <= len(path) && same+8 <= len(p.prev) && path[same:same+8] == string(p.prev[same:same+8]) {
		same += 8
	}
	for same < len(path) && same < len(p.prev) && path[same] == p.prev[same] {
		same++
	}
	p.prev = append(p.prev[:same], path[same:]...)
	e := &p.e
	e.uint(uint64(same))
	e.string(path[same:])
	p.count++
	if n == nil {
		e.uint(0)
		return
	}
	if shared && n.Kind != Dir {
		if at, ok := e.nodes[n]; ok {
			e.uint(flagSame)
			e.uint(uint64(at))
			return
		}
		e.nodes[n] = p.count - 1
	}
	e.uint(flagNode)
	e.node(n)
}

// Len is how many bytes were added since the last Take.
func (p *Pieces) Len() int { return len(p.e.b) }

// Take returns what was added since it was called last. It is valid until the next Add.
func (p *Pieces) Take() Piece {
	out := Piece{Packs: p.e.order[p.named:], Data: p.e.b, Count: p.all}
	p.named, p.all, p.e.b = len(p.e.order), 0, p.e.b[:0]
	return out
}

// Growing is Apply of changes that come in pieces: what came is decoded and applied at
// once. It is for one goroutine. Nobody sees anything of it before End.
type Growing struct {
	below  Tree
	e      *Editor
	d      decoder
	cs     Changes
	prev   string
	groups []*group
	of     map[*Node]*group

	// Below a tree that changes in the normal form of Diff fit on, each directory
	// that has an entry stands before it, and whiteouts remove what is there. odd is
	// set where anything else was met: then Apply has the last word.
	odd  bool
	open []openDir
	// The entries of the open directories that the tree below lacks, one behind the other.
	names []string
	nodes []*Node

	nameSlab []string
	nodeSlab []*Node
}

// openDir is a directory above the last entry.
type openDir struct {
	path  string
	node  *Node
	made  bool // new: its entries are in Growing.names; else the editor owns it
	start int  // of them
}

// mostCounted bounds the room that is made for changes that did not come yet.
const mostCounted = 1 << 17

// Grow begins to apply changes to t.
func (t Tree) Grow() *Growing {
	e := t.Edit()
	return &Growing{below: t, e: e, open: []openDir{{node: e.root}}}
}

// Gather begins to decode changes that are applied to nothing: End returns no tree.
func Gather() *Growing { return &Growing{odd: true} }

// Add decodes and applies a piece. After an error, which is ErrCorrupt, nothing but
// throwing g away is of use.
func (g *Growing) Add(p Piece) error {
	if g.cs == nil && p.Count > 0 {
		g.cs = make(Changes, 0, min(p.Count, mostCounted))
	}
	d := &g.d
	d.packs = append(d.packs, p.Packs...)
	d.s, d.at = string(p.Data), 0
	for d.at < len(d.s) {
		g.cs = append(g.cs, Change{})
		c := &g.cs[len(g.cs)-1]
		d.change(g.cs[:len(g.cs)-1], c, g.prev)
		if len(g.cs) > 1 && d.err == nil && Compare(g.prev, c.Path) >= 0 {
			d.fail("paths out of order")
		}
		if d.err != nil {
			return d.err
		}
		g.prev = c.Path
		if !g.odd {
			g.put(c)
		}
	}
	d.s, d.at = "", 0
	return nil
}

// End returns the changes and the tree after.
func (g *Growing) End() (Changes, Tree, error) {
	if g.e == nil {
		return g.cs, Tree{}, nil
	}
	if g.odd {
		after, err := g.below.Apply(g.cs)
		if err != nil {
			return nil, Tree{}, fmt.Errorf("apply changes: %w", err)
		}
		return g.cs, after, nil
	}
	g.closeFrom(1)
	for _, one := range g.groups {
		g.e.join(one)
	}
	return g.cs, g.e.Tree(), nil
}

// put enters one change.
func (g *Growing) put(c *Change) {
	k := len(g.open) - 1
	for k > 0 && !inside(c.Path, g.open[k].path) {
		k--
	}
	g.closeFrom(k + 1)
	dir := &g.open[k]
	name := c.Path
	if k > 0 {
		name = name[len(dir.path)+1:]
	}
	if c.Opaque || c.LinkTo != "" || name == "" || name == "." || name == ".." || strings.IndexByte(name, '/') >= 0 {
		g.odd = true
		return
	}
	if c.Node != nil && c.Node.Kind != Dir {
		g.link(c)
	}
	if dir.made {
		g.add(c, name)
	} else {
		g.edit(dir.node, c, name)
	}
}

func inside(p, dir string) bool {
	return len(p) > len(dir) && p[len(dir)] == '/' && p[:len(dir)] == dir
}

// link notes that c is another name of a node that came before.
func (g *Growing) link(c *Change) {
	at := g.d.same
	if at < 0 {
		return
	}
	one := g.of[c.Node]
	if one == nil {
		one = &group{node: c.Node, names: []string{g.cs[at].Path}}
		if g.of == nil {
			g.of = map[*Node]*group{}
		}
		g.of[c.Node] = one
		g.groups = append(g.groups, one)
	}
	one.names = append(one.names, c.Path)
}

// add enters c in a directory that the tree below lacks.
func (g *Growing) add(c *Change, name string) {
	switch {
	case c.Node == nil:
		g.odd = true // there is nothing to remove
	case c.Node.Kind == Dir:
		n := g.copyDir(c)
		g.names, g.nodes = append(g.names, name), append(g.nodes, n)
		g.openNew(c.Path, n)
	default: // the tree may have it: nobody changes it
		g.names, g.nodes = append(g.names, name), append(g.nodes, c.Node)
	}
}

// copyDir returns the directory of c for the tree, which gives it entries.
func (g *Growing) copyDir(c *Change) *Node {
	n := g.d.newNode()
	*n = *c.Node
	return n
}

// openNew opens a directory that the tree below lacks, once it is entered.
func (g *Growing) openNew(path string, n *Node) {
	g.open = append(g.open, openDir{path: path, node: n, made: true, start: len(g.names)})
}

// edit enters c in a directory that the editor owns.
func (g *Growing) edit(dir *Node, c *Change, name string) {
	old, n := dir.edit.get(name), c.Node
	switch {
	case n == nil && old == nil:
		g.odd = true
	case n == nil:
		g.e.drop(c.Path, old)
		dir.edit.remove(name)
	case n.Kind == Dir && (old == nil || old.Kind != Dir):
		g.e.drop(c.Path, old)
		made := g.copyDir(c)
		dir.edit.set(name, made)
		g.openNew(c.Path, made)
	case n.Kind == Dir:
		attrs := n.Attrs()
		g.e.putIn(dir, c.Path, name, old, &attrs)
		g.open = append(g.open, openDir{path: c.Path, node: dir.edit.get(name)})
	default:
		g.e.putIn(dir, c.Path, name, old, n)
	}
}

// closeFrom ends the open directories from the k-th on.
func (g *Growing) closeFrom(k int) {
	for len(g.open) > k {
		o := &g.open[len(g.open)-1]
		g.open = g.open[:len(g.open)-1]
		if n := len(g.names) - o.start; o.made && n > 0 {
			if len(g.nameSlab) < n {
				g.nameSlab, g.nodeSlab = make([]string, max(n, slab)), make([]*Node, max(n, slab))
			}
			d := &dirents{names: g.nameSlab[:n:n], nodes: g.nodeSlab[:n:n]}
			g.nameSlab, g.nodeSlab = g.nameSlab[n:], g.nodeSlab[n:]
			copy(d.names, g.names[o.start:])
			copy(d.nodes, g.nodes[o.start:])
			o.node.dir = d
			g.names, g.nodes = g.names[:o.start], g.nodes[:o.start]
		}
	}
}

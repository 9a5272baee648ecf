package fusefs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// collect works out what the step did, in the normal form of tree.Diff, from the
// inodes in memory: its cost follows what was looked at, whatever the base. What it
// found is in the order of tree.Compare; to, if not nil, is told of it meanwhile.
func (s *step) collect(to *recorder.Sender) (*collector, error) {
	if s.dirMoved {
		s.mu.Lock() // a question about settled files may still be on its way
		s.loadMovedLinks(s.rootDir, true)
		s.mu.Unlock()
	}
	c := &collector{
		s: s, to: to, out: make([]candidate, 0, len(s.inodes)+16), linked: map[*inode]*linked{}, lost: map[string]int32{}, met: map[*tree.Node]bool{},
	}
	if err := c.dir("", s.parent.Root(), view{i: s.rootDir}, 0); err != nil {
		return nil, err
	}
	if err := c.groups(); err != nil {
		return nil, err
	}
	if err := c.orphans(); err != nil {
		return nil, err
	}
	if err := c.tellRest(); err != nil {
		return nil, err
	}
	for _, l := range c.order {
		if l.kept {
			c.live -= liveIn(l.node, s.spool.w.ID()) * int64(len(l.names)-1) // counted once for each name
		}
	}
	slices.Sort(c.notes)
	return c, nil
}

// orphans frees what has no name any more.
func (c *collector) orphans() error {
	if c.reached+len(c.linked)+1 == len(c.s.inodes) {
		return nil // the root and these are all that there are
	}
	for _, i := range c.s.inodes {
		if i.nlink > 0 || i.file == nil {
			continue
		}
		if err := errors.Join(i.file.dropSlack(c.s.spool), i.file.cut(c.s.spool, 0, 1<<62)); err != nil {
			return err
		}
	}
	return nil
}

// collector goes through the directories in memory.
type collector struct {
	s       *step
	reached int // inodes with one name that were met
	out     []candidate
	to      *recorder.Sender // is told what is certain; nil for nobody
	early   bool             // it was told something before all was found
	told    int              // candidates that were decided about, and told of
	open    []int32          // the directories above the next candidate
	wanted  []bool           // of settle, by depth: something below the next candidate of that depth is kept
	count   int              // of those that are kept
	live    int64            // bytes of the spool that they need
	notes   []string
	nodes   []tree.Node     // for newNode
	names   []entryName     // of the directories that are being compared, one behind the other
	paths   strings.Builder // where those of candidates are made, many at a time
	room    []tree.Extent   // of fill
	linked  map[*inode]*linked
	order   []*linked
	// The parent's hard link groups that were met at a name where something else
	// stands now, in the order of their meeting, and the candidates there.
	met  map[*tree.Node]bool
	meet []*tree.Node
	lost map[string]int32
}

// entryName is a name in a directory, and what stands there.
type entryName struct {
	name  string
	v     view
	below *tree.Node // what the parent has there
}

// candidate is an entry of the difference. Which ones are kept is known when all
// were seen: a directory that is as it was stands there for what is below it, and
// the names of a link group are written all or not at all.
type candidate struct {
	path  string
	node  *tree.Node // nil for a whiteout
	i     *inode     // instead of node: what has one when it is asked for (collector.node)
	depth int32
	keep  bool
	made  bool // node belongs to nobody else
	group bool // but to the other names of a link group
}

// view is an entry of the tree after: an inode, or where i is nil what the parent
// has as n, untouched but maybe moved with a directory; neither for nothing.
type view struct {
	i *inode
	n *tree.Node
}

func (v view) exists() bool { return v.i != nil || v.n != nil }

func (v view) isDir() bool {
	if v.i != nil {
		return v.i.dir != nil
	}
	return v.n != nil && v.n.Kind == tree.Dir
}

// base is the parent's directory that v once was, nil if there is none.
func (v view) base() *tree.Node {
	if v.i != nil {
		return v.i.base
	}
	return v.n
}

// child is what stands in directory v as name.
func (v view) child(name string) view {
	if v.i != nil {
		if c, ok := v.i.dir.kids[name]; ok {
			return view{i: c}
		}
	}
	if b := v.base(); b != nil {
		return view{n: b.Child(name)}
	}
	return view{}
}

// list appends the names in directory v and in a that can differ to c.names, sorted,
// and returns where they begin.
func (c *collector) list(v view, a *tree.Node) (start int) {
	start = len(c.names)
	b := v.base()
	if a == b { // in place: what nobody looked at is as it was
		if v.i != nil {
			for name, i := range v.i.dir.kids {
				c.names = append(c.names, entryName{name: name, v: view{i: i}})
			}
		}
	} else {
		var names []string
		if v.i != nil {
			names = sortedKids(v.i)
		}
		if a != nil {
			names = append(names, a.Names()...)
		}
		if b != nil {
			names = append(names, b.Names()...)
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			c.names = append(c.names, entryName{name: name, v: v.child(name)})
		}
		return start
	}
	slices.SortFunc(c.names[start:], func(x, y entryName) int { return strings.Compare(x.name, y.name) })
	return start
}

// join returns the path of name in directory p.
func (c *collector) join(p, name string) string {
	if c.paths.Cap()-c.paths.Len() < len(p)+1+len(name) {
		c.paths = strings.Builder{}
		c.paths.Grow(max(16<<10, len(p)+1+len(name)))
	}
	at := c.paths.Len()
	if p != "" {
		c.paths.WriteString(p)
		c.paths.WriteByte('/')
	}
	c.paths.WriteString(name)
	return c.paths.String()[at:]
}

// dir compares directory v at p with the parent's directory there, nil if there
// is none.
func (c *collector) dir(p string, a *tree.Node, v view, depth int32) error {
	at := c.add(candidate{path: p, depth: depth, node: a})
	c.open = append(c.open, at)
	start := c.list(v, a)
	end := len(c.names)
	changed, err := c.look(p, a, start)
	if err != nil {
		return err
	}
	c.decide(&c.out[at], a, v, changed)
	for k := start; k < end; k++ {
		x := c.names[k]
		if !x.v.exists() && x.below == nil {
			continue
		}
		if err := c.entry(c.join(p, x.name), x.below, x.v, depth+1); err != nil {
			return err
		}
		if err := c.tell(); err != nil {
			return err
		}
	}
	c.names, c.open = c.names[:start], c.open[:len(c.open)-1]
	return nil
}

// look finds out what stands at the names from start on, in directory p, whether it
// counts, and whether that are other names than the parent's directory a has.
func (c *collector) look(p string, a *tree.Node, start int) (changed bool, err error) {
	for k := start; k < len(c.names); k++ {
		x := &c.names[k]
		if a != nil {
			x.below = a.Child(x.name)
		}
		if x.v.i != nil {
			if err := c.reach(x.v.i); err != nil {
				return false, err
			}
			if !c.counts(x.v.i, p, x.name) {
				x.v = view{}
			}
		}
		changed = changed || x.v.exists() != (x.below != nil)
	}
	return changed, nil
}

// decide finds out whether directory v differs from the parent's directory a there, apart
// from what is in it.
func (c *collector) decide(o *candidate, a *tree.Node, v view, changed bool) {
	if o.path == "" || a != nil && a == v.base() && !changed && (v.i == nil || !v.i.dirty) {
		return // no layer can carry the root's attributes
	}
	if a == nil && v.i.plain() {
		o.i, o.keep = v.i, true
		return
	}
	n := c.node(v, o.path)
	if a != nil {
		if !changed {
			n.Mtime = a.Mtime
		}
		if tree.SameAttrs(a, n) && n.Mtime == a.Mtime {
			return
		}
	}
	o.node, o.keep, o.made = n, true, true
}

// tellRoom is how many candidates gather before the build is told of them.
const tellRoom = 512

// tell tells the build what is certain by now: all so far, if no hard link was met, whose
// other names may have a say. The last candidate is kept, and so is all above it.
func (c *collector) tell() error {
	if c.to == nil || len(c.out)-c.told < c.s.tells || !c.out[len(c.out)-1].keep || len(c.order)+len(c.meet) > 0 {
		return nil
	}
	for _, at := range c.open[1:] { // no layer has the root
		c.out[at].keep = true
	}
	c.early = true
	return c.tellRest()
}

// tellRest decides about the candidates that the build was not told of, and tells it.
func (c *collector) tellRest() error {
	from := c.told
	c.settle(from)
	c.told = len(c.out)
	if c.to == nil {
		return nil
	}
	return c.eachFrom(from, c.to.Add)
}

// plain reports whether i has a node that nothing but i says, and that a layer takes as
// it is: it is made when it is needed.
func (i *inode) plain() bool { return i != nil && len(i.xattrs) == 0 }

// reach is told of every name of i.
func (c *collector) reach(i *inode) error {
	if i.dir != nil || i.nlink == 1 {
		c.reached++
	}
	if i.file == nil || i.file.slackAt == i.file.slackEnd {
		return nil
	}
	return i.file.dropSlack(c.s.spool)
}

// counts reports whether an inode enters the tree after as name in p.
func (c *collector) counts(i *inode, p, name string) bool {
	if i.untouched() {
		return false
	}
	if i.kind == unix.S_IFSOCK {
		c.notes = append(c.notes, fmt.Sprintf("left out socket %q: an image can't hold one", "/"+tree.Join(p, name)))
		return false
	}
	return true
}

func (c *collector) add(x candidate) int32 {
	c.out = append(c.out, x)
	return int32(len(c.out) - 1)
}

// entry compares b at p with what the parent has there.
func (c *collector) entry(p string, a *tree.Node, b view, depth int32) error {
	switch {
	case !b.exists():
		if a != nil {
			c.noteMet(a, p, -1)
			c.add(candidate{path: p, depth: depth, keep: true})
		}
		return nil
	case b.isDir():
		if a != nil && a.Kind != tree.Dir {
			c.noteMet(a, p, -1)
			a = nil
		}
		if b.i == nil && b.n == a || b.i != nil && a != nil && b.i.base == a && !b.i.dirty && len(b.i.dir.kids) == 0 {
			return nil
		}
		return c.dir(p, a, b, depth)
	case b.i != nil && b.i.nlink > 1:
		c.link(p, a, b.i, depth)
		return nil
	case b.i != nil && a != nil && b.i.base == a && !b.i.dirty, b.i == nil && b.n == a:
		return nil
	}
	if a == nil && b.i.plain() {
		c.add(candidate{path: p, depth: depth, i: b.i, keep: true})
		return nil
	}
	n := b.n
	if b.i != nil {
		n = c.node(b, p)
	}
	equal, err := c.equal(p, a, n)
	if err != nil {
		return err
	}
	if !equal || a.Links() != nil {
		c.noteMet(a, p, c.add(candidate{path: p, depth: depth, node: n, keep: !equal, made: b.i != nil}))
	}
	return nil
}

func (c *collector) equal(p string, a, b *tree.Node) (bool, error) {
	if a == nil || a.Kind != b.Kind {
		return false, nil
	}
	equal, err := tree.SameEntry(a, b, c.s.sameContent)
	if err != nil {
		return false, fmt.Errorf("compare contents of %q: %w", p, err)
	}
	return equal, nil
}

// settle keeps the ancestors of what is kept, from a candidate on, and finds out what that
// needs.
func (c *collector) settle(from int) {
	clear(c.wanted)
	for k := len(c.out) - 1; k >= from; k-- {
		o := &c.out[k]
		for int(o.depth)+1 >= len(c.wanted) {
			c.wanted = append(c.wanted, false)
		}
		o.keep = o.depth > 0 && (o.keep || c.wanted[o.depth+1])
		c.wanted[o.depth+1] = false
		if o.keep {
			c.wanted[o.depth] = true
			c.count++
			c.live += c.liveIn(o)
		}
	}
}

// each calls fn with the changes in order, until it returns an error. The node is made
// what a layer can hold: whole seconds, which a foreign base's need not be (LAWS 13). It
// is fn's only until it returns, but where shared says that other changes have it too.
func (c *collector) each(fn func(path string, n *tree.Node, shared bool) error) error {
	return c.eachFrom(0, fn)
}

func (c *collector) eachFrom(from int, fn func(path string, n *tree.Node, shared bool) error) error {
	var one tree.Node
	for k := from; k < len(c.out); k++ {
		o := &c.out[k]
		if !o.keep {
			continue
		}
		n := o.node
		switch {
		case o.i != nil:
			c.fill(&one, o.i)
			n = &one
		case n != nil && !o.made && (n.Kind == tree.Dir || n.Mtime.Nsec != 0):
			one = n.Attrs()
			n = &one
		}
		if n != nil && n.Mtime.Nsec != 0 {
			n.Mtime = n.Mtime.Truncate()
		}
		if err := fn(o.path, n, o.group); err != nil {
			return err
		}
	}
	return nil
}

// fill makes n what i is, until it is called again.
func (c *collector) fill(n *tree.Node, i *inode) {
	*n = tree.Node{Extents: c.room[:0]}
	if c.s.node(i, n); i.file != nil && i.file.own && n.Extents != nil {
		c.room = n.Extents
	}
}

// changes are what each calls with.
func (c *collector) changes() tree.Changes {
	cs := make(tree.Changes, 0, c.count)
	_ = c.each(func(path string, n *tree.Node, shared bool) error { // nor does it fail
		if n != nil && !shared {
			n = c.copy(*n)
			n.Extents = slices.Clone(n.Extents)
		}
		cs = append(cs, tree.Change{Path: path, Node: n})
		return nil
	})
	return cs
}

// written returns what is written at p, nil for a whiteout, and whether anything is. The
// node is the caller's until the next call.
func (c *collector) written(p string) (*tree.Node, bool) {
	k, ok := slices.BinarySearchFunc(c.out, p, func(o candidate, p string) int { return tree.Compare(o.path, p) })
	if !ok || !c.out[k].keep {
		return nil, false
	}
	if o := &c.out[k]; o.i == nil {
		return o.node, true
	}
	n := c.newNode()
	c.fill(n, c.out[k].i)
	return n, true
}

// liveIn is how many bytes of the spool o needs.
func (c *collector) liveIn(o *candidate) (sum int64) {
	switch {
	case o.i == nil && o.node != nil:
		return liveIn(o.node, c.s.spool.w.ID())
	case o.i == nil || o.i.file == nil || !o.i.file.own:
		return 0
	}
	for k := range o.i.file.spans {
		if x := &o.i.file.spans[k]; x.pack == 0 {
			sum += x.n
		}
	}
	return sum
}

func liveIn(n *tree.Node, pack tree.PackID) (sum int64) {
	for k := range n.Extents {
		if n.Extents[k].Pack == pack {
			sum += n.Extents[k].Len
		}
	}
	return sum
}

// newNode returns an empty node, one of many allocated at once.
func (c *collector) newNode() *tree.Node {
	if len(c.nodes) == 0 {
		c.nodes = make([]tree.Node, 256)
	}
	n := &c.nodes[0]
	c.nodes = c.nodes[1:]
	return n
}

func (c *collector) copy(n tree.Node) *tree.Node {
	to := c.newNode()
	*to = n
	return to
}

// node gives v the form of a tree, without the attributes that no layer may bring in.
func (c *collector) node(v view, p string) *tree.Node {
	if v.i == nil {
		return c.copy(v.n.Attrs())
	}
	i := v.i
	n := c.newNode()
	c.s.node(i, n)
	if slices.ContainsFunc(n.Xattrs, func(x tree.Xattr) bool { return stripped(x.Name) }) {
		n.Xattrs = c.strip(i, slices.Clone(n.Xattrs), p)
	}
	return n
}

func (c *collector) strip(i *inode, list []tree.Xattr, p string) []tree.Xattr {
	list = slices.DeleteFunc(list, func(x tree.Xattr) bool {
		if !stripped(x.Name) {
			return false
		}
		if i.base != nil {
			if v, ok := i.base.Xattr(x.Name); ok && v == x.Value {
				return false
			}
		}
		c.notes = append(c.notes, fmt.Sprintf("left out xattr %s of %q: an image can't hold one", x.Name, "/"+p))
		return true
	})
	if len(list) == 0 {
		return nil
	}
	return list
}

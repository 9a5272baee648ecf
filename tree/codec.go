package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// On-disk format of a layer index, version 1. All numbers are varints (signed
// ones zig-zag), all strings length-prefixed bytes.
//
//	magic "fbtree1\n"
//	packs:   count, then that many strings
//	changes: count, then for each
//	  length of the prefix shared with the path before, rest of the path
//	  flags: 1 node follows, 2 link target follows, 4 opaque, 8 same node as
//	         the change whose number follows
//	  node: kind, mode, uid, gid, mtime sec, mtime nsec, size, then by kind
//	         target | major, minor | digest, extents (count; pack number + 1 or
//	         0 for a hole, offset, length); xattrs (count; name, value)
//	sha256 of all of the above, 32 bytes
const magic = "fbtree1\n"

const (
	flagNode = 1 << iota
	flagLink
	flagOpaque
	flagSame
)

// ErrCorrupt is returned by Decode for anything that Encode did not write.
var ErrCorrupt = errors.New("corrupt layer index")

// Encode writes changes in the on-disk form.
func Encode(cs Changes) []byte {
	// What stands in front is known last: most often it fits into the room left for it.
	const front = 512
	e := encoder{b: make([]byte, front, front+sha256.Size+64*len(cs)), packs: map[PackID]int{}, nodes: make(map[*Node]int, len(cs))}
	var prev string
	for i := range cs {
		e.change(i, &cs[i], prev)
		prev = cs[i].Path
	}
	body := e.b
	e.b = append(make([]byte, 0, front), magic...)
	e.uint(uint64(len(e.order)))
	for _, p := range e.order {
		e.string(string(p))
	}
	e.uint(uint64(len(cs)))
	if at := front - len(e.b); at >= 0 {
		copy(body[at:], e.b)
		e.b = body[at:]
	} else {
		e.b = append(e.b, body[front:]...)
	}
	sum := sha256.Sum256(e.b)
	return append(e.b, sum[:]...)
}

type encoder struct {
	b     []byte
	packs map[PackID]int
	order []PackID
	last  int // the pack asked for last: mostly the next as well
	nodes map[*Node]int
}

func (e *encoder) uint(v uint64) {
	if v < 0x80 {
		e.b = append(e.b, byte(v))
		return
	}
	e.b = binary.AppendUvarint(e.b, v)
}

func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) string(s string) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }

func (e *encoder) change(i int, c *Change, prev string) {
	shared := 0
	for shared < len(prev) && shared < len(c.Path) && prev[shared] == c.Path[shared] {
		shared++
	}
	e.uint(uint64(shared))
	e.string(c.Path[shared:])
	var flags uint64
	if c.Opaque {
		flags |= flagOpaque
	}
	if c.LinkTo != "" {
		e.uint(flags | flagLink)
		e.string(c.LinkTo)
		return
	}
	if c.Node == nil {
		e.uint(flags)
		return
	}
	if c.Node.Kind != Dir {
		if at, ok := e.nodes[c.Node]; ok {
			e.uint(flags | flagSame)
			e.uint(uint64(at))
			return
		}
		e.nodes[c.Node] = i
	}
	e.uint(flags | flagNode)
	e.node(c.Node)
}

func (e *encoder) node(n *Node) {
	e.uint(uint64(n.Kind))
	e.uint(uint64(n.Mode))
	e.uint(uint64(n.UID))
	e.uint(uint64(n.GID))
	e.int(n.Mtime.Sec)
	e.uint(uint64(n.Mtime.Nsec))
	e.uint(uint64(n.Size))
	switch n.Kind {
	case Symlink:
		e.string(n.Target)
	case CharDevice, BlockDevice:
		e.uint(uint64(n.Major))
		e.uint(uint64(n.Minor))
	case File:
		e.string(string(n.Digest))
		e.uint(uint64(len(n.Extents)))
		for _, x := range n.Extents {
			e.uint(e.pack(x.Pack))
			e.uint(uint64(x.Off))
			e.uint(uint64(x.Len))
		}
	default: // the others have no more
	}
	e.uint(uint64(len(n.Xattrs)))
	for _, x := range n.Xattrs {
		e.string(x.Name)
		e.string(x.Value)
	}
}

// pack returns the number of a pack counted from 1; 0 is the hole.
func (e *encoder) pack(p PackID) uint64 {
	if p == "" {
		return 0
	}
	if len(e.order) > 0 && e.order[e.last] == p {
		return uint64(e.last + 1)
	}
	i, ok := e.packs[p]
	if !ok {
		i = len(e.order)
		e.order = append(e.order, p)
		e.packs[p] = i
	}
	e.last = i
	return uint64(i + 1)
}

// Decode reads what Encode wrote. Anything else gives ErrCorrupt.
func Decode(b []byte) (Changes, error) { return decode(string(b)) }

func decode(s string) (Changes, error) {
	d, err := openIndex(s)
	if err != nil {
		return nil, err
	}
	n := d.count()
	// Most take more than 8 bytes: what lies about their number takes little memory.
	cs := make(Changes, 0, min(n, (len(d.s)-d.at)/8+1))
	var prev string
	for i := range n {
		cs = append(cs, Change{})
		d.change(cs[:i], &cs[i], prev)
		if i > 0 && d.err == nil && Compare(prev, cs[i].Path) >= 0 {
			d.fail("paths out of order")
		}
		if d.err != nil {
			return nil, d.err
		}
		prev = cs[i].Path
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return cs, d.err
}

// openIndex checks what an index begins and ends with, and reads its packs.
func openIndex(s string) (decoder, error) {
	end := len(s) - sha256.Size
	if end < len(magic) || s[:len(magic)] != magic {
		return decoder{}, ErrCorrupt
	}
	if checksum(s[:end]) != s[end:] {
		return decoder{}, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	d := decoder{s: s[:end], at: len(magic)}
	packs := make([]PackID, d.count())
	for i := range packs {
		packs[i] = PackID(strings.Clone(d.string()))
	}
	d.packs = packs
	return d, nil
}

// checksum is the sha256 of s, without a second copy of it in memory.
func checksum(s string) string {
	h, piece := sha256.New(), make([]byte, 0, min(len(s), 32<<10))
	for len(s) > 0 {
		n := min(len(s), cap(piece))
		_, _ = h.Write(append(piece, s[:n]...)) // never fails
		s = s[n:]
	}
	return string(h.Sum(nil))
}

type decoder struct {
	s     string
	at    int // what comes next in s
	packs []PackID
	err   error
	same  int // the change whose node the last one has, -1 for none

	// Only the next node is wanted, its lists in no case.
	scratch bool
	one     Node
	slab    int // how many are allocated at a time; 0 for slab

	// What is decoded, allocated many at a time.
	nodes []Node
	exts  []Extent
	paths strings.Builder
}

const slab = 256

func (d *decoder) many() int {
	if d.slab > 0 {
		return d.slab
	}
	return slab
}

func (d *decoder) newNode() *Node {
	if d.scratch {
		d.one = Node{}
		return &d.one
	}
	if len(d.nodes) == 0 {
		d.nodes = make([]Node, d.many())
	}
	n := &d.nodes[0]
	d.nodes = d.nodes[1:]
	return n
}

func (d *decoder) newExtents(n int) []Extent {
	if n > d.many()/4 && (!d.scratch || n > len(d.exts)) {
		return make([]Extent, n)
	}
	if len(d.exts) < n {
		d.exts = make([]Extent, d.many())
	}
	x := d.exts[:n:n]
	if !d.scratch {
		d.exts = d.exts[n:]
	}
	return x
}

// join returns a path made of two parts.
func (d *decoder) join(a, b string) string {
	if d.paths.Cap()-d.paths.Len() < len(a)+len(b) {
		d.paths = strings.Builder{}
		d.paths.Grow(max(64*slab, len(a)+len(b)))
	}
	at := d.paths.Len()
	d.paths.WriteString(a)
	d.paths.WriteString(b)
	return d.paths.String()[at:]
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrCorrupt, why)
	}
	d.at = len(d.s)
}

// end is called when all entries were read.
func (d *decoder) end() error {
	if left := len(d.s) - d.at; left > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrCorrupt, left)
	}
	return nil
}

func (d *decoder) uint() uint64 {
	if d.at < len(d.s) && d.s[d.at] < 0x80 {
		d.at++
		return uint64(d.s[d.at-1])
	}
	var v uint64
	for i := 0; d.at+i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[d.at+i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.at += i + 1
			return v
		}
	}
	d.fail("number cut short")
	return 0
}

func (d *decoder) int() int64 {
	v := d.uint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads the length of a list, each of whose items takes a byte or more.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.s)-d.at) {
		d.fail("list too long")
		return 0
	}
	return int(v)
}

// items is count for a list whose items take at least size bytes each.
func (d *decoder) items(size int) int {
	n := d.count()
	if n > (len(d.s)-d.at)/size {
		d.fail("list too long")
		return 0
	}
	return n
}

func (d *decoder) string() string {
	n := d.count()
	d.at += n
	return d.s[d.at-n : d.at]
}

func (d *decoder) change(before Changes, c *Change, prev string) {
	shared := d.uint()
	if shared > uint64(len(prev)) {
		d.fail("prefix too long")
		return
	}
	c.Path = d.join(prev[:shared], d.string())
	flags := d.uint()
	c.Opaque, d.same = flags&flagOpaque != 0, -1
	switch {
	case flags&flagLink != 0:
		c.LinkTo = d.string()
	case flags&flagSame != 0:
		at := d.uint()
		if at >= uint64(len(before)) || before[at].Node == nil || before[at].Node.Kind == Dir {
			d.fail("link to nothing")
			return
		}
		c.Node, d.same = before[at].Node, int(at)
	case flags&flagNode != 0:
		c.Node = d.node()
	}
}

func (d *decoder) node() *Node {
	n := d.newNode()
	n.Kind, n.Mode, n.UID, n.GID = Kind(d.uint()), uint32(d.uint()), uint32(d.uint()), uint32(d.uint())
	n.Mtime = Time{Sec: d.int(), Nsec: int32(d.uint())}
	n.Size = int64(d.uint())
	if n.Kind == Invalid || n.Kind > BlockDevice || n.Mode > 0o7777 || n.Size < 0 || uint32(n.Mtime.Nsec) >= 1e9 {
		d.fail("impossible entry")
		return n
	}
	switch n.Kind {
	case Symlink:
		n.Target = d.string()
	case CharDevice, BlockDevice:
		n.Major, n.Minor = uint32(d.uint()), uint32(d.uint())
	case File:
		n.Digest = Digest(d.string())
		n.Extents = d.extents(n.Size)
	default: // the others have no more
	}
	if k := d.items(2); k > 0 {
		n.Xattrs = make([]Xattr, k)
		for i := range n.Xattrs {
			n.Xattrs[i] = Xattr{Name: d.string(), Value: d.string()}
		}
	}
	return n
}

func (d *decoder) extents(size int64) []Extent {
	k := d.items(3)
	if k == 0 {
		return nil
	}
	out := d.newExtents(k)
	var sum int64
	for i := range out {
		p := d.uint()
		out[i] = Extent{Off: int64(d.uint()), Len: int64(d.uint())}
		if p > uint64(len(d.packs)) || out[i].Off < 0 || out[i].Len <= 0 || out[i].Len > size-sum {
			d.fail("impossible extent")
			return nil
		}
		if p > 0 {
			out[i].Pack = d.packs[p-1]
		}
		sum += out[i].Len
	}
	if sum != size {
		d.fail("extents do not fill the file")
	}
	return out
}

package fusefs

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// generator makes trees, programs and edits of few names, so that they meet.
type generator struct {
	j     *judge
	r     *rand.Rand
	there []string // paths of the tree
	named []string // paths in the program
}

func pick[T any](g *generator, from ...T) T { return from[g.r.IntN(len(from))] }

var (
	genDirs  = []string{"", "a", "b", "a/c", "b/d"}
	genNames = []string{"x", "y", "z"}
)

// path is where something may stand.
func (g *generator) path() string {
	if g.r.IntN(4) == 0 {
		return pick(g, genDirs[1:]...)
	}
	return tree.Join(pick(g, genDirs...), pick(g, genNames...))
}

func (g *generator) bytes() tree.Node {
	switch g.r.IntN(12) {
	case 0:
		return g.j.file("")
	case 1:
		return g.j.sparse(pick(g, "-0", "0-", "00", "--"))
	}
	return g.j.file(pick(g, "one\n", "one\n", "two\n", "two\n", "six\n", "seven\n", strings.Repeat("long ", 2000)))
}

func (g *generator) node() tree.Node {
	var n tree.Node
	switch k := g.r.IntN(20); {
	case k < 12:
		n = g.bytes()
	case k < 15:
		n = tree.Node{Kind: tree.Symlink, Target: pick(g, "x", "y", "a/x", "c/y", "a", "none")}
		n.Size = int64(len(n.Target))
	case k < 16:
		n = tree.Node{Kind: tree.Fifo}
	default:
		n = tree.Node{Kind: tree.Dir}
	}
	n.Mtime = tree.Time{Sec: 1000}
	g.attrs(&n)
	return n
}

func (g *generator) attrs(n *tree.Node) {
	n.UID = pick[uint32](g, 0, 0, 0, 1000)
	n.GID = pick[uint32](g, 0, 0, 0, 1000)
	switch n.Kind {
	case tree.Dir:
		n.Mode = pick[uint32](g, 0o755, 0o755, 0o700, 0o2775, 0o1777)
	case tree.Symlink:
		n.Mode = 0o777
	default:
		n.Mode = pick[uint32](g, 0o644, 0o644, 0o600, 0o755, 0o4755)
	}
	if n.Kind == tree.Dir || n.Kind == tree.File { // others have no user attributes
		n.Xattrs = g.xattrs(n.Kind)
	}
}

func (g *generator) xattrs(k tree.Kind) []tree.Xattr {
	special := tree.Xattr{Name: capability, Value: genCapability}
	if k == tree.Dir {
		special = tree.Xattr{Name: defaultACL, Value: genACL}
	}
	return pick(g, nil, nil, []tree.Xattr{special}, []tree.Xattr{{Name: "user.a", Value: "1"}}, []tree.Xattr{{Name: "user.a", Value: "2"}},
		[]tree.Xattr{{Name: "user.a", Value: "1"}, {Name: "user.b", Value: "1"}})
}

// genACL lets the user 1000 read and write; genCapability is cap_net_raw.
const (
	genACL = "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xe8\x03\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	genCapability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// way reports whether something may be put at p: it stands in a directory.
func way(e *tree.Editor, p string) bool {
	dir, _ := tree.Split(p)
	n := e.Lookup(dir)
	return n != nil && n.Kind == tree.Dir
}

func (g *generator) tree() tree.Tree {
	e := tree.Empty().Edit()
	for _, d := range genDirs {
		if d != "" && g.r.IntN(8) > 0 && way(e, d) {
			n := *dirNode()
			if g.r.IntN(3) == 0 {
				g.attrs(&n)
			}
			g.j.put(e, d, n)
		}
	}
	for range 12 {
		g.change(e, g.path())
	}
	t := e.Tree()
	g.there = nil
	_ = t.Walk(func(p string, _ *tree.Node) error {
		if p != "" {
			g.there = append(g.there, p)
		}
		return nil
	})
	return t
}

// edited is t with a change or two that show, mostly of what the program named.
func (g *generator) edited(t tree.Tree) tree.Tree {
	e := t.Edit()
	for range 1 + g.r.IntN(2) {
		for range 8 {
			p := g.path()
			if g.r.IntN(4) > 0 && len(g.named) > 0 {
				p = pick(g, g.named...)
			}
			if g.r.IntN(8) == 0 {
				p = tree.Join(p, pick(g, genNames...))
			}
			if g.change(e, p) {
				break
			}
		}
	}
	return e.Tree()
}

// change does one thing to a tree, if that is possible.
func (g *generator) change(e *tree.Editor, p string) bool {
	n := e.Lookup(p)
	if n == nil {
		switch {
		case !way(e, p):
			return false
		case g.r.IntN(4) == 0:
			return g.linked(e, p)
		}
		g.j.put(e, p, g.node())
		return true
	}
	switch g.r.IntN(12) {
	case 0:
		g.j.remove(e, p)
	case 1:
		if n.Kind != tree.Dir {
			return g.linked(e, p)
		}
		g.j.put(e, p, g.node())
	case 2: // a name leaves its group
		g.j.put(e, p, n.Attrs())
		return n.Links() != nil
	case 3, 4:
		g.j.with(e, p, g.attrs)
	case 5, 6:
		if n.Kind != tree.Dir && n.Kind != tree.File {
			return false
		}
		g.j.with(e, p, func(n *tree.Node) { n.Xattrs = g.xattrs(n.Kind) })
	default:
		switch n.Kind {
		case tree.File:
			bytes := g.bytes()
			g.j.with(e, p, func(n *tree.Node) { n.Size, n.Extents, n.Digest = bytes.Size, bytes.Extents, bytes.Digest })
		case tree.Symlink:
			g.j.with(e, p, func(n *tree.Node) { n.Target = pick(g, "x", "y", "z", "a/x", "c/y"); n.Size = int64(len(n.Target)) })
		default:
			return false
		}
	}
	return true
}

func (g *generator) linked(e *tree.Editor, p string) bool {
	q := g.path()
	n := e.Lookup(q)
	if n == nil || n.Kind == tree.Dir || strings.HasPrefix(q, p+"/") {
		return false
	}
	g.j.link(e, p, q)
	return true
}

// genOps are what programs are made of: %p is a path, %m a mode, %w a word, %x an attribute.
var genOps = []string{
	"stat %p", "lstat %p", "dontsync %p", "open %p", "opath %p", "read %p", "read %p", "uread %p", "uwrite %p", "pread %p 1 2",
	"mmap %p 8192", "copy %p %p", "seekdata %p 0", "seekhole %p 0", "readlink %p", "list %p", "list1 %p", "lslong %p", "list .",
	"getx %p user.a", "getx %p system.posix_acl_access", "getx %p security.capability", "listx %p", "setx %p user.a 1 %f", "setx %p user.b 1 %f", "rmx %p user.a", "chmod %p %m", "chown %p 0", "chown %p 1000",
	"trunc %p 0", "trunc %p 2", "otrunc %p", "rewrite %p one", "rewrite %p two", "append %p %w", "write %p %w", "create %p %w", "creat %p %w", "mwrite %p",
	"falloc %p 0 8192 0", "falloc %p 0 4096 3", "mkdir %p", "rmdir %p", "unlink %p", "rename %p %p", "rename %p %p", "rename %d %d", "exchange %p %p",
	"noreplace %p %p", "link %p %p", "symlink x %p", "mkfifo %p", "utimes %p", "tmpfile %d",
}

func (g *generator) program() []string {
	var ops []string
	g.named = nil
	for range 1 + g.r.IntN(7) {
		if g.r.IntN(8) == 0 && len(g.there) > 0 { // what a list told is looked at
			p := pick(g, g.there...)
			dir, _ := tree.Split(p)
			g.named = append(g.named, p)
			ops = append(ops, "list "+cmp.Or(dir, "."), pick(g, "stat ", "lstat ", "dontsync ", "read ")+p)
			continue
		}
		f := strings.Fields(pick(g, genOps...))
		for k := range f {
			switch f[k] {
			case "%p":
				f[k] = g.likely()
				g.named = append(g.named, f[k])
			case "%d":
				f[k] = pick(g, genDirs[1:]...)
				g.named = append(g.named, f[k])
			case "%m":
				f[k] = pick(g, "0644", "0600", "0755")
			case "%w":
				f[k] = pick(g, "w", "word")
			case "%f":
				f[k] = fmt.Sprint(g.r.IntN(3))
			}
		}
		ops = append(ops, strings.Join(f, " "))
		if *evicts && g.r.IntN(3) == 0 {
			ops = append(ops, "evict")
		}
	}
	return ops
}

// likely is a path that something is done to: mostly what is there, often once more.
func (g *generator) likely() string {
	switch k := g.r.IntN(10); {
	case k < 3 && len(g.named) > 0:
		return pick(g, g.named...)
	case k < 8 && len(g.there) > 0:
		return pick(g, g.there...)
	}
	return g.path()
}

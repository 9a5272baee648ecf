package tree

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// ErrLoop is returned by Resolve where symlinks lead in circles or too deep.
var ErrLoop = errors.New("too many levels of symbolic links")

// maxSymlinks is the kernel's own bound for one path.
const maxSymlinks = 40

// Tree is one immutable file system. The zero Tree is not valid; start from
// Empty.
type Tree struct{ root *Node }

// Empty returns the file system of `FROM scratch`: a root directory, mode 0755,
// owned by 0:0, with the time 0.
func Empty() Tree { return Tree{&Node{Kind: Dir, Mode: 0o755}} }

// Root returns the root directory.
func (t Tree) Root() *Node { return t.root }

// Clean turns any spelling of a path inside a tree into the package's form.
// ".." at the root stays at the root.
func Clean(p string) string { return path.Clean("/" + p)[1:] }

// Lookup returns the node at p without following symlinks, or nil.
func (t Tree) Lookup(p string) *Node {
	n := t.root
	for p != "" && n != nil {
		var name string
		name, p, _ = strings.Cut(p, "/")
		n = n.Child(name)
	}
	return n
}

// Resolve follows every symlink of p, the last one included, inside the root:
// absolute targets start at the root and ".." stops there. It returns the real
// path and its node; components that do not exist are kept as they are, with a
// nil node. ErrLoop is returned for circles.
func (t Tree) Resolve(p string) (string, *Node, error) {
	return resolve(t.root, p, true)
}

// ResolveParent is Resolve for every component but the last, which is not
// followed.
func (t Tree) ResolveParent(p string) (string, *Node, error) {
	return resolve(t.root, p, false)
}

func resolve(root *Node, p string, last bool) (string, *Node, error) {
	type step struct {
		node *Node
		path string
	}
	stack := []step{{root, ""}}
	rest, follows := strings.Split(p, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		cur := stack[len(stack)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		next := step{path: Join(cur.path, name)}
		if cur.node != nil {
			next.node = cur.node.Child(name)
		}
		if n := next.node; n != nil && n.Kind == Symlink && (last || len(rest) > 0) {
			if follows++; follows > maxSymlinks {
				return "", nil, fmt.Errorf("resolve %q: %w", p, ErrLoop)
			}
			if strings.HasPrefix(n.Target, "/") {
				stack = stack[:1]
			}
			rest = append(strings.Split(n.Target, "/"), rest...)
			continue
		}
		stack = append(stack, next)
	}
	end := stack[len(stack)-1]
	return end.path, end.node, nil
}

// Join appends a name to a path of a tree.
func Join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// Split returns the directory and the last name of a path.
func Split(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// Walk calls fn for every entry, the root ("") first, parents before children,
// names in order. An error of fn ends the walk and is returned.
func (t Tree) Walk(fn func(p string, n *Node) error) error { return walk("", t.root, fn) }

// WalkFrom walks the subtree at p; p must exist.
func (t Tree) WalkFrom(p string, fn func(p string, n *Node) error) error {
	n := t.Lookup(p)
	if n == nil {
		return fmt.Errorf("walk %q: no such entry", p)
	}
	return walk(p, n, fn)
}

func walk(p string, n *Node, fn func(string, *Node) error) error {
	if err := fn(p, n); err != nil {
		return err
	}
	for _, name := range n.Names() {
		if err := walk(Join(p, name), n.Child(name), fn); err != nil {
			return err
		}
	}
	return nil
}

// Compare orders paths so that a directory stands before its entries and
// everything below it before its next sibling.
func Compare(a, b string) int {
	i, n := 0, min(len(a), len(b))
	for i+8 <= n && word(a[i:i+8]) == word(b[i:i+8]) { // paths share much
		i += 8
	}
	for ; i < n; i++ {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return int(a[i]) - int(b[i])
	}
	return len(a) - len(b)
}

// word is eight bytes at once.
func word(s string) uint64 {
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

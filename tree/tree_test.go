package tree

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build makes a tree out of lines: "d etc", "f etc/motd BYTES", "l link TARGET",
// "h name TARGET" (a hard link), "p fifo", "c dev".
func build(t testing.TB, lines ...string) Tree {
	t.Helper()
	e := Empty().Edit()
	for _, line := range lines {
		do(t, e, line)
	}
	return e.Tree()
}

// at is the time of everything that build makes.
var at = Time{Sec: 1000}

func do(t testing.TB, e *Editor, line string) {
	t.Helper()
	f := strings.Fields(line)
	var err error
	switch f[0] {
	case "d":
		err = e.Put(f[1], Node{Kind: Dir, Mode: 0o755, Mtime: at})
	case "f":
		err = e.Put(f[1], fileNode(strings.Join(f[2:], " ")))
	case "l":
		err = e.Put(f[1], Node{Kind: Symlink, Mode: 0o777, Target: f[2], Size: int64(len(f[2])), Mtime: at})
	case "h":
		err = e.Link(f[1], f[2])
	case "p":
		err = e.Put(f[1], Node{Kind: Fifo, Mode: 0o600, Mtime: at})
	case "c":
		err = e.Put(f[1], Node{Kind: CharDevice, Mode: 0o600, Mtime: at, Major: 1, Minor: 3})
	case "x":
		err = e.Remove(f[1])
	case "o":
		err = e.RemoveChildren(f[1])
	default:
		t.Fatalf("unknown line %q", line)
	}
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

// fileNode is a file whose digest is its bytes.
func fileNode(s string) Node {
	return Node{Kind: File, Mode: 0o644, Mtime: at, Size: int64(len(s)), Digest: Digest(s)}
}

// show writes a whole tree as text, with digests and link groups.
func show(t testing.TB, tr Tree) string {
	t.Helper()
	var b strings.Builder
	first := map[*Node]string{}
	if err := tr.Walk(func(p string, n *Node) error {
		fmt.Fprintf(&b, "%s %s %s%s", formatNode(n), quote(p), n.Digest, n.Target)
		if f, ok := first[n]; ok {
			fmt.Fprintf(&b, " = %s", f)
		} else if n.Kind != Dir {
			first[n] = p
		}
		b.WriteString("\n")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// checkLinks verifies that every node knows exactly the names that lead to it.
func checkLinks(t testing.TB, tr Tree) {
	t.Helper()
	names := map[*Node][]string{}
	must(t, tr.Walk(func(p string, n *Node) error {
		if n.edit != nil {
			t.Errorf("%q: is still being edited", p)
		}
		names[n] = append(names[n], p)
		return nil
	}))
	for n, want := range names {
		got := n.Links()
		if len(want) == 1 && got == nil {
			continue
		}
		if !slices.Equal(got, want) || n.Nlink() != len(want) {
			t.Errorf("names of %q: got %q, want %q", want[0], got, want)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLookup(t *testing.T) {
	tr := build(t, "f etc/motd hello", "l link etc", "f a/b/c/d x")
	for _, c := range []struct {
		path string
		want Kind
	}{
		{"", Dir},
		{"etc", Dir},
		{"etc/motd", File},
		{"a/b/c/d", File},
		{"link", Symlink},
		{"link/motd", Invalid}, // never through a symlink
		{"etc/motd/x", Invalid},
		{"none", Invalid},
		{"etc/mot", Invalid},
		{"etc/motdx", Invalid},
	} {
		got := Invalid
		if n := tr.Lookup(c.path); n != nil {
			got = n.Kind
		}
		if got != c.want {
			t.Errorf("lookup %q: got %s, want %s", c.path, got, c.want)
		}
	}
}

// LAWS 15: whatever a path says, it stays inside the root.
func TestResolve(t *testing.T) {
	tr := build(t, "f etc/motd hello", "d usr/bin", "l bin usr/bin", "l abs /usr/bin", "l up ../../..", "l usr/up ../../../etc",
		"l loop1 loop2", "l loop2 loop1", "l self self", "l dangling no/where", "l d1 /bin", "l d2 d1/", "l usr/dot .", "f usr/bin/sh x",
		"l usr/bin/motd /etc/motd", "l root /")
	for _, c := range []struct {
		path, want, parent string // parent: what ResolveParent makes of it, "=" the same
		found              bool
	}{
		{"", "", "=", true},
		{"etc/motd", "etc/motd", "=", true},
		{"bin/sh", "usr/bin/sh", "=", true},
		{"bin", "usr/bin", "bin", true},
		{"abs/sh", "usr/bin/sh", "=", true},
		{"up", "", "up", true},
		{"up/etc", "etc", "=", true},
		{"usr/up/motd", "etc/motd", "=", true},
		{"../../etc", "etc", "=", true},
		{"etc/../../../etc/motd", "etc/motd", "=", true},
		{"bin/..", "usr", "=", true}, // of where it leads, not of the name
		{"bin/../bin/sh", "usr/bin/sh", "=", true},
		{"d2/motd", "etc/motd", "usr/bin/motd", true},
		{"usr/dot/dot/dot/bin", "usr/bin", "=", true},
		{"root/root/root/etc", "etc", "=", true},
		{"dangling", "no/where", "dangling", false},
		{"dangling/x", "no/where/x", "=", false},
		{"no/such/../file", "no/file", "=", false},
		{"etc/motd/x", "etc/motd/x", "=", false},
		{"./etc//motd/.", "etc/motd", "=", true},
		{"bin/new", "usr/bin/new", "=", false},
	} {
		p, n, err := tr.Resolve(c.path)
		if err != nil || p != c.want || (n != nil) != c.found {
			t.Errorf("resolve %q: got %q, found %t, %v, want %q, %t", c.path, p, n != nil, err, c.want, c.found)
		}
		if n != tr.Lookup(p) {
			t.Errorf("resolve %q: got another node than lookup %q", c.path, p)
		}
		parent := c.parent
		if parent == "=" {
			parent = c.want
		}
		if p, n, err := tr.ResolveParent(c.path); err != nil || p != parent || n != tr.Lookup(p) {
			t.Errorf("resolve parent of %q: got %q, %v, want %q", c.path, p, err, parent)
		}
	}
}

func TestResolveLoops(t *testing.T) {
	tr := build(t, "l a b", "l b a", "l self self", "l d/in ../d/in/x", "l grow grow/grow", "f e/x y")
	for _, p := range []string{"a", "a/x", "self", "d/in", "grow", "grow/x"} {
		if _, _, err := tr.Resolve(p); !errors.Is(err, ErrLoop) {
			t.Errorf("resolve %q: got %v, want ErrLoop", p, err)
		}
	}
	if p, n, err := tr.ResolveParent("a"); err != nil || p != "a" || n == nil {
		t.Errorf("resolve parent of a link in a circle: got %q, %v, want it itself", p, err)
	}
	// As deep as the kernel goes, and one more.
	e := Empty().Edit()
	do(t, e, "f l0 x")
	for i := range 41 {
		do(t, e, fmt.Sprintf("l l%d l%d", i+1, i))
	}
	tr = e.Tree()
	if p, _, err := tr.Resolve("l40"); err != nil || p != "l0" {
		t.Errorf("resolve 40 links: got %q, %v, want l0", p, err)
	}
	if _, _, err := tr.Resolve("l41"); !errors.Is(err, ErrLoop) {
		t.Errorf("resolve 41 links: got %v, want ErrLoop", err)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/": "", ".": "", "a": "a", "/a/": "a", "a//b": "a/b", "../a": "a", "/../../a/./b/..": "a", "a/..": "", "\xff/\n": "\xff/\n",
	} {
		if got := Clean(in); got != want {
			t.Errorf("clean %q: got %q, want %q", in, got, want)
		}
	}
}

// A directory stands before its entries, and everything below it before its next
// sibling.
func TestCompare(t *testing.T) {
	want := []string{"", "a", "a/b", "a/b/c", "a/b-", "a/z", "a!", "a-b", "a.b", "a.b/x", "aa", "b", "\xff", "\xff/a"}
	got := slices.Clone(want)
	rand.New(rand.NewSource(1)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
	slices.SortFunc(got, Compare)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for i, a := range want {
		for j, b := range want {
			if got := Compare(a, b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("compare %q with %q: got %d", a, b, got)
			}
		}
	}
}

// The order of Walk is the order of Compare.
func TestWalkOrder(t *testing.T) {
	tr := build(t, "f a/b/c x", "f a/b- x", "f a.b/x x", "f a-b x", "f b x")
	var got []string
	must(t, tr.Walk(func(p string, _ *Node) error {
		got = append(got, p)
		return nil
	}))
	want := slices.Clone(got)
	slices.SortFunc(want, Compare)
	if len(got) != 9 || !slices.IsSortedFunc(strings.Split("a/b a/b-", " "), Compare) {
		t.Errorf("walk: got %q, want 9 entries", got)
	}
	// Walk goes by names, so that only siblings may stand in another order.
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("walk order (-compare +walk):\n%s", diff)
	}
	stop := errors.New("stop")
	if err := tr.WalkFrom("a", func(string, *Node) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("walk that stops: got %v, want its error", err)
	}
	if err := tr.WalkFrom("none", func(string, *Node) error { return nil }); err == nil {
		t.Error("walk from nothing: got no error")
	}
}

package tree

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// LAWS 14, clause by clause.
func TestDiffNormalForm(t *testing.T) {
	start := []string{"f etc/motd hello", "f etc/passwd root", "f l/a L", "h l/b l/a", "h l2/c l/a", "l s etc", "p pipe", "c null"}
	later := Time{Sec: 2000}
	set := func(p string, change func(*Node)) func(*testing.T, *Editor) {
		return func(t *testing.T, e *Editor) {
			n := e.Lookup(p).Attrs()
			change(&n)
			must(t, e.Put(p, n))
		}
	}
	lines := func(lines ...string) func(*testing.T, *Editor) {
		return func(t *testing.T, e *Editor) {
			for _, l := range lines {
				do(t, e, l)
			}
		}
	}
	for _, c := range []struct {
		name  string
		edits []func(*testing.T, *Editor)
		want  string
	}{
		{name: "nothing"},
		{
			name: "ancestors present", edits: []func(*testing.T, *Editor){lines("f etc/motd other")},
			want: "d0755 0:0 1000 etc\n-0644 0:0 1000 5 etc/motd\n",
		},
		{
			name: "equal entries dropped", edits: []func(*testing.T, *Editor){lines("x etc", "x s", "f etc/motd hello", "f etc/passwd root", "l s etc")},
		},
		{
			name: "mode", edits: []func(*testing.T, *Editor){set("etc/motd", func(n *Node) { n.Mode = 0o600 })},
			want: "d0755 0:0 1000 etc\n-0600 0:0 1000 5 etc/motd\n",
		},
		{
			name: "owner", edits: []func(*testing.T, *Editor){set("s", func(n *Node) { n.UID = 7 }), set("null", func(n *Node) { n.GID = 8 })},
			want: "c0600 0:8 1000 1,3 null\nl0777 7:0 1000 s -> etc\n",
		},
		{
			name: "xattrs", edits: []func(*testing.T, *Editor){set("pipe", func(n *Node) { n.Xattrs = []Xattr{{"user.x", "1"}} })},
			want: "p0600 0:0 1000 pipe [user.x=\"1\"]\n",
		},
		{
			name: "device number", edits: []func(*testing.T, *Editor){set("null", func(n *Node) { n.Minor = 5 })},
			want: "c0600 0:0 1000 1,5 null\n",
		},
		{
			name: "time of a file", edits: []func(*testing.T, *Editor){set("etc/motd", func(n *Node) { n.Mtime = later })},
			want: "d0755 0:0 1000 etc\n-0644 0:0 2000 5 etc/motd\n",
		},
		{
			name: "time of a directory in which no name changed", edits: []func(*testing.T, *Editor){
				lines("f etc/motd other"), set("etc", func(n *Node) { n.Mtime = later }), set("l", func(n *Node) { n.Mtime = later }),
			},
			want: "d0755 0:0 1000 etc\n-0644 0:0 1000 5 etc/motd\n",
		},
		{
			name: "time of a directory in which a name changed", edits: []func(*testing.T, *Editor){
				lines("x etc/motd"), set("etc", func(n *Node) { n.Mtime = later }),
			},
			want: "d0755 0:0 2000 etc\nx etc/motd\n",
		},
		{
			name: "time of the root", edits: []func(*testing.T, *Editor){lines("f new N"), set("", func(n *Node) { n.Mtime = later })},
			want: "-0644 0:0 1000 1 new\n",
		},
		{
			// No layer can carry it.
			name: "mode of the root", edits: []func(*testing.T, *Editor){set("", func(n *Node) { n.Mode, n.Mtime = 0o700, later })},
		},
		{
			name: "whiteouts, no opaque marks", edits: []func(*testing.T, *Editor){lines("x etc", "d etc", "f etc/new N")},
			want: "d0755 0:0 1000 etc\nx etc/motd\n-0644 0:0 1000 1 etc/new\nx etc/passwd\n",
		},
		{
			name: "one whiteout for a whole directory", edits: []func(*testing.T, *Editor){lines("x etc")},
			want: "x etc\n",
		},
		{
			name: "kinds", edits: []func(*testing.T, *Editor){lines("f etc E", "d s", "f s/x X")},
			want: "-0644 0:0 1000 1 etc\nd0755 0:0 1000 s\n-0644 0:0 1000 1 s/x\n",
		},
		{
			name: "group complete when one name is added", edits: []func(*testing.T, *Editor){lines("h z l/a")},
			want: "d0755 0:0 1000 l\n-0644 0:0 1000 1 l/a\n-0644 0:0 1000 1 l/b = l/a\nd0755 0:0 1000 l2\n-0644 0:0 1000 1 l2/c = l/a\n-0644 0:0 1000 1 z = l/a\n",
		},
		{
			name: "group complete when it changes", edits: []func(*testing.T, *Editor){lines("x l", "x l2", "f l/a M", "h l/b l/a", "h l2/c l/a")},
			want: "d0755 0:0 1000 l\n-0644 0:0 1000 1 l/a\n-0644 0:0 1000 1 l/b = l/a\nd0755 0:0 1000 l2\n-0644 0:0 1000 1 l2/c = l/a\n",
		},
		{
			name: "removing one name writes a whiteout only", edits: []func(*testing.T, *Editor){lines("x l/a")},
			want: "d0755 0:0 1000 l\nx l/a\n",
		},
		{
			name: "removing a directory with one name", edits: []func(*testing.T, *Editor){lines("x l2")},
			want: "x l2\n",
		},
		{
			name: "a name that left its group, otherwise equal", edits: []func(*testing.T, *Editor){lines("x l/b", "x l2", "f l/b L")},
			want: "d0755 0:0 1000 l\n-0644 0:0 1000 1 l/b\nx l2\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := build(t, start...)
			e := parent.Edit()
			for _, f := range c.edits {
				f(t, e)
			}
			child := e.Tree()
			cs, err := Diff(parent, child, nil)
			must(t, err)
			if diff := cmp.Diff(c.want, Format(cs)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			got, err := parent.Apply(cs)
			must(t, err)
			checkLinks(t, got)
			rest, err := Diff(got, child, nil)
			must(t, err)
			if len(rest) != 0 {
				t.Errorf("still different after apply:\n%s", Format(rest))
			}
		})
	}
}

// LAWS 14: content is compared by extents, then digests, then bytes.
func TestDiffContent(t *testing.T) {
	x := []Extent{{"tar-1", 0, 5}}
	for _, c := range []struct {
		name    string
		a, b    Node
		ask     bool // the bytes must be asked for
		answer  bool
		changed bool
	}{
		{name: "same extents", a: Node{Extents: x}, b: Node{Extents: x, Digest: "1"}},
		{name: "same digest", a: Node{Extents: x, Digest: "1"}, b: Node{Extents: []Extent{{"tar-2", 0, 5}}, Digest: "1"}},
		{name: "other digest", a: Node{Extents: x, Digest: "1"}, b: Node{Digest: "2"}, changed: true},
		{name: "same bytes", a: Node{Extents: x}, b: Node{Extents: []Extent{{"tar-2", 0, 5}}}, ask: true, answer: true},
		{name: "other bytes", a: Node{Extents: x}, b: Node{Extents: []Extent{{"tar-2", 0, 5}}}, ask: true, changed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			trees := make([]Tree, 2)
			for i, n := range []Node{c.a, c.b} {
				n.Kind, n.Size = File, 5
				e := Empty().Edit()
				must(t, e.Put("f", n))
				trees[i] = e.Tree()
			}
			asked := false
			cs, err := Diff(trees[0], trees[1], func(_, _ *Node) (bool, error) {
				asked = true
				return c.answer, nil
			})
			must(t, err)
			if (len(cs) > 0) != c.changed || asked != c.ask {
				t.Errorf("got changes %q, asked for bytes %t, want changed %t, asked %t", Format(cs), asked, c.changed, c.ask)
			}
		})
	}
	a, b := build(t), build(t)
	for tr, ext := range map[*Tree]PackID{&a: "tar-1", &b: "tar-2"} {
		e := tr.Edit()
		must(t, e.Put("d/f", Node{Kind: File, Size: 1, Extents: []Extent{{ext, 0, 1}}}))
		*tr = e.Tree()
	}
	boom := errors.New("boom")
	if _, err := Diff(a, b, func(*Node, *Node) (bool, error) { return false, boom }); !errors.Is(err, boom) {
		t.Errorf("error of the comparison: got %v, want it", err)
	}
}

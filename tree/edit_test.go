package tree

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditor(t *testing.T) {
	start := []string{"d a", "f a/x X", "f a/y Y", "f top T", "h a/x2 a/x", "h b/x3 a/x", "l s a"}
	const rest = "d0755 0:0 1000 b \n-0644 0:0 1000 1 b/x3 X = a/x\n"
	for _, c := range []struct {
		name  string
		edits []string
		want  string // lines of show
	}{
		{
			name: "put a file over a directory takes names below out of their groups", edits: []string{"f a A"},
			want: "-0644 0:0 1000 1 a A\nd0755 0:0 1000 b \n-0644 0:0 1000 1 b/x3 X\nl0777 0:0 1000 s a\n-0644 0:0 1000 1 top T\n",
		},
		{
			name: "put a directory over a file", edits: []string{"d top", "x a", "x b", "x s"},
			want: "d0755 0:0 1000 top \n",
		},
		{
			name: "put a directory over a directory keeps its entries", edits: []string{"d a", "x s", "x top"},
			want: "d0755 0:0 1000 a \n-0644 0:0 1000 1 a/x X\n-0644 0:0 1000 1 a/x2 X = a/x\n-0644 0:0 1000 1 a/y Y\n" + rest,
		},
		{
			name: "put over one name of a group leaves the others", edits: []string{"f a/x2 new", "x s", "x top", "x a/y"},
			want: "d0755 0:0 1000 a \n-0644 0:0 1000 1 a/x X\n-0644 0:0 1000 3 a/x2 new\n" + rest,
		},
		{
			name: "shrink a group to one name", edits: []string{"x a", "x s", "x top"},
			want: "d0755 0:0 1000 b \n-0644 0:0 1000 1 b/x3 X\n",
		},
		{
			name: "move a name into another group", edits: []string{"h a/x a/y", "x s", "x top"},
			want: "d0755 0:0 1000 a \n-0644 0:0 1000 1 a/x Y\n-0644 0:0 1000 1 a/x2 X\n-0644 0:0 1000 1 a/y Y = a/x\nd0755 0:0 1000 b \n-0644 0:0 1000 1 b/x3 X = a/x2\n",
		},
		{
			name: "link a name to itself and to its twin", edits: []string{"h a/x a/x", "h a/x b/x3", "x s", "x top", "x a/y"},
			want: "d0755 0:0 1000 a \n-0644 0:0 1000 1 a/x X\n-0644 0:0 1000 1 a/x2 X = a/x\n" + rest,
		},
		{
			name: "link over a directory that holds names of the group", edits: []string{"h a b/x3", "x s", "x top"},
			want: "-0644 0:0 1000 1 a X\nd0755 0:0 1000 b \n-0644 0:0 1000 1 b/x3 X = a\n",
		},
		{
			name: "missing ancestors", edits: []string{"x a", "x b", "x s", "x top", "f q/r/s S"},
			want: "d0755 0:0 1000 q \nd0755 0:0 1000 q/r \n-0644 0:0 1000 1 q/r/s S\n",
		},
		{
			name: "remove what is not there", edits: []string{"x none", "x a/none/none", "x top/none", "o none", "o top", "o a", "x b", "x s"},
			want: "d0755 0:0 1000 a \n-0644 0:0 1000 1 top T\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := build(t, start...)
			before := show(t, old)
			e := old.Edit()
			for _, line := range c.edits {
				do(t, e, line)
			}
			tr := e.Tree()
			_, got, _ := strings.Cut(show(t, tr), "\n") // without the root
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			checkLinks(t, tr)
			if diff := cmp.Diff(before, show(t, old)); diff != "" {
				t.Errorf("the old tree changed (-before +after):\n%s", diff)
			}
			checkLinks(t, old)
		})
	}
}

func TestEditorRefuses(t *testing.T) {
	e := build(t, "f a/x X", "f f F", "l s a").Edit()
	for name, err := range map[string]error{
		"file as the root":           e.Put("", fileNode("x")),
		"below a file":               e.Put("f/x", fileNode("x")),
		"below a symlink":            e.Put("s/x", fileNode("x")),
		"remove the root":            e.Remove(""),
		"link to nothing":            e.Link("y", "none"),
		"link to a directory":        e.Link("y", "a"),
		"link below a file":          e.Link("f/y", "a/x"),
		"link over its own ancestor": e.Link("a", "a/x"),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// An edit shares what it did not touch.
func TestEditorShares(t *testing.T) {
	old := build(t, "f a/b/x X", "f c/y Y", "f a/z Z")
	e := old.Edit()
	do(t, e, "f c/new N")
	tr := e.Tree()
	if old.Lookup("a") != tr.Lookup("a") {
		t.Error("directory beside the edit: got a copy, want the same node")
	}
	if old.Lookup("c") == tr.Lookup("c") || old.Lookup("c/new") != nil {
		t.Error("directory of the edit: got the same node, want a copy")
	}
}

// The attributes of a node that was put do not follow the caller's copy.
func TestEditorCopies(t *testing.T) {
	n := fileNode("x")
	e := Empty().Edit()
	must(t, e.Put("f", n))
	n.Mode = 0
	tr := e.Tree()
	if got := tr.Lookup("f").Mode; got != 0o644 {
		t.Errorf("mode: got %o, want 644", got)
	}
	e2 := tr.Edit()
	must(t, e2.Put("", Node{Kind: Dir, Mode: 0o700}))
	tr2 := e2.Tree()
	if tr.Root().Mode != 0o755 || tr2.Root().Mode != 0o700 || tr2.Lookup("f") == nil {
		t.Errorf("root: got modes %o and %o, want 755 before and 700 after, with its entries", tr.Root().Mode, tr2.Root().Mode)
	}
}

// A large group costs no more than its size allows.
func TestEditorLargeGroup(t *testing.T) {
	e := Empty().Edit()
	do(t, e, "f l/0 X")
	var want []string
	for i := range 1500 {
		want = append(want, fmt.Sprintf("l/%d", i))
		if i > 0 {
			must(t, e.Link(want[i], want[i-1]))
		}
	}
	slices.SortFunc(want, Compare)
	tr := e.Tree()
	if got := tr.Lookup("l/7").Links(); !slices.Equal(got, want) {
		t.Errorf("names: got %d, want %d", len(got), len(want))
	}
	e = tr.Edit()
	must(t, e.Remove("l"))
	if n := e.Tree().Root().Names(); len(n) != 0 {
		t.Errorf("names after removal: got %q", n)
	}
}

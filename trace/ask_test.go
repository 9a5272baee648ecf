package trace

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

func entries(paths ...string) []Question {
	var out []Question
	for _, p := range paths {
		out = append(out, Question{Path: p, Kind: Entry})
	}
	return out
}

func TestWay(t *testing.T) {
	e := tree.Empty().Edit()
	put := func(p string, n tree.Node) {
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	put("a/b/f", tree.Node{Kind: tree.File})
	put("rel", tree.Node{Kind: tree.Symlink, Target: "a/../a/b"})
	put("abs", tree.Node{Kind: tree.Symlink, Target: "/rel"})
	put("loop", tree.Node{Kind: tree.Symlink, Target: "loop"})
	s := e.Tree()
	link := func(p string) Question { return Question{Path: p, Kind: Link} }
	cases := []struct {
		name, path string
		want       []Question
	}{
		{"root", "", nil},
		{"plain", "a/b/f", entries("a", "a/b", "a/b/f")},
		{"dots", "./a//b/../b", entries("a", "a/b", "a/b")},
		{"missing", "a/x/y", entries("a", "a/x", "a/x/y")},
		{"relative link", "rel/f", append(append(entries("rel"), link("rel")), entries("a", "a", "a/b", "a/b/f")...)},
		{"absolute link at the end", "abs", append(append(append(entries("abs"), link("abs")), append(entries("rel"), link("rel"))...), entries("a", "a", "a/b")...)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, Way(s.Lookup, c.path)); d != "" {
				t.Error(d)
			}
		})
	}
	if n := len(Way(s.Lookup, "loop/x")); n == 0 || n > 200 {
		t.Errorf("a circle asks %d questions", n)
	}
}

// The difference that an edit gives is the same on every parent that answers the
// questions of the edit in the same way (LAWS 4).
func TestEditsDecideTheDifference(t *testing.T) {
	s := sample(t)
	file := tree.Node{Kind: tree.File, Mode: 0o644, Size: 2, Digest: digestA, Mtime: tree.Time{Sec: 50}}
	edits := []struct {
		name string
		path string
		do   func(e *tree.Editor) error
	}{
		{"over a file", "d/file", func(e *tree.Editor) error { return e.Put("d/file", file) }},
		{"the same file", "d/file", func(e *tree.Editor) error { return e.Put("d/file", s.Lookup("d/file").Attrs()) }},
		{"a new file", "d/sub/new", func(e *tree.Editor) error { return e.Put("d/sub/new", file) }},
		{"over a name of two", "z", func(e *tree.Editor) error { return e.Put("z", file) }},
		{"a directory again", "d", func(e *tree.Editor) error { return e.Put("d", s.Lookup("d").Attrs()) }},
	}
	changes := []func(e *tree.Editor) error{
		func(e *tree.Editor) error { return e.Remove("d/file") },
		func(e *tree.Editor) error { return e.Put("d/file", file) },
		func(e *tree.Editor) error { return e.Put("d", tree.Node{Kind: tree.Dir, Mode: 0o700}) },
		func(e *tree.Editor) error { return e.Put("d/sub", tree.Node{Kind: tree.Dir, Mode: 0o700}) },
		func(e *tree.Editor) error { return e.Put("other", file) },
		func(e *tree.Editor) error { return e.Put("d/sub/new", file) },
		func(e *tree.Editor) error { return e.Link("y", "z") },
		func(e *tree.Editor) error { return errors.Join(e.Remove("z"), e.Put("z", file)) },
		func(e *tree.Editor) error {
			n := s.Lookup("d/file").Attrs()
			n.Mtime.Sec++
			return e.Put("d/file", n)
		},
	}
	hits := 0
	for _, one := range edits {
		asked := NewEdits(s)
		asked.Put(one.path)
		tr := record(t, s, asked.Questions())
		want := difference(t, s, one.do)
		if p := Missing(s, want, asked.Questions()); p != "" {
			t.Errorf("%s: nobody asked about %q", one.name, p)
		}
		for i, change := range changes {
			e := s.Edit()
			if err := change(e); err != nil {
				t.Fatal(err)
			}
			other := e.Tree()
			_, n, err := tr.Match([]tree.Tree{other}, AnswerOptions{Digest: known}, 0)
			if err != nil || n > 0 {
				continue
			}
			hits++
			if got := difference(t, other, one.do); tree.Format(got) != tree.Format(want) {
				t.Errorf("%s, change %d: the trace matches, but the difference is\n%snot\n%s", one.name, i, tree.Format(got), tree.Format(want))
			}
		}
	}
	if hits < 10 {
		t.Errorf("only %d matches prove little", hits)
	}
}

func difference(t *testing.T, parent tree.Tree, do func(e *tree.Editor) error) tree.Changes {
	t.Helper()
	e := parent.Edit()
	if err := do(e); err != nil {
		t.Fatal(err)
	}
	cs, err := tree.Diff(parent, e.Tree(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// LAWS 10: a layer that changes what nobody asked about has no complete trace.
func TestMissing(t *testing.T) {
	s := sample(t)
	change := func(p string) tree.Changes { return tree.Changes{{Path: p, Node: &tree.Node{Kind: tree.File}}} }
	list := func(p string) Question { return Question{Path: p, Kind: List} }
	cases := []struct {
		name string
		path string
		qs   []Question
		want string
	}{
		{"asked", "d/file", entries("d", "d/file"), ""},
		{"not asked", "d/file", entries("d"), "d/file"},
		{"only listed", "d/file", []Question{list("d")}, "d/file"},
		{"new and not asked", "d/new", entries("d"), "d/new"},
		{"new, and the directory was listed", "d/new", append(entries("d"), list("d")), ""},
		{"below what is not there", "n/e/w", entries("n"), ""},
		{"below what is no directory", "d/file/x", entries("d/file"), ""},
		{"two below a list", "n/e/w", []Question{list("")}, ""},
		{"by another name, and for all names", "z", append(entries("d", "d/h1"), Question{Path: "d/h1", Kind: Names}), ""},
		{"by another name only", "z", entries("d", "d/h1"), "z"},
		{"in a directory of a listed one", "d/new", []Question{list("")}, "d/new"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Missing(s, change(c.path), Sorted(c.qs)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

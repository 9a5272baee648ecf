package build

import (
	"strings"
	"testing"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/tree"
)

func cacheRecord(data []byte) cache.Record { return cache.Record{Value: data} }

// Two layers are the same if all but times is.
func TestCompareLayers(t *testing.T) {
	r := newRig(t)
	node := func(text string, fn func(n *tree.Node)) *tree.Node {
		n, err := r.content(text)
		if err != nil {
			t.Fatal(err)
		}
		if fn != nil {
			fn(&n)
		}
		return &n
	}
	linked := node("l", nil)
	base := tree.Changes{
		{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}},
		{Path: "d/f", Node: node("text", nil)},
		{Path: "gone"},
		{Path: "h1", Node: linked},
		{Path: "h2", Node: linked},
		{Path: "s", Node: &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: "x", Size: 1}},
	}
	cases := []struct {
		name string
		edit func(cs tree.Changes) tree.Changes
		want string // "" for the same
	}{
		{"itself", func(cs tree.Changes) tree.Changes { return cs }, ""},
		{"other times, other places", func(cs tree.Changes) tree.Changes {
			cs[1].Node = node("text", func(n *tree.Node) { n.Mtime.Sec = 9 })
			cs[0].Node = &tree.Node{Kind: tree.Dir, Mode: 0o755, Mtime: tree.Time{Sec: 4}}
			return cs
		}, ""},
		{"bytes", func(cs tree.Changes) tree.Changes { cs[1].Node = node("TEXT", nil); return cs }, "d/f"},
		{"mode", func(cs tree.Changes) tree.Changes {
			cs[1].Node = node("text", func(n *tree.Node) { n.Mode = 0o600 })
			return cs
		}, "d/f"},
		{"owner", func(cs tree.Changes) tree.Changes {
			cs[1].Node = node("text", func(n *tree.Node) { n.UID = 1 })
			return cs
		}, "d/f"},
		{"attributes", func(cs tree.Changes) tree.Changes {
			cs[1].Node = node("text", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.x"}} })
			return cs
		}, "d/f"},
		{"one less", func(cs tree.Changes) tree.Changes { return append(cs[:1:1], cs[2:]...) }, "d/f"},
		{"one more", func(cs tree.Changes) tree.Changes { return append(cs, tree.Change{Path: "z"}) }, "z"},
		{"not removed", func(cs tree.Changes) tree.Changes { cs[2].Node = node("x", nil); return cs }, "gone"},
		{"links apart", func(cs tree.Changes) tree.Changes { cs[4].Node = node("l", nil); return cs }, "h2"},
		{"target", func(cs tree.Changes) tree.Changes {
			cs[5].Node = &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: "y", Size: 1}
			return cs
		}, "s"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			other := c.edit(append(tree.Changes(nil), base...))
			for _, limit := range []int{1, 50} {
				got, err := r.b.compareLayers(base, other, limit)
				if err != nil {
					t.Fatal(err)
				}
				if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || got[0].path != c.want) {
					t.Errorf("limit %d: got %+v, want a difference at %q", limit, got, c.want)
				}
			}
		})
	}
}

// --cache-check names what the step gives otherwise than the layer that stands for it,
// and does not compare what is another in each run.
func TestCacheCheck(t *testing.T) {
	r := newRig(t)
	layer := func(files ...string) tree.Changes {
		e := tree.Empty().Edit()
		for _, f := range files {
			if err := r.put(e, f, 3); err != nil {
				t.Fatal(err)
			}
		}
		cs, err := tree.Diff(tree.Empty(), e.Tree(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return cs
	}
	cases := []struct {
		name                   string
		adopted, first, second []string
		want                   string
	}{
		{"the same", []string{"a=1"}, []string{"a=1"}, nil, ""},
		{"another", []string{"a=1", "b=1"}, []string{"a=2", "b=1"}, []string{"a=2", "b=1"}, "/a: reused contents"},
		{"more", []string{"a=1"}, []string{"a=1", "b=1"}, []string{"a=1", "b=1"}, "/b: reused not in the layer"},
		{"a clock", []string{"a=1", "b=1"}, []string{"a=2", "b=1"}, []string{"a=3", "b=1"}, ""},
		{"a clock and more", []string{"a=1", "b=1"}, []string{"a=2", "b=2"}, []string{"a=3", "b=2"}, "/b: reused contents"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tr := &tracer{b: r.b, step: r.b.opts.Progress.Step("RUN"), rep: &StepReport{}}
			hit := &traceHit{changes: layer(c.adopted...)}
			again := func() (*ran, error) { return &ran{changes: layer(c.second...)}, nil }
			err := tr.check(hit, &ran{changes: layer(c.first...)}, again)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// LAWS 5: what makes a layer not the difference from what it is put on.
func TestFits(t *testing.T) {
	file := func(sec int64) *tree.Node {
		return &tree.Node{Kind: tree.File, Mode: 0o640, UID: 3, GID: 4, Size: 1, Digest: "sha256:f", Mtime: tree.Time{Sec: sec}}
	}
	cases := []struct {
		name  string
		below []string
		cs    tree.Changes
		want  string
	}{
		{"a new file", []string{"d/"}, tree.Changes{{Path: "f", Node: file(7)}}, ""},
		{"a directory's time", []string{"d/"}, tree.Changes{{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o700, Mtime: tree.Time{Sec: 99}}}, {Path: "d/f", Node: file(7)}}, ""},
		{"a whiteout that hits", []string{"f"}, tree.Changes{{Path: "f"}}, ""},
		{"a whiteout that misses", []string{"d/"}, tree.Changes{{Path: "f"}}, "/f: the layer removes it"},
		{"the same entry", []string{"d/", "d/f = f", "f"}[2:], tree.Changes{{Path: "f", Node: &tree.Node{
			Kind: tree.File, Mode: 0o640, UID: 3, GID: 4, Size: 1, Digest: "sha256:f", Mtime: tree.Time{Sec: 7, Nsec: 9},
		}}}, "/f: the layer has what is there already"},
		{"an ancestor that is missing", nil, tree.Changes{{Path: "d/f", Node: file(7)}}, "/d: the layer does not say"},
		{"an ancestor that is a file", []string{"d"}, tree.Changes{{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o700}}, {Path: "d/f", Node: file(7)}}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			below := plant(t, c.below...)
			after, err := below.Apply(c.cs)
			if err != nil {
				t.Fatal(err)
			}
			err = fits(below, after, c.cs)
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

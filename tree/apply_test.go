package tree

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// LAWS 15: a layer index means what docker makes of the tar.
func TestApply(t *testing.T) {
	start := []string{"f etc/motd M", "f etc/passwd P", "f usr/bin/sh S", "l bin usr/bin", "l out ../../..", "l abs /usr/bin", "l far no/where", "f l/a L", "h l/b l/a"}
	dir := Node{Kind: Dir, Mode: 0o700, Mtime: at}
	file := func(s string) *Node { n := fileNode(s); return &n }
	twin := file("twin")
	for _, c := range []struct {
		name string
		cs   Changes
		want string   // lines that the result must have
		gone []string // paths that it must not have
	}{
		{
			name: "whiteout", cs: Changes{{Path: "etc/motd"}, {Path: "none/x"}, {Path: "usr"}},
			gone: []string{"etc/motd", "usr", "none"}, want: "-0644 0:0 1000 1 etc/passwd P\n",
		},
		{
			name: "whiteout below a symlink", cs: Changes{{Path: "bin/sh"}},
			gone: []string{"usr/bin/sh"}, want: "l0777 0:0 1000 bin usr/bin\n",
		},
		{
			name: "whiteout of a symlink, not of what it leads to", cs: Changes{{Path: "bin"}},
			gone: []string{"bin"}, want: "-0644 0:0 1000 1 usr/bin/sh S\n",
		},
		{
			name: "a whiteout does not act on its own layer", cs: Changes{{Path: "etc/motd"}, {Path: "out/etc/motd", Node: file("new")}},
			want: "-0644 0:0 1000 3 etc/motd new\n",
		},
		{
			name: "opaque directory with entries", cs: Changes{{Path: "etc", Node: &dir, Opaque: true}, {Path: "etc/a", Node: file("A")}},
			gone: []string{"etc/motd", "etc/passwd"}, want: "d0700 0:0 1000 etc \n-0644 0:0 1000 1 etc/a A\n",
		},
		{
			name: "opaque mark alone keeps the attributes", cs: Changes{{Path: "etc", Opaque: true}},
			gone: []string{"etc/motd"}, want: "d0755 0:0 1000 etc \n",
		},
		{
			name: "opaque mark that stands behind entries", cs: Changes{{Path: "etc/a", Node: file("A")}, {Path: "out/etc", Opaque: true}},
			gone: []string{"etc/motd"}, want: "-0644 0:0 1000 1 etc/a A\n",
		},
		{
			name: "ancestor that is a symlink", cs: Changes{{Path: "bin/new", Node: file("N")}},
			want: "l0777 0:0 1000 bin usr/bin\n-0644 0:0 1000 1 usr/bin/new N\n",
		},
		{
			name: "ancestor that is an absolute symlink", cs: Changes{{Path: "abs/new", Node: file("N")}},
			want: "-0644 0:0 1000 1 usr/bin/new N\n",
		},
		{
			name: "ancestor that leads out stays inside", cs: Changes{{Path: "out/new", Node: file("N")}},
			want: "-0644 0:0 1000 1 new N\n",
		},
		{
			name: "ancestor that leads nowhere", cs: Changes{{Path: "far/new", Node: file("N")}},
			want: "d0755 0:0 1000 no \nd0755 0:0 1000 no/where \n-0644 0:0 1000 1 no/where/new N\n",
		},
		{
			name: "names with ..", cs: Changes{{Path: "../../etc/../up", Node: file("N")}},
			want: "-0644 0:0 1000 1 up N\n",
		},
		{
			name: "ancestor that is a file", cs: Changes{{Path: "etc/motd/x", Node: file("N")}},
			want: "d0755 0:0 1000 etc/motd \n-0644 0:0 1000 1 etc/motd/x N\n",
		},
		{
			name: "missing ancestors", cs: Changes{{Path: "m/n/o", Node: file("N")}},
			want: "d0755 0:0 1000 m \nd0755 0:0 1000 m/n \n-0644 0:0 1000 1 m/n/o N\n",
		},
		{
			name: "directory over a symlink replaces it", cs: Changes{{Path: "bin", Node: &dir}, {Path: "bin/x", Node: file("X")}},
			gone: []string{"usr/bin/x"}, want: "d0700 0:0 1000 bin \n-0644 0:0 1000 1 bin/x X\n",
		},
		{
			name: "directory over a directory keeps the entries", cs: Changes{{Path: "etc", Node: &dir}},
			want: "d0700 0:0 1000 etc \n-0644 0:0 1000 1 etc/motd M\n",
		},
		{
			name: "file over a directory", cs: Changes{{Path: "usr", Node: file("U")}},
			gone: []string{"usr/bin"}, want: "-0644 0:0 1000 1 usr U\n",
		},
		{
			name: "group of the layer", cs: Changes{{Path: "g/a", Node: twin}, {Path: "g/b", Node: twin}},
			want: "-0644 0:0 1000 4 g/a twin\n-0644 0:0 1000 4 g/b twin = g/a\n",
		},
		{
			name: "replacing one name of a group leaves the other", cs: Changes{{Path: "l/a", Node: file("N")}},
			want: "-0644 0:0 1000 1 l/a N\n-0644 0:0 1000 1 l/b L\n",
		},
		{
			name: "link to lower", cs: Changes{{Path: "z", LinkTo: "etc/motd"}},
			want: "-0644 0:0 1000 1 etc/motd M\n-0644 0:0 1000 1 z M = etc/motd\n",
		},
		{
			name: "link to lower through a symlink", cs: Changes{{Path: "z", LinkTo: "bin/sh"}},
			want: "-0644 0:0 1000 1 usr/bin/sh S\n-0644 0:0 1000 1 z S = usr/bin/sh\n",
		},
		{
			name: "link to a lower group", cs: Changes{{Path: "z", LinkTo: "l/b"}},
			want: "-0644 0:0 1000 1 l/a L\n-0644 0:0 1000 1 l/b L = l/a\n-0644 0:0 1000 1 z L = l/a\n",
		},
		{
			name: "links to what the layer removes", cs: Changes{{Path: "a", LinkTo: "etc/motd"}, {Path: "b", LinkTo: "etc/motd"}, {Path: "etc/motd"}},
			gone: []string{"etc/motd"}, want: "-0644 0:0 1000 1 a M\n-0644 0:0 1000 1 b M = a\n",
		},
		{
			name: "link to what the layer replaces before", cs: Changes{{Path: "etc/motd", Node: file("NN")}, {Path: "z", LinkTo: "etc/motd"}},
			want: "-0644 0:0 1000 2 etc/motd NN\n-0644 0:0 1000 1 z M\n",
		},
		{
			name: "link over the directory of its target", cs: Changes{{Path: "l", LinkTo: "l/a"}},
			want: "-0644 0:0 1000 1 l L\n", gone: []string{"l/a"},
		},
		{
			name: "the root", cs: Changes{{Path: "", Node: &dir}},
			want: "d0700 0:0 1000 . \n-0644 0:0 1000 1 etc/motd M\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			lower := build(t, start...)
			before := show(t, lower)
			tr, err := lower.Apply(c.cs)
			must(t, err)
			checkLinks(t, tr)
			got := show(t, tr)
			for line := range strings.Lines(c.want) {
				if !strings.Contains("\n"+got, "\n"+line) {
					t.Errorf("got:\n%s\nwant a line %q", got, line)
				}
			}
			for _, p := range c.gone {
				if tr.Lookup(p) != nil {
					t.Errorf("%q: is there, want it gone", p)
				}
			}
			if diff := cmp.Diff(before, show(t, lower)); diff != "" {
				t.Errorf("the lower tree changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	lower := build(t, "d d", "f f F", "l a b", "l b a")
	n := fileNode("x")
	for name, cs := range map[string]Changes{
		"link to nothing":     {{Path: "z", LinkTo: "none"}},
		"link to a directory": {{Path: "z", LinkTo: "d"}},
		"below a circle":      {{Path: "a/x", Node: &n}},
		"whiteout in circles": {{Path: "a/x"}},
		"file as the root":    {{Path: "", Node: &n}},
	} {
		if _, err := lower.Apply(cs); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

// Every way in which two layers differ is named.
func TestCompareChanges(t *testing.T) {
	base := func() *tree.Node {
		return &tree.Node{Kind: tree.File, Mode: 0o644, Size: 3, Digest: "sha256:a", Mtime: tree.Time{Sec: 10}}
	}
	with := func(fn func(*tree.Node)) *tree.Node {
		n := base()
		fn(n)
		return n
	}
	shared := base()
	for _, tt := range []struct {
		name  string
		x, y  tree.Changes
		clamp *tree.Time
		want  string
	}{
		{"equal", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: base()}}, nil, ""},
		{"content", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: with(func(n *tree.Node) { n.Digest = "sha256:b" })}}, nil, "a: content"},
		{"size", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: with(func(n *tree.Node) { n.Size = 4 })}}, nil, "a: size 3, then 4"},
		{"mode and owner", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: with(func(n *tree.Node) { n.Mode, n.UID = 0o600, 5 })}}, nil, "a: mode 0644, then 0600+owner 0:0, then 5:0"},
		{"xattrs", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: with(func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "x"}} })}}, nil, "a: extended attributes"},
		{"time", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: with(func(n *tree.Node) { n.Mtime.Sec = 11 })}}, nil, "a: time"},
		{"time that is rewritten", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a", Node: with(func(n *tree.Node) { n.Mtime.Sec = 11 })}}, &tree.Time{Sec: 9}, ""},
		{"kind", tree.Changes{{Path: "a", Node: base()}}, tree.Changes{{Path: "a"}}, nil, "a: kind"},
		{"target", tree.Changes{{Path: "a", Node: &tree.Node{Kind: tree.Symlink, Target: "x"}}}, tree.Changes{{Path: "a", Node: &tree.Node{Kind: tree.Symlink, Target: "y"}}}, nil, `a: target "x", then "y"`},
		{"link", tree.Changes{{Path: "a", Node: shared}, {Path: "b", Node: shared}}, tree.Changes{{Path: "a", Node: base()}, {Path: "b", Node: base()}}, nil, "b: hard link"},
		{"one side", tree.Changes{{Path: "a"}, {Path: "c"}}, tree.Changes{{Path: "b"}, {Path: "c"}}, nil, "a: made the first time only; b: made the second time only"},
	} {
		var got []string
		compareChanges(tt.x, tt.y, tt.clamp, func(path string, what []string) { got = append(got, path+": "+strings.Join(what, "+")) })
		if d := cmp.Diff(tt.want, strings.Join(got, "; ")); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestCompressionCheck(t *testing.T) {
	level := func(n int) *int { return &n }
	for _, tt := range []struct {
		c    Compression
		want string // of the error
		word string
	}{
		{Compression{}, "", ""},
		{Compression{Type: "gzip"}, "", ""},
		{Compression{Type: "gzip", Level: level(0)}, "", "gzip-0"},
		{Compression{Type: "zstd", Level: level(22)}, "", "zstd-22"},
		{Compression{Type: "zstd:chunked"}, "", "zstd:chunked"},
		{Compression{Type: "xz"}, `unknown compression "xz"`, "xz"},
		{Compression{Level: level(10)}, "gzip has levels 0 to 9, not 10", "gzip-10"},
		{Compression{Type: "uncompressed", Level: level(1)}, "compression=uncompressed has no level", "uncompressed-1"},
	} {
		got := ""
		if err := tt.c.Check(); err != nil {
			got = err.Error()
		}
		if got != tt.want || tt.c.word() != tt.word {
			t.Errorf("%+v: got %q and the word %q, want %q and %q", tt.c, got, tt.c.word(), tt.want, tt.word)
		}
	}
	// Steps are compressed as all images want them.
	zstd := Output{Type: OutputOCI, Compression: Compression{Type: "zstd"}}
	for _, tt := range []struct {
		outs []Output
		want string
	}{
		{nil, ""},
		{[]Output{zstd, {Type: OutputLocal}}, "zstd"},
		{[]Output{zstd, {Type: OutputImage}}, ""},
		{[]Output{{Type: OutputImage, Compression: Compression{Type: "estargz"}}}, ""},
		{[]Output{{Type: OutputImage, Compression: Compression{Type: "zstd:chunked"}}}, "zstd:chunked"},
	} {
		c := stepCompression(tt.outs)
		if got := c.word(); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.outs, got, tt.want)
		}
	}
}

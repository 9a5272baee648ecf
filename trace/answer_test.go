package trace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// sample is a file system with one entry of every kind.
func sample(t testing.TB) tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	put := func(p string, n tree.Node) {
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	put("d", tree.Node{Kind: tree.Dir, Mode: 0o2755, UID: 3, GID: 4, Mtime: tree.Time{Sec: 7}})
	put("d/file", tree.Node{Kind: tree.File, Mode: 0o4644, UID: 1, GID: 2, Size: 5, Digest: digestA, Mtime: tree.Time{Sec: 9, Nsec: 1}})
	put("d/none", tree.Node{Kind: tree.File, Mode: 0o600})
	put("d/sparse", tree.Node{
		Kind: tree.File, Mode: 0o600, Size: 30, Digest: digestB,
		Extents: []tree.Extent{{Pack: "p", Len: 10}, {Len: 20}},
	})
	put("d/raw", tree.Node{Kind: tree.File, Mode: 0o600, Size: 9})
	put("d/link", tree.Node{Kind: tree.Symlink, Mode: 0o777, Size: 4, Target: "file"})
	put("d/null", tree.Node{Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3})
	put("d/pipe", tree.Node{Kind: tree.Fifo, Mode: 0o600})
	put("d/x", tree.Node{Kind: tree.File, Mode: 0o644, Xattrs: []tree.Xattr{{Name: "user.a", Value: "1"}}})
	put("d/h1", tree.Node{Kind: tree.File, Mode: 0o644, Size: 2, Digest: digestB})
	if err := e.Link("z", "d/h1"); err != nil {
		t.Fatal(err)
	}
	return e.Tree()
}

func TestAnswer(t *testing.T) {
	s := sample(t)
	cases := []struct {
		name, path string
		kind       Kind
		times      bool
		want       string
	}{
		{"root", "", Entry, false, "d 755 0:0"},
		{"directory", "d", Entry, false, "d 2755 3:4"},
		{"directory with its time", "d", Entry, true, "d 2755 3:4 @7.0"},
		{"file", "d/file", Entry, false, "- 4644 1:2 1 5"},
		{"file with its time", "d/file", Entry, true, "- 4644 1:2 1 5 @9.1"},
		{"file with holes", "d/sparse", Entry, false, "- 600 0:0 1 30 ~10"},
		{"symlink", "d/link", Entry, false, "l 777 0:0 1 4"},
		{"device", "d/null", Entry, false, "c 666 0:0 1 0 dev 1:3"},
		{"pipe", "d/pipe", Entry, false, "p 600 0:0 1 0"},
		{"one of two names", "z", Entry, false, "- 644 0:0 2 2 =d/h1"},
		{"missing", "d/gone", Entry, false, "absent"},
		{"below a file", "d/file/x", Entry, false, "absent"},
		{"through a symlink", "d/link/x", Entry, false, "absent"},
		{"content", "d/file", Content, false, digestA},
		{"content with holes", "d/sparse", Content, false, digestB + " ~1 " + hexOf(0, 10)},
		{"content of no bytes", "d/none", Content, false, empty},
		{"content through a hard link", "z", Content, false, digestB},
		{"content of a directory", "d", Content, false, "kind d"},
		{"content of what is missing", "no", Content, false, "absent"},
		{"target", "d/link", Link, false, "-> file"},
		{"target of a file", "d/file", Link, false, "kind -"},
		{"list of a file", "d/file", List, false, "kind -"},
		{"list of an empty directory", "no", List, false, "absent"},
		{"time", "d/file", Time, false, "@9.1"},
		{"no attributes", "d/file", Xattr, false, "0 -"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Answer(s, Question{Path: c.path, Kind: c.kind}, AnswerOptions{Times: c.times})
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// What lists, names and attributes hold is in their answers, each alone.
func TestDigestsOfAnswers(t *testing.T) {
	s := sample(t)
	put := func(p string, n tree.Node) func(e *tree.Editor) error {
		return func(e *tree.Editor) error { return e.Put(p, n) }
	}
	dir := tree.Node{Kind: tree.Dir, Mode: 0o755}
	cases := []struct {
		name string
		q    Question
		edit func(e *tree.Editor) error
		same bool
	}{
		{"a name more", Question{Path: "d", Kind: List}, put("d/new", dir), false},
		{"a name less", Question{Path: "d", Kind: List}, func(e *tree.Editor) error { return e.Remove("d/pipe") }, false},
		{"another kind", Question{Path: "d", Kind: List}, put("d/pipe", dir), false},
		{"another inode number", Question{Path: "d", Kind: List}, func(e *tree.Editor) error { return e.Link("a", "d/h1") }, false},
		{"a mode in the list", Question{Path: "d", Kind: List}, put("d/pipe", tree.Node{Kind: tree.Fifo, Mode: 0o777}), true},
		{"deeper", Question{Path: "", Kind: List}, put("d/new", dir), true},
		{"a third name", Question{Path: "z", Kind: Names}, func(e *tree.Editor) error { return e.Link("y", "z") }, false},
		{"another second name", Question{Path: "d/h1", Kind: Names}, func(e *tree.Editor) error {
			return errors.Join(e.Remove("z"), e.Link("y", "d/h1"))
		}, false},
		{"a value", Question{Path: "d/x", Kind: Xattr}, put("d/x", tree.Node{Kind: tree.File, Mode: 0o644, Xattrs: []tree.Xattr{{Name: "user.a", Value: "2"}}}), false},
		{"a mode and no attribute", Question{Path: "d/x", Kind: Xattr}, put("d/x", tree.Node{Kind: tree.File, Xattrs: []tree.Xattr{{Name: "user.a", Value: "1"}}}), true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := s.Edit()
			if err := c.edit(e); err != nil {
				t.Fatal(err)
			}
			before, err := Answer(s, c.q, AnswerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			after, err := Answer(e.Tree(), c.q, AnswerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if (before == after) != c.same {
				t.Errorf("before %q, after %q; want equal %v", before, after, c.same)
			}
		})
	}
}

// A digest that is not known is asked of the caller, and doubt without one (LAWS 10).
func TestUnknownDigest(t *testing.T) {
	s, q := sample(t), Question{Path: "d/raw", Kind: Content}
	if got, err := Answer(s, q, AnswerOptions{}); err == nil {
		t.Errorf("answered %q without a digest", got)
	}
	o := AnswerOptions{Digest: func(*tree.Node) (tree.Digest, error) { return digestB, nil }}
	if got, err := Answer(s, q, o); err != nil || got != digestB {
		t.Errorf("got %q, %v; want %q", got, err, digestB)
	}
	broken := errors.New("pack is gone")
	o.Digest = func(*tree.Node) (tree.Digest, error) { return "", broken }
	if _, err := Answer(s, q, o); !errors.Is(err, broken) || !strings.Contains(err.Error(), "d/raw") {
		t.Errorf("got %v, want %v about d/raw", err, broken)
	}
}

// hexOf is the digest of numbers.
func hexOf(numbers ...uint64) string {
	d := digester{sha256.New()}
	for _, v := range numbers {
		d.num(v)
	}
	return hex.EncodeToString(d.h.Sum(nil))
}

// TestHoles: data that lies in several places of packs is one run.
func TestHoles(t *testing.T) {
	n := &tree.Node{Kind: tree.File, Size: 40, Extents: []tree.Extent{{Len: 10}, {Pack: "a", Len: 5}, {Pack: "b", Off: 7, Len: 5}, {Len: 3}, {Len: 7}, {Pack: "a", Len: 10}}}
	if got, want := string(appendHoles(nil, n)), "2 "+hexOf(10, 20, 30, 40); got != want {
		t.Errorf("holes: got %s, want %s", got, want)
	}
}

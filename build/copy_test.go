package build

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/tree"
)

// plant makes a tree: a path that ends in "/" is a directory, "a -> b" a
// symlink, "a = b" a hard link, anything else a file that holds its own path.
func plant(t *testing.T, entries ...string) tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	for _, s := range entries {
		var err error
		if name, target, ok := strings.Cut(s, " -> "); ok {
			err = e.Put(name, tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target, Size: int64(len(target))})
		} else if name, target, ok := strings.Cut(s, " = "); ok {
			err = e.Link(name, target)
		} else if name, ok := strings.CutSuffix(s, "/"); ok {
			err = e.Put(name, tree.Node{Kind: tree.Dir, Mode: 0o700, Mtime: tree.Time{Sec: 5}})
		} else {
			err = e.Put(s, tree.Node{Kind: tree.File, Mode: 0o640, UID: 3, GID: 4, Size: 1, Digest: tree.Digest("sha256:" + s), Mtime: tree.Time{Sec: 7, Nsec: 9}})
		}
		if err != nil {
			t.Fatalf("plant %q: %v", s, err)
		}
	}
	return e.Tree()
}

// list names every entry, with where a file's content came from.
func list(t *testing.T, tr tree.Tree) []string {
	t.Helper()
	var out []string
	err := tr.Walk(func(p string, n *tree.Node) error {
		switch n.Kind {
		case tree.Dir:
			out = append(out, p+"/")
		case tree.Symlink:
			out = append(out, p+" -> "+n.Target)
		default:
			out = append(out, p+" "+strings.TrimPrefix(string(n.Digest), "sha256:"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out[1:]
}

func doCopy(t *testing.T, src, dst tree.Tree, target string, sources ...string) (tree.Tree, error) {
	t.Helper()
	return doTransfer(src, dst, dockerfile.Transfer{Sources: sources, Target: target})
}

// doTransfer picks and copies as a COPY does. Nothing is read.
func doTransfer(src, dst tree.Tree, tr dockerfile.Transfer) (tree.Tree, error) {
	run := &copyRun{tr: &tr}
	for _, s := range tr.Sources {
		if err := run.pickPaths(&origin{tree: src}, s); err != nil {
			return tree.Tree{}, err
		}
	}
	e := dst.Edit()
	c := newCopier(e, copySpec{Target: tr.Target, DirMode: 0o755, Now: tree.Time{Sec: 100}})
	for _, p := range run.picks {
		if err := c.copy(p.from.tree, p.match); err != nil {
			return tree.Tree{}, err
		}
	}
	return e.Tree(), nil
}

func TestCopy(t *testing.T) {
	tests := []struct {
		name    string
		src     []string
		dst     []string
		target  string
		sources []string
		want    []string
	}{
		{"a file to a name", []string{"a"}, nil, "/x", []string{"a"}, []string{"x a"}},
		{"a file into a directory that the slash makes", []string{"a"}, nil, "/d/", []string{"a"}, []string{"d/", "d/a a"}},
		{"a file into a directory that exists", []string{"a"}, []string{"d/"}, "/d", []string{"a"}, []string{"d/", "d/a a"}},
		{"the entries of a directory, not itself", []string{"s/", "s/a", "s/b/", "s/b/c"}, nil, "/d", []string{"s"}, []string{"d/", "d/a s/a", "d/b/", "d/b/c s/b/c"}},
		{"the whole source", []string{"a", "b/", "b/c"}, []string{"old"}, "/", []string{"."}, []string{"a a", "b/", "b/c b/c", "old old"}},
		{"a wildcard", []string{"a.go", "b.go", "c.md"}, nil, "/d/", []string{"*.go"}, []string{"d/", "d/a.go a.go", "d/b.go b.go"}},
		{"a wildcard does not cross a slash", []string{"s/", "s/a.go"}, []string{"d/"}, "/d/", []string{"*.go"}, []string{"d/"}},
		{"a wildcard in the middle", []string{"x/", "x/p.json", "y/", "y/p.json"}, nil, "/d/", []string{"*/p.json"}, []string{"d/", "d/p.json y/p.json"}},
		{"a symlink named as source is followed", []string{"real", "l -> real"}, nil, "/x", []string{"l"}, []string{"x real"}},
		{"and keeps its name in a directory", []string{"real", "l -> real"}, nil, "/d/", []string{"l"}, []string{"d/", "d/l real"}},
		{"a symlink below a source is copied as it is", []string{"s/", "s/l -> ../../etc"}, nil, "/d", []string{"s"}, []string{"d/", "d/l -> ../../etc"}},
		{"a symlink cannot leave the source", []string{"etc/", "etc/passwd", "l -> ../../../etc/passwd"}, nil, "/x", []string{"l"}, []string{"x etc/passwd"}},
		{".. stops at the root", []string{"a"}, nil, "/x", []string{"../../a"}, []string{"x a"}},
		{"a target behind a symlink", []string{"a"}, []string{"real/", "d -> /real"}, "/d/", []string{"a"}, []string{"d -> /real", "real/", "real/a a"}},
		{"a dangling target symlink is the place to write", []string{"a"}, []string{"d -> new/place"}, "/d", []string{"a"}, []string{"d -> new/place", "new/", "new/place a"}},
		{"a directory merges", []string{"s/", "s/b"}, []string{"d/", "d/a"}, "/d", []string{"s"}, []string{"d/", "d/a d/a", "d/b s/b"}},
		{"a file replaces a file and a symlink", []string{"s/", "s/a", "s/b"}, []string{"d/", "d/a", "d/b -> a"}, "/d", []string{"s"}, []string{"d/", "d/a s/a", "d/b s/b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := doCopy(t, plant(t, tt.src...), plant(t, tt.dst...), tt.target, tt.sources...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, list(t, got)); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestCopyRefuses(t *testing.T) {
	tests := []struct {
		name, want string
		src, dst   []string
		target     string
		source     string
	}{
		{"a missing source", `"/nope": not found`, []string{"a"}, nil, "/x", "nope"},
		{"a missing directory before a wildcard", `"/d/nope": not found`, []string{"d/", "d/a"}, nil, "/x", "d/nope/*"},
		{"a directory over a file", "non-directory", []string{"s/", "s/a"}, []string{"f"}, "/f", "s"},
		{"a nested directory over a file", "non-directory", []string{"s/", "s/f/"}, []string{"f"}, "/", "s"},
		{"a file over a directory", "cannot overwrite directory", []string{"s/", "s/d"}, []string{"d/"}, "/", "s"},
		{"symlinks in a circle", "too many levels", []string{"a -> b", "b -> a"}, nil, "/x", "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := doCopy(t, plant(t, tt.src...), plant(t, tt.dst...), tt.target, tt.source)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := matchSource(plant(t), "nope"); !errors.Is(err, ErrNoSource) {
		t.Errorf("got %v, want ErrNoSource", err)
	}
	if ms, err := matchSource(plant(t), "nope*"); err != nil || len(ms) != 0 {
		t.Errorf("a pattern that matches nothing: got %v, %v, want nothing and no error", ms, err)
	}
}

// Attributes: what is copied keeps its own, what comes into being is 0755 and
// the copy's, what was there stays, and times are whole seconds (LAWS 13).
func TestCopyAttributes(t *testing.T) {
	src := plant(t, "s/", "s/f", "s/g", "s/h = s/g")
	dst := plant(t, "there/")
	e := dst.Edit()
	c := newCopier(e, copySpec{
		Target: "/there/new/deep", Owner: &owner{10, 20}, DirMode: 0o755, Now: tree.Time{Sec: 100},
		Mode: func(_ uint32, dir bool) uint32 {
			if dir {
				return 0o711
			}
			return 0o600
		},
	})
	if err := c.copy(src, match{Path: "s", Name: "s"}); err != nil {
		t.Fatal(err)
	}
	got := e.Tree()
	for _, w := range []struct {
		path string
		mode uint32
		uid  uint32
		sec  int64
	}{
		{"there", 0o700, 0, 100},         // a name came into being in it
		{"there/new", 0o755, 10, 100},    // made on the way
		{"there/new/deep", 0o755, 10, 5}, // the top directory is not the source's, but for its time
		{"there/new/deep/f", 0o600, 10, 7},
	} {
		n := got.Lookup(w.path)
		if n == nil {
			t.Fatalf("%s is missing", w.path)
		}
		if n.Mode != w.mode || n.UID != w.uid || n.Mtime.Sec != w.sec || n.Mtime.Nsec != 0 {
			t.Errorf("%s: got %o %d %v, want %o %d %d s", w.path, n.Mode, n.UID, n.Mtime, w.mode, w.uid, w.sec)
		}
	}
	if g, h := got.Lookup("there/new/deep/g"), got.Lookup("there/new/deep/h"); g == nil || g != h {
		t.Errorf("hard links were broken: %p and %p", g, h)
	}
}

func TestUnpack(t *testing.T) {
	f := &tree.Node{Kind: tree.File, Mode: 0o644, UID: 7, Digest: "sha256:x"}
	cs := tree.Changes{
		{Path: "", Node: &tree.Node{Kind: tree.Dir, Mode: 0o700}},
		{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o750}},
		{Path: "d/a", Node: f},
		{Path: "d/b", Node: f},
	}
	e := plant(t, "l -> /opt").Edit()
	c := newCopier(e, copySpec{Target: "/l/x/", DirMode: 0o755, Now: tree.Time{Sec: 100}})
	if err := c.unpack(cs); err != nil {
		t.Fatal(err)
	}
	got := e.Tree()
	if d := cmp.Diff([]string{"l -> /opt", "opt/", "opt/x/", "opt/x/d/", "opt/x/d/a x", "opt/x/d/b x"}, list(t, got)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	a, b := got.Lookup("opt/x/d/a"), got.Lookup("opt/x/d/b")
	if a != b || a.UID != 7 {
		t.Errorf("archive entries: linked %v, uid %d; want true, 7", a == b, a.UID)
	}
	if n := got.Lookup("opt/x"); n.Mode != 0o755 {
		t.Errorf("target made with mode %o, want 755 whatever the archive's root has", n.Mode)
	}
}

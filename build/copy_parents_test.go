package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/tree"
)

// What BuildKit's own tests of --parents have as source.
var parentsSource = []string{
	"test/", "test/a/",
	"test/a/b/", "test/a/b/c/", "test/a/b/c/d/", "test/a/b/c/d/foo", "test/a/b/c/d/e/", "test/a/b/c/d/e/bay",
	"test/a/b2/", "test/a/b2/c/", "test/a/b2/c/d/", "test/a/b2/c/d/e/", "test/a/b2/c/d/e/bar",
	"test/a/b/c2/", "test/a/b/c2/d/", "test/a/b/c2/d/e/", "test/a/b/c2/d/e/baz", "test/a/b/c2/d/e2/", "test/a/b/c2/d/e2/baz",
	"test/file", "test/a/file",
}

func TestCopyParents(t *testing.T) {
	dirs := func(p string) (out []string) {
		for i, c := range p {
			if c == '/' {
				out = append(out, p[:i+1])
			}
		}
		return out
	}
	tests := []struct {
		name    string
		sources []string
		want    []string // below /out; files, and directories that are empty
	}{
		{"a directory", []string{"/test/a/b/c/d"}, []string{"test/a/b/c/d/e/bay", "test/a/b/c/d/foo"}},
		{"a dot at the end", []string{"/test/a/b/c/d/."}, []string{"test/a/b/c/d/e/bay", "test/a/b/c/d/foo"}},
		{"a dot at the start", []string{"./test/a/b/c/d"}, []string{"test/a/b/c/d/e/bay", "test/a/b/c/d/foo"}},
		{"a file", []string{"test/a/b/c/d/foo"}, []string{"test/a/b/c/d/foo"}},
		{"a pivot", []string{"/test/a/b/./c/d"}, []string{"c/d/e/bay", "c/d/foo"}},
		{"the first of two pivots", []string{"/test/a/./b/./c"}, []string{"b/c/d/e/bay", "b/c/d/foo"}},
		{"a pivot at the root", []string{"/./test/file"}, []string{"test/file"}},
		{"a wildcard", []string{"/test/a/./*/c"}, []string{"b/c/d/e/bay", "b/c/d/foo", "b2/c/d/e/bar"}},
		{"a wildcard before the pivot", []string{"/test/a/b*/./c/**/e"}, []string{"c/d/e/bar", "c/d/e/bay"}},
		{"several", []string{"/test/a/b/c*/./d/**/baz", "/test/a/b*/./c/**/bar"}, []string{"c/d/e/bar", "d/e/baz", "d/e2/baz"}},
		{"any depth", []string{"test/**/ba?"}, []string{"test/a/b/c/d/e/bay", "test/a/b/c2/d/e/baz", "test/a/b/c2/d/e2/baz", "test/a/b2/c/d/e/bar"}},
		{"any depth, none too", []string{"test/**/file"}, []string{"test/a/file", "test/file"}},
		{"a pattern of nothing", []string{"/test/a/b2*/./x*"}, nil},
		{"everything", []string{"test/./"}, []string{
			"a/b/c/d/e/bay", "a/b/c/d/foo", "a/b/c2/d/e/baz", "a/b/c2/d/e2/baz", "a/b2/c/d/e/bar", "a/file", "file",
		}},
		{"files that stand where the pivot's directory does", []string{"/test/*/./file"}, []string{"file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := doTransfer(plant(t, parentsSource...), tree.Empty(), dockerfile.Transfer{Sources: tt.sources, Target: "/out", Parents: true})
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, w := range append([]string{""}, tt.want...) {
				for _, d := range dirs("out/" + w) {
					seen[d] = true
				}
			}
			var files []string
			for _, line := range list(t, got) {
				if p, ok := strings.CutSuffix(line, "/"); ok {
					if !seen[p+"/"] {
						t.Errorf("directory %s: nothing in it was asked for", p)
					}
					continue
				}
				p, _, _ := strings.Cut(line, " ")
				files = append(files, strings.TrimPrefix(p, "out/"))
			}
			if len(tt.want) == 0 && len(files) == 0 {
				return
			}
			if d := cmp.Diff(tt.want, files); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestCopyParentsMissing(t *testing.T) {
	src := plant(t, append([]string{"test/l -> a"}, parentsSource...)...)
	for _, s := range []string{"/test/nonexistent", "test/a/./nope", "nope/./x", "test/file/./x", "test/l/b"} {
		_, err := doTransfer(src, tree.Empty(), dockerfile.Transfer{Sources: []string{s}, Target: "/out", Parents: true})
		if !errors.Is(err, ErrNoSource) {
			t.Errorf("%s: got %v, want ErrNoSource", s, err)
		}
	}
	// The directory before the pivot may be reached through a symlink.
	if _, err := doTransfer(src, tree.Empty(), dockerfile.Transfer{Sources: []string{"test/l/./b"}, Target: "/out", Parents: true}); err != nil {
		t.Errorf("a symlink before the pivot: %v", err)
	}
}

// A directory that is copied only for what is below it comes with its attributes
// where it is new; one that is there keeps its owner, and takes the mode.
func TestCopyParentsAttributes(t *testing.T) {
	src := plant(t, "a/", "a/b/", "a/b/f", "whole/", "whole/f")
	e := tree.Empty().Edit()
	for _, p := range []string{"out", "out/a", "out/whole"} {
		if err := e.Put(p, tree.Node{Kind: tree.Dir, Mode: 0o755, UID: 9, GID: 9}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := doTransfer(src, e.Tree(), dockerfile.Transfer{Sources: []string{"a/b/f", "whole"}, Target: "/out", Parents: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		path string
		mode uint32
		uid  uint32
	}{{"out", 0o755, 9}, {"out/a", 0o700, 9}, {"out/a/b", 0o700, 0}, {"out/whole", 0o700, 0}, {"out/a/b/f", 0o640, 3}} {
		if n := got.Lookup(w.path); n == nil || n.Mode != w.mode || n.UID != w.uid {
			t.Errorf("%s: got %+v, want mode %o, uid %d", w.path, n, w.mode, w.uid)
		}
	}
}

// A directory for itself and one for what is below it give the same names and
// contents, but not the same attributes to a directory that is there.
func TestCopyParentsKeyTellsImplied(t *testing.T) {
	w := newWorld(t)
	w.write("a/f", "f")
	if err := os.Chtimes(filepath.Join(w.dir, "a"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	base := "FROM scratch\nCOPY --chown=9:9 --parents a /x/\n"
	implied := w.must(base + "COPY --parents a/f /x/\n")
	whole := w.must(base + "COPY --parents a /x/\n")
	for _, tt := range []struct {
		name string
		res  *Result
		uid  uint32
	}{{"implied", implied, 9}, {"whole", whole, 0}} {
		if got, _ := w.image(tt.res); got.Lookup("x/a").UID != tt.uid {
			t.Errorf("%s: got owner %d of the directory, want %d", tt.name, got.Lookup("x/a").UID, tt.uid)
		}
	}
}

// What BuildKit's own test of --exclude has as source.
var excludeSource = []string{
	"dir1/", "dir1/file-101.png", "dir1/file-102.txt", "dir1/file-103.jpeg",
	"dir2/", "dir2/file-201.pdf", "dir2/file-202.jpeg", "dir2/file-203.png",
	"dir3/", "dir3/file-301.mp3", "dir3/file-302.mpeg",
	"dir4/", "dir4/file-401.txt", "dir4/file-402.txt -> file-401.txt", "dir4/file-403.txt -> file-404.txt",
	"home.txt", "home.md", "home.go", "deep/", "deep/x/", "deep/x/y.txt", "deep/x/y.go",
}

func TestCopyExclude(t *testing.T) {
	tests := []struct {
		name    string
		source  string
		exclude []string
		parents bool
		want    []string
	}{
		{"images", "dir1", []string{"*.png", "*.jpeg"}, false, []string{"file-102.txt"}},
		{"two levels", ".", []string{"*/*.png", "*/*.jpeg", "*/*.p*", "*/*.mp*", "deep", "home*"}, false, []string{
			"dir1/", "dir1/file-102.txt", "dir2/", "dir3/", "dir4/", "dir4/file-401.txt", "dir4/file-402.txt", "dir4/file-403.txt",
		}},
		{"relative to each match of a wildcard", "dir*", []string{"*.mp3", "*.jpeg", "*.png", "*.pdf", "*.txt"}, false, []string{"file-302.mpeg"}},
		{"everything leaves the directory", "dir*", []string{"*"}, false, nil},
		{"files by name", "home*", []string{"*.txt", "*.md"}, false, []string{"home.go"}},
		{"one level only", "deep", []string{"*.txt"}, false, []string{"x/", "x/y.go", "x/y.txt"}},
		{"any level", "deep", []string{"**/*.txt"}, false, []string{"x/", "x/y.go"}},
		{"a directory", "deep", []string{"x"}, false, nil},
		{"with an exception", "deep", []string{"x", "!x/y.go"}, false, []string{"x/", "x/y.go"}},
		{"an exception that matches nothing", "deep", []string{"x", "!z"}, false, nil},
		{"with parents: from the root", "deep/x", []string{"deep/x/y.txt"}, true, []string{"deep/", "deep/x/", "deep/x/y.go"}},
		{"with parents: from the pivot", "deep/./x", []string{"x/y.txt"}, true, []string{"x/", "x/y.go"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := dockerfile.Transfer{Sources: []string{tt.source}, Target: "/out/", Exclude: tt.exclude, Parents: tt.parents}
			got, err := doTransfer(plant(t, excludeSource...), tree.Empty(), tr)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, line := range list(t, got) {
				if p, _, _ := strings.Cut(line, " "); p != "out/" {
					names = append(names, strings.TrimPrefix(p, "out/"))
				}
			}
			if d := cmp.Diff(tt.want, names); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if got.Lookup("out") == nil {
				t.Error("the target was not made")
			}
		})
	}
}

// Links to names that a filter left out are no links any more.
func TestCopyExcludeBreaksLinks(t *testing.T) {
	got, err := doTransfer(plant(t, "s/", "s/a", "s/b = s/a", "s/c = s/a"), tree.Empty(),
		dockerfile.Transfer{Sources: []string{"s"}, Target: "/", Exclude: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if b, c := got.Lookup("b"), got.Lookup("c"); b == nil || b != c || len(b.Links()) != 2 || got.Lookup("a") != nil {
		t.Errorf("got b %+v, c %+v; want one file with two names", b, c)
	}
}

// What is left out is no part of the key, and is not even read; the patterns are.
func TestExcludedFileIsNotInTheKey(t *testing.T) {
	w := newWorld(t)
	w.write("src/main.go", "main")
	w.write("src/notes.md", "one")
	w.write("src/deep/notes.md", "one")
	text := "FROM scratch\nCOPY --exclude=**/*.md src /app\nCOPY --parents --exclude=**/notes.md ./src/**/*.* /p/\nADD --exclude=**/*.md src /add\n"
	first := w.must(text)
	w.write("src/notes.md", "two")
	w.write("src/deep/notes.md", "three")
	w.write("src/deep/more.md", "new")
	if again := w.must(strings.Replace(text, "**/notes.md", "**/*.md", 1)); w.cached() != 1 {
		t.Errorf("another pattern: %d steps cached, want 1\n%s", w.cached(), w.out.String())
	} else if again.ImageID == first.ImageID {
		t.Error("another history gave the same image")
	}
	w.must("FROM scratch\nCOPY --exclude=**/*.md src /app\n")
	if w.cached() != 1 {
		t.Errorf("a change in an excluded file: got %d steps cached, want 1\n%s", w.cached(), w.out.String())
	}
	w.write("src/main.go", "other")
	w.must("FROM scratch\nCOPY --exclude=**/*.md src /app\n")
	if w.cached() != 0 {
		t.Errorf("a change in a file that is copied: got %d steps cached, want 0", w.cached())
	}
}

package buildctx

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

func TestSources(t *testing.T) {
	outside := write(t, t.TempDir(), map[string]string{"secret": "s", "d/secret": "s"})
	dir := write(t, t.TempDir(), map[string]string{
		"package.json":      "{}",
		"package-lock.json": "{}",
		"a/b/c.txt":         "c",
		"a/b/d.md":          "d",
		"a/x.txt":           "x",
		"z/b/e.txt":         "e",
		"empty/":            "",
		"trap/.wh.x":        "never look here",
		`odd/a\b`:           "backslash",
		"odd/ab":            "plain",
		"odd/[1]":           "bracket",
		"l/file":            "->../a/x.txt",
		"l/dir":             "->/a/b",
		"l/up":              "->../../../../a/x.txt",
		"l/out":             "->" + outside + "/secret",
		"l/outdir":          "->" + outside + "/d",
		"l/loop":            "->loop",
		"l/chain":           "->dir/./../b/../../l/file",
		"l/star":            "->../a/*",
	})
	tests := []struct {
		name    string
		sources []string
		want    []string
	}{
		{"one file, nothing else is looked at", []string{"package.json"}, []string{"package.json"}},
		{"missing", []string{"nope", "a/nope", "package.json/x"}, []string{"a/", "package.json"}},
		{"a directory", []string{"a/"}, []string{"a/", "a/b/", "a/b/c.txt", "a/b/d.md", "a/x.txt"}},
		{"an empty directory", []string{"empty"}, []string{"empty/"}},
		{"dots and slashes", []string{"/./a//b/../b/c.txt"}, []string{"a/", "a/b/", "a/b/c.txt"}},
		{"above the root", []string{"../../a/x.txt"}, []string{"a/", "a/x.txt"}},
		{"a pattern", []string{"package*.json"}, []string{"package-lock.json", "package.json"}},
		{"a pattern prunes", []string{"*/b/*.txt"}, []string{"a/", "a/b/", "a/b/c.txt", "empty/", "l/", "odd/", "trap/", "z/", "z/b/", "z/b/e.txt"}},
		{"a pattern of one character", []string{"?/x.txt"}, []string{"a/", "a/x.txt", "l/", "z/"}},
		{"nested sources", []string{"a", "a/b", "a/b/c.txt"}, []string{"a/", "a/b/", "a/b/c.txt", "a/b/d.md", "a/x.txt"}},
		{"a name with a backslash", []string{`odd/a\b`}, []string{"odd/", `odd/a\b`, "odd/ab"}},
		{"an escaped pattern", []string{"odd/[[]1]"}, []string{"odd/", "odd/[1]"}},
		{"a symlink as source", []string{"l/file"}, []string{"a/", "a/x.txt", "l/", "l/file->../a/x.txt"}},
		{"a symlinked parent", []string{"l/dir/c.txt"}, []string{"a/", "a/b/", "a/b/c.txt", "l/", "l/dir->/a/b"}},
		{"a symlink to a directory", []string{"l/dir"}, []string{"a/", "a/b/", "a/b/c.txt", "a/b/d.md", "l/", "l/dir->/a/b"}},
		{"a symlink above the root", []string{"l/up"}, []string{"a/", "a/x.txt", "l/", "l/up->../../../../a/x.txt"}},
		{"a symlink out of the root", []string{"l/out", "l/outdir/secret"}, []string{"l/", "l/out->" + outside + "/secret", "l/outdir->" + outside + "/d"}},
		{"a loop", []string{"l/loop", "l/loop/x"}, []string{"l/", "l/loop->loop"}},
		{"a chain", []string{"l/chain"}, []string{"a/", "a/b/", "a/x.txt", "l/", "l/chain->dir/./../b/../../l/file", "l/dir->/a/b", "l/file->../a/x.txt"}},
		{"a matched symlink is followed", []string{"l/fi*"}, []string{"a/", "a/x.txt", "l/", "l/file->../a/x.txt"}},
		{"a link target is no pattern", []string{"l/star"}, []string{"a/", "l/", "l/star->../a/*"}},
		{"no sources", nil, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := names(scanTree(t, open(t, dir, Options{}), tt.sources...))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Tree(%q) (-want +got):\n%s", tt.sources, diff)
			}
		})
	}
	if _, err := open(t, dir, Options{}).Tree(t.Context(), []string{"["}); err == nil || !strings.Contains(err.Error(), "syntax error in pattern") {
		t.Errorf("bad pattern: got %v, want a syntax error", err)
	}
}

func TestAttributes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "hello", "d/g": "", "l": "->f"})
	when := time.Unix(1_700_000_000, 123_456_789)
	for name, mode := range map[string]os.FileMode{"f": 0o755 | os.ModeSetuid, "d": 0o700 | os.ModeSticky} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := scanTree(t, open(t, dir, Options{}), ".")
	f, d, l, hard := tr.Lookup("f"), tr.Lookup("d"), tr.Lookup("l"), tr.Lookup("hard")
	type attrs struct {
		Kind     tree.Kind
		Mode     uint32
		UID, GID uint32
		Size     int64
		Mtime    tree.Time
	}
	of := func(n *tree.Node) attrs { return attrs{n.Kind, n.Mode, n.UID, n.GID, n.Size, n.Mtime} }
	for _, tt := range []struct {
		name string
		node *tree.Node
		want attrs
	}{
		{"file", f, attrs{tree.File, 0o4755, 0, 0, 5, tree.TimeOf(when)}},
		{"directory", d, attrs{tree.Dir, 0o1700, 0, 0, 0, tree.TimeOf(when)}},
		{"symlink", l, attrs{tree.Symlink, 0o777, 0, 0, 1, l.Mtime}},
		{"fifo", tr.Lookup("pipe"), attrs{tree.Fifo, 0o600, 0, 0, 0, tr.Lookup("pipe").Mtime}},
	} {
		if diff := cmp.Diff(tt.want, of(tt.node)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	if hard == f || hard.Nlink() != 1 {
		t.Errorf("hard link: got a group of %d, want files of their own", hard.Nlink())
	}
	if got := tr.Root().Mode; got == 0 {
		t.Errorf("mode of the root: got %o, want that of the directory", got)
	}
}

// LAWS 24: names and attributes of trouble are refused or left out, with a word.
func TestNamesOfTrouble(t *testing.T) {
	t.Run("whiteout name", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"d/.wh.x": ""})
		_, err := open(t, dir, Options{}).Tree(t.Context(), []string{"."})
		var pe *PathError
		if !errors.As(err, &pe) || pe.Path != "d/.wh.x" || !strings.Contains(pe.Hint, ".dockerignore") {
			t.Errorf("Tree: got %v, want a refusal of d/.wh.x with a hint", err)
		}
		if got := names(scanTree(t, open(t, dir, Options{Ignore: []byte("**/.wh.*")}), ".")); !slices.Equal(got, []string{"d/"}) {
			t.Errorf("ignored: got %q, want d/ alone", got)
		}
	})
	t.Run("socket", func(t *testing.T) {
		dir := t.TempDir()
		l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := open(t, dir, Options{})
		if got := names(scanTree(t, c, ".")); len(got) != 0 {
			t.Errorf("entries: got %q, want none", got)
		}
		want := []string{`socket "sock" of the build context is left out: an image cannot hold it`}
		scanTree(t, c, "sock") // the same note once
		if diff := cmp.Diff(want, c.Notes()); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
		for i := range maxNotes + 2 {
			c.note("note %d", i)
		}
		if got := c.Notes(); len(got) != maxNotes || got[maxNotes-1] != "3 more remarks of this kind" {
			t.Errorf("notes: got %d, the last %q, want %d and a count of the rest", len(got), got[len(got)-1], maxNotes)
		}
	})
	t.Run("device", func(t *testing.T) {
		_, err := open(t, "/dev", Options{}).Tree(t.Context(), []string{"null"})
		var pe *PathError
		if !errors.As(err, &pe) || err.Error() != `scan "null" in build context: it is a device` || pe.Hint == "" {
			t.Errorf("Tree: got %v, want a refusal of the device with a hint", err)
		}
	})
	t.Run("bytes that are no UTF-8", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"\xff\xfe": "x"})
		if got := names(scanTree(t, open(t, dir, Options{Ignore: []byte("nothing")}), ".")); !slices.Equal(got, []string{"\xff\xfe"}) {
			t.Errorf("entries: got %q", got)
		}
	})
	t.Run("extended attributes", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"f": "x", "d/": ""})
		for _, name := range []string{"f", "d"} {
			for _, key := range []string{"user.b", "user.a", "user.overlay.opaque"} {
				if err := unix.Setxattr(filepath.Join(dir, name), key, []byte("v\x00"+key), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		c := open(t, dir, Options{})
		tr := scanTree(t, c, ".")
		want := []tree.Xattr{{Name: "user.a", Value: "v\x00user.a"}, {Name: "user.b", Value: "v\x00user.b"}}
		for _, name := range []string{"f", "d"} {
			if diff := cmp.Diff(want, tr.Lookup(name).Xattrs); diff != "" {
				t.Errorf("attributes of %s (-want +got):\n%s", name, diff)
			}
		}
		notes := strings.Join(c.Notes(), "\n")
		for _, name := range []string{`"f"`, `"d"`} {
			if !strings.Contains(notes, "user.overlay.opaque of "+name) {
				t.Errorf("notes: got %q, want one about %s", notes, name)
			}
		}
	})
}

const (
	capabilityTwo   = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	capabilityThree = "\x01\x00\x00\x03" + "\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x01\x00"
)

// LAWS 26: file capabilities in a tree are version 2.
func TestCapabilityVersions(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"version 3":      {capabilityThree, capabilityTwo},
		"version 2":      {capabilityTwo, capabilityTwo},
		"something":      {"abc", "abc"},
		"24 other bytes": {strings.Repeat("x", 24), strings.Repeat("x", 24)},
	} {
		if got := string(capabilityV2([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// LAWS 26, from a disk.
func TestFileCapabilities(t *testing.T) {
	testenv.NeedRoot(t)
	dir := write(t, t.TempDir(), map[string]string{"f": "x", "g": "x"})
	for name, value := range map[string]string{"f": capabilityTwo, "g": capabilityThree} {
		if err := unix.Setxattr(filepath.Join(dir, name), "security.capability", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	tr := scanTree(t, open(t, dir, Options{}), ".")
	for _, name := range []string{"f", "g"} {
		if diff := cmp.Diff([]tree.Xattr{{Name: "security.capability", Value: capabilityTwo}}, tr.Lookup(name).Xattrs); diff != "" {
			t.Errorf("attributes of %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"f": "x"})
	for _, p := range []string{filepath.Join(dir, "f"), filepath.Join(dir, "nope")} {
		if _, err := Open(p, Options{}); err == nil || !strings.HasPrefix(err.Error(), "open build context ") {
			t.Errorf("Open(%q): got %v, want an error", p, err)
		}
	}
}

// Both ways of opening refuse every symlink and find the same files.
func TestOpenBeneath(t *testing.T) {
	outside := write(t, t.TempDir(), map[string]string{"f": "x"})
	dir := write(t, t.TempDir(), map[string]string{"a/b/f": "x", "l": "->a", "a/out": "->" + outside, "a/b/l": "->f"})
	root := open(t, dir, Options{}).root
	for name, open := range map[string]func(*os.File, string, int) (*os.File, error){"openat2": openBeneath, "steps": openSteps} {
		for p, want := range map[string]error{
			"a/b/f": nil, "a": nil, "l/b/f": unix.ENOTDIR, "a/out/f": unix.ENOTDIR, "a/b/l": unix.ELOOP, "a/x": unix.ENOENT, "a/b/f/g": unix.ENOTDIR,
		} {
			f, err := open(root, p, unix.O_RDONLY)
			if f != nil {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			if errors.Is(want, unix.ENOTDIR) && errors.Is(err, unix.ELOOP) {
				continue // openat2's word for it
			}
			if !errors.Is(err, want) {
				t.Errorf("%s of %q: got %v, want %v", name, p, err, want)
			}
		}
	}
}

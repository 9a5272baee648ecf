package build

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/tree"
)

func selectionKey(t *testing.T, tr tree.Tree, sources ...string) Key {
	t.Helper()
	c := &copyRun{b: &builder{}, tr: &dockerfile.Transfer{Sources: sources, Target: "/x"}}
	for _, s := range sources {
		if err := c.pickPaths(&origin{tree: tr}, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.setKey(); err != nil {
		t.Fatal(err)
	}
	return c.key
}

// Docker's meaning of "unchanged" for COPY: names, modes, owners, targets,
// xattrs, bytes; no times (LAWS 9), nothing that was not selected.
func TestSelectionKey(t *testing.T) {
	base := []string{"s/", "s/a", "s/l -> a", "other"}
	want := selectionKey(t, plant(t, base...), "s")
	edit := func(fn func(e *tree.Editor)) Key {
		e := plant(t, base...).Edit()
		fn(e)
		return selectionKey(t, e.Tree(), "s")
	}
	change := func(p string, fn func(n *tree.Node)) Key {
		return edit(func(e *tree.Editor) {
			n := e.Lookup(p).Attrs()
			fn(&n)
			if err := e.Put(p, n); err != nil {
				t.Fatal(err)
			}
		})
	}
	tests := []struct {
		name string
		got  Key
		same bool
	}{
		{"nothing", edit(func(*tree.Editor) {}), true},
		{"time", change("s/a", func(n *tree.Node) { n.Mtime.Sec++ }), true},
		{"directory's time", change("s", func(n *tree.Node) { n.Mtime.Sec++ }), true},
		{"another file", change("other", func(n *tree.Node) { n.Digest = "sha256:x" }), true},
		{"place in the store", change("s/a", func(n *tree.Node) { n.Extents = []tree.Extent{{Pack: "p", Len: 1}} }), true},
		{"bytes", change("s/a", func(n *tree.Node) { n.Digest = "sha256:x" }), false},
		{"mode", change("s/a", func(n *tree.Node) { n.Mode = 0o600 }), false},
		{"the directory's own mode: its entries are copied", change("s", func(n *tree.Node) { n.Mode = 0o755 }), true},
		{"owner", change("s/a", func(n *tree.Node) { n.UID = 9 }), false},
		{"target", change("s/l", func(n *tree.Node) { n.Target = "b" }), false},
		{"xattr", change("s/a", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.x", Value: "1"}} }), false},
		{"new file", edit(func(e *tree.Editor) { _ = e.Put("s/b", tree.Node{Kind: tree.File}) }), false},
		{"removed file", edit(func(e *tree.Editor) { _ = e.Remove("s/l") }), false},
		{"hard link", edit(func(e *tree.Editor) { _ = e.Link("s/z", "s/a") }), false},
	}
	for _, tt := range tests {
		if (tt.got == want) != tt.same {
			t.Errorf("%s: same key is %v, want %v", tt.name, tt.got == want, tt.same)
		}
	}
}

// A link and a copy of it are different layers.
func TestSelectionKeyTellsLinksFromCopies(t *testing.T) {
	e := plant(t, "s/", "s/a").Edit()
	n := e.Lookup("s/a").Attrs()
	if err := e.Put("s/b", n); err != nil {
		t.Fatal(err)
	}
	linked := selectionKey(t, plant(t, "s/", "s/a", "s/b = s/a"), "s")
	if linked == selectionKey(t, e.Tree(), "s") {
		t.Error("two names of one file and two files have one key")
	}
}

func TestSelectionKeyNeedsDigests(t *testing.T) {
	e := tree.Empty().Edit()
	if err := e.Put("a", tree.Node{Kind: tree.File, Size: 3}); err != nil {
		t.Fatal(err)
	}
	tr := e.Tree()
	if err := newKey("test").subtree(tr, "a"); err == nil {
		t.Error("a file without a digest got a key") // LAWS 10
	}
}

// LAWS 6 and 8: every declared ARG, used or not, and all that a command can see
// is in the key; the predefined proxies are not.
func TestRunKey(t *testing.T) {
	type world struct {
		dockerfile string
		args       map[string]string
		user, dir  string
		network    string
		hosts      []string
		below      Key
		platform   string
	}
	base := world{dockerfile: "FROM scratch\nARG A\nENV E=1\nRUN x\n", args: map[string]string{"A": "1", "HTTP_PROXY": "p"}, platform: "linux/amd64"}
	key := func(w world) Key {
		f, err := dockerfile.Parse("Dockerfile", []byte(w.dockerfile), dockerfile.Options{BuildArgs: w.args})
		if err != nil {
			t.Fatal(err)
		}
		s := &state{key: w.below, scope: dockerfile.NewScope(f, dockerfile.ScopeOptions{})}
		if platform, arch, ok := strings.Cut(w.platform, "/"); ok {
			s.cfg.OS, s.cfg.Architecture = platform, arch
		}
		s.cfg.Config.User, s.cfg.Config.WorkingDir = w.user, w.dir
		b := &builder{opts: Options{AddHosts: w.hosts}}
		for _, in := range f.Stages[0].Instructions {
			out, err := s.scope.Expand(in)
			if err != nil {
				t.Fatal(err)
			}
			if run, ok := out.(*dockerfile.Run); ok {
				return b.runKey(s, run, w.network)
			}
		}
		t.Fatal("no RUN")
		return ""
	}
	want := key(base)
	tests := []struct {
		name string
		fn   func(w *world)
		same bool
	}{
		{"nothing", func(*world) {}, true},
		{"a comment", func(w *world) { w.dockerfile = "# hi\n" + w.dockerfile }, true},
		{"a proxy", func(w *world) { w.args = map[string]string{"A": "1", "HTTP_PROXY": "q"} }, true},
		{"an undeclared argument", func(w *world) { w.args = map[string]string{"A": "1", "B": "2"} }, true},
		{"a declared argument that is not used", func(w *world) { w.args = map[string]string{"A": "2"} }, false},
		{"the command", func(w *world) { w.dockerfile = strings.Replace(w.dockerfile, "RUN x", "RUN y", 1) }, false},
		{"exec form", func(w *world) { w.dockerfile = strings.Replace(w.dockerfile, "RUN x", `RUN ["x"]`, 1) }, false},
		{"the shell", func(w *world) {
			w.dockerfile = strings.Replace(w.dockerfile, "RUN", "SHELL [\"/bin/bash\", \"-c\"]\nRUN", 1)
		}, false},
		{"the environment", func(w *world) { w.dockerfile = strings.Replace(w.dockerfile, "E=1", "E=2", 1) }, false},
		{"the user", func(w *world) { w.user = "app" }, false},
		{"the directory", func(w *world) { w.dir = "/app" }, false},
		{"the network", func(w *world) { w.network = "none" }, false},
		{"a host", func(w *world) { w.hosts = []string{"a:1.2.3.4"} }, false},
		{"the step below", func(w *world) { w.below = "k" }, false},
		{"the platform", func(w *world) { w.platform = "linux/arm64" }, false},
	}
	for _, tt := range tests {
		w := base
		tt.fn(&w)
		if got := key(w); (got == want) != tt.same {
			t.Errorf("%s: same key is %v, want %v", tt.name, got == want, tt.same)
		}
	}
}

// No two lists of fields may look alike.
func TestKeyFieldsAreApart(t *testing.T) {
	if newKey("k").str("ab").str("c").sum() == newKey("k").str("a").str("bc").sum() {
		t.Error("fields run into each other")
	}
	if newKey("k").strs([]string{"a"}).strs(nil).sum() == newKey("k").strs(nil).strs([]string{"a"}).sum() {
		t.Error("lists run into each other")
	}
}

type textFiles map[string]string

func (f textFiles) Open(n *tree.Node) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(f[string(n.Digest)])), nil
}

func TestLookupUser(t *testing.T) {
	e := plant(t, "etc/", "real/", "real/passwd", "etc/passwd -> ../real/passwd", "etc/group").Edit()
	tr := e.Tree()
	files := textFiles{
		"sha256:real/passwd": "root:x:0:0:root:/root:/bin/sh\n# comment\n\nbad line\napp:x:1000:1001:App:/home/app:/bin/sh\n2000:x:5:5::/odd:\n",
		"sha256:etc/group":   "root:x:0:\nstaff:x:50:app,other\napp:x:1001:\nwheel:x:10:other,app\n",
	}
	tests := []struct {
		text string
		want account
		err  string
	}{
		{"", account{Groups: []uint32{0}, Home: "/root"}, ""},
		{"root", account{Groups: []uint32{0}, Home: "/root"}, ""},
		{"app", account{UID: 1000, GID: 1001, Groups: []uint32{1001, 50, 10}, Home: "/home/app"}, ""},
		{"1000", account{UID: 1000, GID: 1001, Groups: []uint32{1001, 50, 10}, Home: "/home/app"}, ""},
		{"app:staff", account{UID: 1000, GID: 50, Groups: []uint32{50}, Home: "/home/app"}, ""},
		{"app:7", account{UID: 1000, GID: 7, Groups: []uint32{7}, Home: "/home/app"}, ""},
		{"4242", account{UID: 4242, Groups: []uint32{0}}, ""},
		{"4242:4343", account{UID: 4242, GID: 4343, Groups: []uint32{4343}}, ""},
		{"2000", account{UID: 5, GID: 5, Groups: []uint32{5}, Home: "/odd"}, ""}, // a name made of digits wins, as in docker
		{"nobody", account{}, "unable to find user nobody"},
		{"app:nogroup", account{}, "unable to find group nogroup"},
	}
	for _, tt := range tests {
		got, err := lookupUser(tr, files, tt.text)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: got error %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if got.UID != tt.want.UID || got.GID != tt.want.GID || got.Home != tt.want.Home || !slices.Equal(got.Groups, tt.want.Groups) {
			t.Errorf("%q: got %+v, want %+v", tt.text, got, tt.want)
		}
	}
	for text, want := range map[string]owner{"app": {1000, 1001}, "1000": {1000, 1000}, "5:6": {5, 6}, "app:staff": {1000, 50}, "77": {77, 77}} {
		got, err := lookupOwner(tr, files, text)
		if err != nil || *got != want {
			t.Errorf("--chown=%s: got %v, %v, want %v", text, got, err, want)
		}
	}
}

package recordertest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// epoch is the time of everything in the parent tree, "T" in expected texts.
const epoch = 1700000000

// capNetRaw is a file capability of version 2: cap_net_raw, effective.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// Sizes of the parent's data/sparse: a hole, some bytes, a hole.
const (
	sparseHole = 1 << 20
	sparseData = 4096
)

// big is what the parent has at data/big.
var big = strings.Repeat("0123456789abcde\n", 20000)

// bench is where the steps of one test run: packs, layer files, work
// directories.
type bench struct {
	t       *testing.T
	packDir string
	treeDir string
	dir     string
	packs   *pack.Set
	steps   int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.packDir, b.treeDir = filepath.Join(b.dir, "packs"), filepath.Join(b.dir, "trees")
	for _, dir := range []string{b.packDir, b.treeDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Other ids of the namespace must reach what lies below.
	for _, dir := range []string{b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.packs = pack.NewSet(b.packDir)
	t.Cleanup(func() {
		if err := b.packs.Close(); err != nil {
			t.Errorf("close packs: %v", err)
		}
	})
	return b
}

// layer writes changes to a layer file.
func (b *bench) layer(name string, cs tree.Changes) string {
	b.t.Helper()
	file := filepath.Join(b.dir, name)
	if err := os.WriteFile(file, tree.Encode(cs), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// spec is a new step on layers.
func (b *bench) spec(layers []string, stubs []recorder.Stub) recorder.Spec {
	b.t.Helper()
	b.steps++
	id := "step" + strconv.Itoa(b.steps)
	work := filepath.Join(b.dir, id)
	if err := os.Mkdir(work, 0o755); err != nil {
		b.t.Fatal(err)
	}
	return recorder.Spec{ID: id, Layers: layers, Stubs: stubs, PackDir: b.packDir, WorkDir: work, TreeDir: b.treeDir}
}

// parent makes the tree that every law starts from, as two layers, and returns
// it with their files.
func (b *bench) parent() (tree.Tree, []string) {
	b.t.Helper()
	w, err := pack.Create(b.packDir, "copy")
	if err != nil {
		b.t.Fatal(err)
	}
	bytes := func(s string) tree.Node {
		at := w.Offset()
		if _, err := w.Write([]byte(s)); err != nil {
			b.t.Fatal(err)
		}
		n := tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(len(s)), Mtime: tree.Time{Sec: epoch}}
		if s != "" {
			n.Extents = []tree.Extent{{Pack: w.ID(), Off: at, Len: n.Size}}
		}
		return n
	}
	t := parentTree(b.t, bytes)
	if err := w.Commit(); err != nil {
		b.t.Fatal(err)
	}
	cs, err := tree.Diff(tree.Empty(), t, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	// Two layers: what stands from "home" on comes second.
	cut := 0
	for cut < len(cs) && tree.Compare(cs[cut].Path, "home") < 0 {
		cut++
	}
	layers := []string{b.layer("base1", cs[:cut]), b.layer("base2", cs[cut:])}
	t = tree.Empty()
	for _, part := range []tree.Changes{cs[:cut], cs[cut:]} {
		if t, err = t.Apply(part); err != nil {
			b.t.Fatal(err)
		}
	}
	return t, layers
}

func parentTree(t *testing.T, file func(string) tree.Node) tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	put := func(p string, n tree.Node, change ...func(*tree.Node)) {
		t.Helper()
		if n.Mtime == (tree.Time{}) {
			n.Mtime = tree.Time{Sec: epoch}
		}
		for _, c := range change {
			c(&n)
		}
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	dir := tree.Node{Kind: tree.Dir, Mode: 0o755}
	mode := func(m uint32) func(*tree.Node) { return func(n *tree.Node) { n.Mode = m } }
	owner := func(id uint32) func(*tree.Node) { return func(n *tree.Node) { n.UID, n.GID = id, id } }
	xattr := func(name, value string) func(*tree.Node) {
		return func(n *tree.Node) { n.Xattrs = append(n.Xattrs, tree.Xattr{Name: name, Value: value}) }
	}
	for _, p := range []string{"bin", "data", "dir", "dir/sub", "etc", "home", "links", "links2", "odd", "tmp"} {
		put(p, dir)
	}
	put("home", dir, owner(1000), mode(0o750))
	put("tmp", dir, mode(0o1777))
	put("bin/tool", file("tool v1\n"), mode(0o755))
	put("data/big", file(big))
	put("data/empty", file(""))
	put("data/sparse", sparse(file(strings.Repeat("s", sparseData))))
	for p, s := range map[string]string{
		"dir/sub/one": "one\n", "dir/sub/two": "two\n", "dir/three": "three\n", "etc/motd": "hello\n", "etc/passwd": "root\n",
		"links/a": "linked\n", "odd/-rf": "dash\n", "odd/\xff\xfe": "bytes\n", "odd/new\nline": "line\n",
	} {
		put(p, file(s))
	}
	put("frac", file("frac\n"), func(n *tree.Node) { n.Mtime.Nsec = 500000000 })
	put("home/f", file("mine\n"), owner(1000), mode(0o600))
	put("ping", file("ping\n"), mode(0o755), xattr("security.capability", capNetRaw))
	put("suid", file("suid\n"), mode(0o4755))
	put("xa", file("xa\n"), xattr("user.one", "1"), xattr("user.two", "\x00\xff"))
	put("pipe", tree.Node{Kind: tree.Fifo, Mode: 0o600})
	for p, target := range map[string]string{"link": "etc/motd", "resolv": "/run/x/resolv.conf"} {
		put(p, tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target, Size: int64(len(target))})
	}
	for p, target := range map[string]string{"bin/alias": "bin/tool", "links/b": "links/a", "links2/c": "links/a"} {
		if err := e.Link(p, target); err != nil {
			t.Fatal(err)
		}
	}
	return e.Tree()
}

func sparse(n tree.Node) tree.Node {
	hole := tree.Extent{Len: sparseHole}
	n.Extents = []tree.Extent{hole, n.Extents[0], hole}
	n.Size += 2 * sparseHole
	return n
}

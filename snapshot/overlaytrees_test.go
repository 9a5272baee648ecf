package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// overlayBench is a store with room for steps of the overlay recorder.
type overlayBench struct {
	t     *testing.T
	packs string
	trees string
}

func newOverlayBench(t *testing.T) *overlayBench {
	t.Helper()
	testenv.NeedUserNS(t)
	return &overlayBench{t, t.TempDir(), t.TempDir()}
}

// layer writes a layer that holds files with some contents.
func (b *overlayBench) layer(cs ...tree.Change) string {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "layer")
	if err := os.WriteFile(file, tree.Encode(cs), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return file
}

func (b *overlayBench) file(p, text string) tree.Change {
	n := stored(b.t, b.packs, text)
	return tree.Change{Path: p, Node: &n}
}

func (b *overlayBench) backend() *backend {
	b.t.Helper()
	r := NewOverlay(Options{}).(*backend)
	b.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return r
}

// mount mounts a step and returns its root.
func (b *overlayBench) mount(r recorder.Backend, id string, layers ...string) string {
	b.t.Helper()
	root, err := r.Mount(b.t.Context(), recorder.Spec{ID: id, Layers: layers, PackDir: b.packs, WorkDir: b.t.TempDir(), TreeDir: b.trees})
	if err != nil {
		b.t.Fatal(err)
	}
	return root
}

// kept are the identities of the directories in the store.
func (b *overlayBench) kept() map[string]identity {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.trees, "*", "layer"))
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]identity{}
	for _, name := range names {
		st, err := statAt(unix.AT_FDCWD, name)
		if err != nil {
			b.t.Fatal(err)
		}
		out[filepath.Dir(name)] = st.identity
	}
	return out
}

// A layer is a directory once, for all steps and builds; it is locked while it is used
// (LAWS 32) and does not outlive the boot (LAWS 33).
func TestOverlayLayersAreKept(t *testing.T) {
	b := newOverlayBench(t)
	layers := []string{b.layer(b.file("a", "1")), b.layer(b.file("b", "2"))}
	first := b.backend()
	b.mount(first, "one", layers...)
	made := b.kept()
	if len(made) != 2 {
		t.Fatalf("directories: got %d, want one for each layer", len(made))
	}
	b.mount(first, "two", layers[0])
	second := b.backend()
	b.mount(second, "one", layers...)
	again := b.kept()
	for dir, id := range made {
		if again[dir] != id {
			t.Errorf("%s was made again", dir)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("lock of a directory in use: got %v, want EWOULDBLOCK (LAWS 32)", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, r := range []*backend{first, second} {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for dir := range made {
		if err := os.WriteFile(filepath.Join(dir, "info"), []byte(`{"boot":"another","entries":2}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.mount(b.backend(), "three", layers...)
	for dir, id := range b.kept() {
		if made[dir] == id {
			t.Errorf("%s of another boot was used (LAWS 33)", dir)
		}
	}
}

// The digest of a content, which a sealed layer has, makes no other directory.
func TestOverlayLayerBeforeAndAfterSealing(t *testing.T) {
	b := newOverlayBench(t)
	c := b.file("a", "1")
	b.mount(b.backend(), "one", b.layer(c))
	sealed := *c.Node
	sealed.Digest = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
	b.mount(b.backend(), "one", b.layer(tree.Change{Path: "a", Node: &sealed}))
	if got := len(b.kept()); got != 1 {
		t.Errorf("directories: got %d, want 1", got)
	}
}

// LAWS 29: many layers are no trouble.
func TestOverlayOfManyLayers(t *testing.T) {
	b := newOverlayBench(t)
	var layers []string
	for i := range 200 {
		layers = append(layers, b.layer(b.file(fmt.Sprint("f", i), "x")))
	}
	names, err := os.ReadDir(b.mount(b.backend(), "one", layers...))
	if err != nil || len(names) != len(layers) {
		t.Errorf("names in the root: got %d, %v, want %d", len(names), err, len(layers))
	}
}

// LAWS 24: nothing of a base is taken for a mark of overlayfs, and no device of it is
// ever made (LAWS 19).
func TestOverlayMarksInABase(t *testing.T) {
	b := newOverlayBench(t)
	marked := tree.Change{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755, Xattrs: []tree.Xattr{{Name: overlayOpaque, Value: "y"}}}}
	device := tree.Change{Path: "e", Node: &tree.Node{Kind: tree.CharDevice, Mode: 0o644}}
	null := tree.Change{Path: "null", Node: &tree.Node{Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3}}
	r := b.backend()
	root := b.mount(r, "one", b.layer(b.file("d/below", "1")), b.layer(marked, device, null))
	if _, err := os.Lstat(filepath.Join(root, "d/below")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"e", "null"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("device %s: got %v, want none", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	res, err := r.Finish(t.Context(), "one")
	if err != nil || len(res.Changes) != 1 {
		t.Errorf("changes: got %s, %v, want the new file alone: devices stay in the tree", tree.Format(res.Changes), err)
	}
}

// A device over a directory hides it, though it is not there itself.
func TestOverlayDeviceOverADirectory(t *testing.T) {
	b := newOverlayBench(t)
	null := tree.Change{Path: "d", Node: &tree.Node{Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3}}
	root := b.mount(b.backend(), "one", b.layer(b.file("d/below", "1")), b.layer(null))
	if _, err := os.Lstat(filepath.Join(root, "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory under a device: got %v, want nothing", err)
	}
}

// LAWS 31: what cannot be an upper directory is found out by trying.
func TestTryOverlay(t *testing.T) {
	b := newOverlayBench(t)
	if err := TryOverlay(b.trees); err != nil {
		t.Errorf("a disk: %v", err)
	}
	if left, err := os.ReadDir(b.trees); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Overlayfs on overlayfs, as in a container.
	root := b.mount(b.backend(), "one", b.layer(b.file("a", "1")))
	err := TryOverlay(root)
	if err == nil || !strings.Contains(err.Error(), "--root") {
		t.Errorf("an overlay: got %v, want what to do about it", err)
	}
}

// A step that is thrown away while its layers are made leaves nothing half-made.
func TestOverlayBrokenLayer(t *testing.T) {
	b := newOverlayBench(t)
	c := b.file("a", "1")
	c.Node.Extents[0].Pack = "copy-00000000000000000000000000000000"
	work := t.TempDir()
	_, err := b.backend().Mount(t.Context(), recorder.Spec{ID: "one", Layers: []string{b.layer(c)}, PackDir: b.packs, WorkDir: work, TreeDir: b.trees})
	if err == nil {
		t.Error("mount without a pack: got no error")
	}
	for _, dir := range []string{b.trees, work} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// LAWS 26: other ids, other directories.
func TestOverlayNameHoldsTheMapping(t *testing.T) {
	const one, many = "0 1000 1", "0 1000 1\n1 100000 65536"
	seen := map[string]string{}
	for _, tt := range [][3]string{{"a", one, one}, {"b", one, one}, {"a", many, one}, {"a", one, many}} {
		name := nameOf(tt[0], tt[1], tt[2])
		if other, ok := seen[name]; ok {
			t.Errorf("name of %q: got that of %s", tt, other)
		}
		seen[name] = fmt.Sprintf("%q", tt)
	}
}

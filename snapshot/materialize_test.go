package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

func makeTree(t testing.TB, entries map[string]tree.Node) tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	for p, n := range entries {
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	return e.Tree()
}

// stored writes bytes to a pack and returns the file that holds them.
func stored(t testing.TB, dir, s string) tree.Node {
	t.Helper()
	w, err := pack.Create(dir, "copy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	n := tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(len(s)), Extents: []tree.Extent{{Pack: w.ID(), Len: int64(len(s))}}}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return n
}

func packSet(t testing.TB, dir string) *pack.Set {
	t.Helper()
	set := pack.NewSet(dir)
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

// LAWS 26: `-o type=local` writes files that belong to the caller, and no
// symlink of the target leads out of it.
func TestMaterializeForTheCaller(t *testing.T) {
	dir, packs := t.TempDir(), t.TempDir()
	file := stored(t, packs, "hello\n")
	file.UID, file.GID, file.Mtime = 4000000000, 4000000000, tree.Time{Sec: 1000, Nsec: 5}
	tr := makeTree(t, map[string]tree.Node{
		"a/file": file, "way/x": file, "link": {Kind: tree.Symlink, Target: "a/file", Size: 6}, "null": {Kind: tree.CharDevice, Major: 1, Minor: 3},
		"closed": {Kind: tree.Dir, Mode: 0}, "closed/y": file, "dir": file,
	})
	e := tr.Edit()
	if err := e.Link("a/twin", "way/x"); err != nil {
		t.Fatal(err)
	}
	tr = e.Tree()
	// What stands in the way: a symlink out, a directory, files.
	out := t.TempDir()
	if err := os.Symlink(out, filepath.Join(dir, "way")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir/full/of"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(out, "f"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	o := MaterializeOptions{NoOwners: true, Overwrite: true}
	var skipped []string
	o.Skipped = func(p, what string) { skipped = append(skipped, p+": "+what) }
	for range 2 { // the second time over the first
		skipped = nil
		if err := Materialize(t.Context(), tr, packSet(t, packs), dir, o); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"a/file", "link", "way/x", "a/twin", "dir"} {
		if got, err := os.ReadFile(filepath.Join(dir, p)); err != nil || string(got) != "hello\n" {
			t.Errorf("%s: got %q, %v, want hello", p, got, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "a/file"))
	if err != nil || !info.ModTime().Equal(time.Unix(1000, 5)) || info.Mode() != 0o644 {
		t.Errorf("a/file: got %v, %v, want mode 0644 and its time", info, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "a/twin"), &st); err != nil || int(st.Uid) != os.Geteuid() || st.Nlink != 2 {
		t.Errorf("a/twin: got owner %d, %d links, %v, want the caller and 2", st.Uid, st.Nlink, err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("outside: got %v, %v, want nothing", left, err)
	}
	if os.Geteuid() != 0 || inUserNS() {
		if diff := cmp.Diff([]string{"null: device node"}, skipped); diff != "" {
			t.Errorf("skipped (-want +got):\n%s", diff)
		}
	}
	if err := RemoveAll(dir); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func inUserNS() bool {
	ns, err := os.Readlink("/proc/self/ns/user")
	return err == nil && ns != "user:[4026531837]"
}

// Without Overwrite nothing is ever replaced.
func TestMaterializeKeepsWhatIsThere(t *testing.T) {
	dir, packs := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	tr := makeTree(t, map[string]tree.Node{"f": stored(t, packs, "yours")})
	if err := Materialize(t.Context(), tr, packSet(t, packs), dir, MaterializeOptions{NoOwners: true}); err == nil || !strings.Contains(err.Error(), `"f"`) {
		t.Errorf("materialise over a file: got %v, want an error that names it", err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); string(got) != "mine" {
		t.Errorf("f: got %q, %v, want mine", got, err)
	}
}

// LAWS 18: a pack that is gone or too short is an error, never zeros.
func TestMaterializeLostBytes(t *testing.T) {
	packs := t.TempDir()
	n := stored(t, packs, "hello\n")
	gone, long, bare := n, n, n
	gone.Extents = []tree.Extent{{Pack: tree.PackID("copy-" + strings.Repeat("0", 32)), Len: 6}}
	long.Size, long.Extents = 600000, []tree.Extent{{Pack: n.Extents[0].Pack, Len: 600000}}
	bare.Extents = nil
	for name, n := range map[string]tree.Node{"gone": gone, "long": long, "bare": bare} {
		err := Materialize(t.Context(), makeTree(t, map[string]tree.Node{"d/f": n}), packSet(t, packs), t.TempDir(), MaterializeOptions{NoOwners: true})
		if err == nil || !strings.Contains(err.Error(), "d/f") {
			t.Errorf("%s: got %v, want an error that names d/f", name, err)
		}
	}
}

// Deeper than any path may be long; the walk sees all of it and finds nothing.
func TestDeeperThanPathMax(t *testing.T) {
	testenv.NeedUserNS(t)
	packs := t.TempDir()
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 40) + "f"
	res := runStep(t, packs, makeTree(t, map[string]tree.Node{deep: stored(t, packs, "x")}), nil, nil)
	if len(res.Changes) != 0 {
		t.Errorf("changes: got %s, want none", tree.Format(res.Changes))
	}
}

// runStep runs a step in which do is the command.
func runStep(t *testing.T, packs string, parent tree.Tree, stubs []recorder.Stub, do func(root string)) recorder.Result {
	t.Helper()
	cs, err := tree.Diff(tree.Empty(), parent, nil)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	layer := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(layer, tree.Encode(cs), 0o644); err != nil {
		t.Fatal(err)
	}
	b := New(Options{})
	root, err := b.Mount(t.Context(), recorder.Spec{ID: "s", Layers: []string{layer}, Stubs: stubs, PackDir: packs, WorkDir: work})
	if err != nil {
		t.Fatal(err)
	}
	if do != nil {
		do(root)
	}
	res, err := b.Finish(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(work); err != nil || len(left) != 0 {
		t.Errorf("work directory: got %v, %v, want it empty", left, err)
	}
	return res
}

// What a directory cannot show stays in the tree: device nodes, foreign xattrs.
func TestHiddenStays(t *testing.T) {
	testenv.NeedUserNS(t)
	if !inUserNS() {
		t.Skip("root of the machine can show everything")
	}
	packs := t.TempDir()
	n := stored(t, packs, "x")
	n.Xattrs = []tree.Xattr{{Name: "trusted.x", Value: "1"}}
	null := tree.Node{Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3}
	parent := makeTree(t, map[string]tree.Node{"dev/null": null, "old/null": null, "f": n, "g": n})
	res := runStep(t, packs, parent, nil, func(root string) {
		for _, err := range []error{
			os.Chmod(filepath.Join(root, "f"), 0o600), os.WriteFile(filepath.Join(root, "dev/x"), nil, 0o644), os.RemoveAll(filepath.Join(root, "old")),
			os.Mkdir(filepath.Join(root, "old"), 0o755), os.Remove(filepath.Join(root, "g")), os.WriteFile(filepath.Join(root, "g"), []byte("x"), 0o644),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	var got []string
	for _, c := range res.Changes {
		s := c.Path
		if c.Whiteout() {
			s = "x " + s
		} else if len(c.Node.Xattrs) > 0 {
			s += " with xattr"
		}
		got = append(got, s)
	}
	if diff := cmp.Diff([]string{"dev", "dev/x", "f with xattr", "g", "old", "x old/null"}, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// LAWS 22: the command starts when a change gets a later ctime.
func TestWaitClock(t *testing.T) {
	dir := t.TempDir()
	last := time.Now().Add(50 * time.Millisecond)
	if err := waitClock(t.Context(), dir, tree.TimeOf(last)); err != nil {
		t.Fatal(err)
	}
	if at, err := ctimeNow(dir); err != nil || !tree.TimeOf(last).Before(at) {
		t.Errorf("time of the file system: got %v, %v, want later than %v", at, err, last)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := waitClock(ctx, dir, tree.TimeOf(time.Now().Add(time.Hour))); err == nil {
		t.Error("clock that does not come: got no error")
	}
}

// LAWS 26: capabilities are version 2 in a tree.
func TestCapabilityV2(t *testing.T) {
	v2 := append([]byte{1, 0, 0, 2}, bytes.Repeat([]byte{7}, 16)...)
	v3 := append([]byte{1, 0, 0, 3}, bytes.Repeat([]byte{7}, 16)...)
	if got := capabilityV2(append(v3, 0xa0, 0x86, 1, 0)); !bytes.Equal(got, v2) {
		t.Errorf("version 3: got %x, want %x", got, v2)
	}
	if got := capabilityV2(bytes.Clone(v2)); !bytes.Equal(got, v2) {
		t.Errorf("version 2: got %x, want it as it is", got)
	}
}

// With one id the error says what the host lacks.
func TestSingleID(t *testing.T) {
	testenv.NeedUserNS(t)
	dir := filepath.Join(t.TempDir(), "root")
	cmd := reexec.Command(t.Context(), "materialize", dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if _, err := reexec.StartMapped(t.Context(), cmd, unix.CLONE_NEWNS, true); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "set owner 33:33") || !strings.Contains(out.String(), "/etc/subuid") {
		t.Errorf("materialise with one id: got %v, %s, want an error that names /etc/subuid", err, out.String())
	}
}

// materializeMain is the child of TestSingleID.
func materializeMain() int {
	e := tree.Empty().Edit()
	err := e.Put("f", tree.Node{Kind: tree.File, Mode: 0o644, UID: 33, GID: 33})
	if err == nil {
		err = Materialize(context.Background(), e.Tree(), pack.NewSet("/none"), os.Args[1], MaterializeOptions{})
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

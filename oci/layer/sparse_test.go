package layer

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apex/log"
	"github.com/apex/log/handlers/discard"
	"github.com/google/go-cmp/cmp"
	umoci "github.com/opencontainers/umoci/oci/layer"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// holesOf returns where a file's holes are.
func holesOf(n *tree.Node) []span {
	var out []span
	var at int64
	for _, x := range n.Extents {
		if x.Pack == "" {
			out = append(out, span{at, x.Len})
		}
		at += x.Len
	}
	return out
}

// sparseFile is 8 MiB with data in a few places, more than a header's four.
func sparseFile(t *testing.T, name string) (want string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 8<<20)
	for _, at := range []int{0, 1 << 20, 3<<20 + 4096, 5 << 20, 6 << 20, 13 << 19, 7 << 20} {
		data := bytes.Repeat([]byte{byte(at>>16) | 1}, 4096)
		copy(buf[at:], data)
		if _, err := f.WriteAt(data, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	return string(buf)
}

// LAWS 15: the sparse maps of GNU tar in all their forms, as GNU tar makes them.
func TestReadSparse(t *testing.T) {
	gnuTar, err := osexec.LookPath("tar")
	if err != nil {
		t.Skip("needs GNU tar")
	}
	dir := t.TempDir()
	want := sparseFile(t, filepath.Join(dir, "sparse"))
	if err := os.WriteFile(filepath.Join(dir, "after"), []byte("after"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := [][]string{{"--format=oldgnu"}, {"--format=gnu"}, {"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"}}
	for _, args := range cases {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			raw, err := osexec.CommandContext(t.Context(), gnuTar, append(args, "--hole-detection=raw", "-S", "-c", "-f", "-", "-C", dir, "sparse", "after")...).Output()
			if err != nil {
				t.Fatalf("make tar: %v", err)
			}
			if len(raw) > 1<<20 {
				t.Fatalf("tar: got %d bytes, want a sparse one", len(raw))
			}
			cs, _, pack := mustRead(t, raw)
			n := find(t, cs, "sparse").Node
			if got := content(t, packs{testPack: pack}, n); got != want {
				t.Errorf("contents: got %d bytes that differ from the %d of the file", len(got), len(want))
			}
			wantHoles := []span{{4096, 1<<20 - 4096}, {1<<20 + 4096, 2 << 20}, {3<<20 + 8192, 2<<20 - 8192}, {5<<20 + 4096, 1<<20 - 4096}, {6<<20 + 4096, 1<<19 - 4096}, {13<<19 + 4096, 1<<19 - 4096}, {7<<20 + 4096, 1<<20 - 4096}}
			if diff := cmp.Diff(wantHoles, holesOf(n), cmp.AllowUnexported(span{})); diff != "" {
				t.Errorf("holes (-want +got):\n%s", diff)
			}
			if got := content(t, packs{testPack: pack}, find(t, cs, "after").Node); got != "after" {
				t.Errorf("entry behind: got %q", got)
			}
		})
	}
}

// LAWS 16: a hole of 100 GB stays one, and nobody needs 100 GB to seal or read it.
func TestSealKeepsHoles(t *testing.T) {
	p := packs{}
	lastlog := fileNode(p, "head")
	tail := int64(len(p[spoolPack]))
	p[spoolPack] = append(p[spoolPack], "tail"...)
	lastlog.Extents = append(lastlog.Extents, tree.Extent{Len: 100 << 30}, tree.Extent{Pack: spoolPack, Off: tail, Len: 4}, tree.Extent{Len: 5})
	lastlog.Size = 4 + 100<<30 + 4 + 5
	empty := nodeAt(tree.File, 0o600)
	empty.Size, empty.Extents = 9<<30, []tree.Extent{{Len: 9 << 30}}
	empty.Mtime, lastlog.Mtime = tree.Time{}, tree.Time{}
	cs := tree.Changes{{Path: "empty", Node: empty}, {Path: strings.Repeat("d", 200) + "/lastlog", Node: lastlog}}
	cs.Sort()
	blob, s := seal(t, cs, p, Options{})
	if s.TarSize > 20_000 {
		t.Errorf("tar: got %d bytes, want few", s.TarSize)
	}
	got, _, pack := mustRead(t, blob)
	p[testPack] = pack
	if diff := cmp.Diff(tree.Format(cs), tree.Format(got)); diff != "" {
		t.Errorf("changes (-sealed +read):\n%s", diff)
	}
	wantHoles := []span{{4096, 100<<30 - 4096}}
	if diff := cmp.Diff(wantHoles, holesOf(find(t, got, strings.Repeat("d", 200)+"/lastlog").Node), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("holes (-want +got):\n%s", diff)
	}
}

// sealedSparse is a tar of a sparse file "a-file" and a file "b".
func sealedSparse(t *testing.T) (blob []byte, n *tree.Node, want string) {
	t.Helper()
	p := packs{}
	n = fileNode(p, "head")
	p[spoolPack] = append(p[spoolPack], "tail"...)
	n.Extents = append(n.Extents, tree.Extent{Len: 3<<20 + 7}, tree.Extent{Pack: spoolPack, Off: 4, Len: 4}, tree.Extent{Len: 2 << 20})
	n.Size = 4 + 3<<20 + 7 + 4 + 2<<20
	n.Xattrs = []tree.Xattr{{Name: "user.x", Value: "y"}}
	want = content(t, p, n)
	blob, _ = seal(t, tree.Changes{{Path: "a-file", Node: n}, {Path: "b", Node: fileNode(p, "b")}}, p, Options{Compression: "uncompressed"})
	if len(blob) > 100_000 {
		t.Fatalf("tar: got %d bytes, want a sparse one", len(blob))
	}
	return blob, n, want
}

// Others read our sparse files: archive/tar, GNU tar and (below) umoci.
func TestSparseForOthers(t *testing.T) {
	blob, n, want := sealedSparse(t)
	r := tar.NewReader(bytes.NewReader(blob))
	h, err := r.Next()
	if err != nil || h.Name != "a-file" || h.Size != n.Size || h.Typeflag != tar.TypeReg {
		t.Fatalf("archive/tar: got %+v, %v", h, err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != want {
		t.Errorf("archive/tar: got %d bytes, %v, want %d", len(got), err, len(want))
	}

	name := writeFile(t, "layer.tar", blob)
	if gnuTar, err := osexec.LookPath("tar"); err == nil {
		dir := t.TempDir()
		if out, err := osexec.CommandContext(t.Context(), gnuTar, "-x", "-f", name, "-C", dir).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("GNU tar: %v\n%s", err, out)
		}
		checkDisk(t, "GNU tar", dir, want)
	}
}

func TestSparseForUmoci(t *testing.T) {
	testenv.NeedRoot(t)
	log.SetHandler(discard.New())
	blob, _, want := sealedSparse(t)
	dir := t.TempDir()
	if err := umoci.UnpackLayer(dir, bytes.NewReader(blob), nil); err != nil {
		t.Fatalf("umoci: %v", err)
	}
	checkDisk(t, "umoci", dir, want)
}

func checkDisk(t *testing.T, who, dir, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "a-file"))
	if err != nil || string(got) != want {
		t.Errorf("%s: got %d bytes, %v, want %d", who, len(got), err, len(want))
	}
	if got, err := os.ReadFile(filepath.Join(dir, "b")); err != nil || string(got) != "b" {
		t.Errorf("%s: entry behind: got %q, %v", who, got, err)
	}
}

func TestLayoutOf(t *testing.T) {
	data := func(n int64) tree.Extent { return tree.Extent{Pack: spoolPack, Len: n} }
	hole := func(n int64) tree.Extent { return tree.Extent{Len: n} }
	var many []tree.Extent
	for range 40_000 {
		many = append(many, data(4096), hole(64<<10))
	}
	many = append(many, data(4096), hole(512<<20), data(4096))
	cases := []struct {
		name   string
		ext    []tree.Extent
		sparse bool
		spans  []span
	}{
		{"no holes", []tree.Extent{data(5 << 20)}, false, nil},
		{"under a MiB", []tree.Extent{data(1), hole(1<<20 - 1)}, false, nil},
		{"a MiB", []tree.Extent{data(1), hole(1<<20 + 4095)}, true, []span{{0, 4096}}},
		{"a MiB in parts", []tree.Extent{hole(600_000), data(1), hole(300_000), hole(200_000)}, true, []span{{598_016, 4096}}},
		{"all of it", []tree.Extent{hole(1 << 20)}, true, nil},
		{"not aligned", []tree.Extent{data(5000), hole(2 << 20), data(5000)}, true, []span{{0, 8192}, {2<<20 + 4096, 5904}}},
		{"small holes are data", []tree.Extent{data(1), hole(60_000), data(1), hole(2 << 20)}, true, []span{{0, 61_440}}},
		{"small holes alone", []tree.Extent{data(1), hole(60_000), data(1), hole(1<<20 - 1)}, false, nil},
		{"a map that is too long", many, true, []span{{0, 40_000*68<<10 + 4096}, {40_000*68<<10 + 4096 + 512<<20, 4096}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := &tree.Node{Kind: tree.File, Extents: c.ext}
			for _, x := range c.ext {
				n.Size += x.Len
			}
			l, err := layoutOf(n)
			if err != nil {
				t.Fatal(err)
			}
			if l.sparse != c.sparse {
				t.Errorf("sparse: got %v, want %v", l.sparse, c.sparse)
			}
			if diff := cmp.Diff(c.spans, l.spans, cmp.AllowUnexported(span{})); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
			var sum int64
			for _, x := range l.data {
				sum += x.Len
			}
			if sum != l.stored {
				t.Errorf("data: got %d bytes, want %d", sum, l.stored)
			}
		})
	}
}

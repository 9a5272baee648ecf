package build

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

// The tar of a cache mount has every entry that a tar can hold, and the same files
// give the same bytes.
func TestPackDir(t *testing.T) {
	dir := t.TempDir()
	when := time.Unix(981173106, 123456789)
	if err := os.MkdirAll(filepath.Join(dir, "d", "deep"), 0o750); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "d", "file")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Link(file, filepath.Join(dir, "hard")), os.Symlink("d/file", filepath.Join(dir, "soft")), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
		os.Chtimes(file, when, when),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var first, second bytes.Buffer
	if err := packDir(dir, &first); err != nil {
		t.Fatal(err)
	}
	if err := packDir(dir, &second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the same files gave another tar, error %v", err)
	}
	var got []string
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(string(h.Typeflag)+" "+h.Name+" "+h.Linkname))
		if h.Name == "root/d/file" && !h.ModTime.Equal(when) {
			t.Errorf("time: got %v, want %v", h.ModTime, when)
		}
	}
	want := []string{"5 root/", "5 root/d/", "5 root/d/deep/", "0 root/d/file", "6 root/fifo", "1 root/hard root/d/file", "2 root/soft d/file"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// LAWS 34: what a cache says a cache mount holds cannot leave the directory, and brings
// nothing that would be dangerous on the host.
func TestHarmless(t *testing.T) {
	file := &tree.Node{Kind: tree.File, Mode: 0o4755, Xattrs: []tree.Xattr{{Name: "security.capability", Value: "x"}}}
	root, cs := harmless(tree.Changes{
		{Path: "etc/passwd", Node: &tree.Node{Kind: tree.File, Mode: 0o644}},
		{Path: "root", Node: &tree.Node{Kind: tree.Dir, Mode: 0o1777, UID: 7}},
		{Path: "root/disk", Node: &tree.Node{Kind: tree.BlockDevice, Mode: 0o666, Major: 8}},
		{Path: "root/gone"},
		{Path: "root/mem", Node: &tree.Node{Kind: tree.CharDevice, Mode: 0o666, Major: 1}},
		{Path: "root/su", Node: file},
		{Path: "root/su2", Node: file},
		{Path: "rootless", Node: file},
	})
	if root.Mode != 0o1777 || root.UID != 7 {
		t.Errorf("directory: got %o of %d, want 1777 of 7", root.Mode, root.UID)
	}
	if len(cs) != 2 || cs[0].Path != "su" || cs[1].Path != "su2" || cs[0].Node != cs[1].Node || cs[0].Node.Mode != 0o755 || cs[0].Node.Xattrs != nil {
		t.Errorf("entries: got %s, want one plain file with two names", tree.Format(cs))
	}
	if file.Mode != 0o4755 {
		t.Error("what was read was changed")
	}
}

// A cache mount that is another than its digest, or too large, is not used.
func TestSharedMountLies(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	b.temp = t.TempDir()
	dir := t.TempDir()
	a := oci.OpenLayoutArtifact(dir, "latest")
	unlock, err := a.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unlock() }()
	bl := oci.MemoryBlob([]byte("no tar"), typeSharedMount)
	if err := a.Add(t.Context(), bl, nil); err != nil {
		t.Fatal(err)
	}
	c := &cacheSource{place: a}
	if _, _, err := b.unpackMount(t.Context(), c, bl.Desc); err == nil {
		t.Error("what is no tar was taken")
	}
	huge := bl.Desc
	huge.Size = maxSharedMount + 1
	if _, _, err := b.unpackMount(t.Context(), c, huge); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("huge: got %v, want a bound", err)
	}
	other := bl.Desc
	other.Digest.Hex = strings.Repeat("a", 64)
	if _, _, err := b.unpackMount(t.Context(), c, other); err == nil {
		t.Error("a blob that is not there was taken")
	}
}

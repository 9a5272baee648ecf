package image_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/image"
	"github.com/fbuild/fbuild/tree"
)

func TestFamiliar(t *testing.T) {
	for full, want := range map[string]string{
		"docker.io/library/app:1": "app:1", "docker.io/me/app:1": "me/app:1", "r.example/library/app:1": "r.example/library/app:1",
	} {
		if got := image.Familiar(full); got != want {
			t.Errorf("%s: got %s, want %s", full, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	file := func(digest string, size int64) tree.Node {
		return tree.Node{Kind: tree.File, Mode: 0o644, Size: size, Digest: tree.Digest("sha256:" + digest), Extents: []tree.Extent{{Pack: "tar-x", Len: size}}}
	}
	moved := file("a", 1)
	moved.Mtime = tree.Time{Sec: 5}
	opened := file("a", 1)
	opened.Mode, opened.UID = 0o600, 7
	tagged := file("a", 1)
	tagged.Xattrs = []tree.Xattr{{Name: "user.x", Value: "1"}}
	for _, tt := range []struct {
		name     string
		old, now map[string]tree.Node
		times    bool
		want     []string
	}{
		{"equal", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": file("a", 1)}, false, nil},
		{"added and removed", map[string]tree.Node{"b/c": file("a", 1)}, map[string]tree.Node{"a": file("a", 1)}, false, []string{"added a", "removed b", "removed b/c"}},
		{"contents", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": file("b", 1)}, false, []string{"changed a: other contents, 1 bytes"}},
		{"size", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": file("b", 2)}, false, []string{"changed a: 2 bytes, was 1"}},
		{"type", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": {Kind: tree.Symlink, Size: 1, Target: "x"}}, false, []string{"changed a: type l, was -"}},
		{"mode and owner", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": opened}, false, []string{"changed a: mode 0600, was 0644; owner 7:0, was 0:0"}},
		{"attributes", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": tagged}, false, []string{"changed a: attribute user.x added"}},
		{"times do not count", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": moved}, false, nil},
		{"times count", map[string]tree.Node{"a": file("a", 1)}, map[string]tree.Node{"a": moved}, true, []string{"changed a: time 1970-01-01T00:00:05Z, was 1970-01-01T00:00:00Z"}},
		{"a file where a directory was", map[string]tree.Node{"a/b": file("a", 1)}, map[string]tree.Node{"a": file("a", 1)}, false, []string{"changed a: type -, was d", "removed a/b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range image.Diff(build(t, tt.old), build(t, tt.now), tt.times) {
				line := d.How + " " + d.Path
				for i, w := range d.What {
					line += map[bool]string{true: ": ", false: "; "}[i == 0] + w
				}
				got = append(got, line)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("differences (-want +got):\n%s", d)
			}
		})
	}
}

func build(t *testing.T, files map[string]tree.Node) tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	for p, n := range files {
		if dir, _ := tree.Split(p); dir != "" {
			if err := e.Put(dir, tree.Node{Kind: tree.Dir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	return e.Tree()
}

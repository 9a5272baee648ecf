package exec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files of memory have the attributes asked for, are read-only, and nothing else of where they were made is left.
func TestMountFile(t *testing.T) {
	f := newFixture(t)
	if f.s.Isolation() == "single" {
		t.Skip("one id only")
	}
	touch(t, f.root+"/work/secret", "below")
	spec := f.spec("sh", "-c", "cat /work/secret; stat -c '%a %u:%g' /work/secret; echo x 2>&1 >/work/secret; cat /dev/deep/er; ls -A /dev | grep fbuild; grep -c fbuild/ /proc/self/mountinfo; cat /proc/mounts | grep -c ^ramfs")
	spec.Mounts = []Mount{
		{Type: "file", Target: "/work/secret", Data: []byte("hush\n"), Perm: 0o440, UID: 7, GID: 8, ReadOnly: true},
		{Type: "file", Target: "/dev/deep/er", Data: []byte("two\n"), Perm: 0o444, ReadOnly: true},
	}
	out, err := f.run(spec)
	if err != nil || !strings.HasPrefix(out, "hush\n440 7:8\nsh: can't create /work/secret: Read-only file system\ntwo\n0\n2") {
		t.Errorf("got %q, %v", out, err)
	}
	if data, err := os.ReadFile(f.root + "/work/secret"); err != nil || string(data) != "below" {
		t.Errorf("the mount point: got %q, %v, want what it was", data, err)
	}
}

// Mounts below mounts: what an earlier mount lacks is made in it, and no symlink of it is followed.
func TestMountNested(t *testing.T) {
	f := newFixture(t)
	dir, outside := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir), outside} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	touch(t, dir+"/file", "in the cache")
	if err := os.Symlink(outside, dir+"/out"); err != nil {
		t.Fatal(err)
	}
	tmpfs := Mount{Type: "tmpfs", Target: "/work", Options: "size=1m"}
	cache := Mount{Type: "bind", Source: dir, Target: "/work/a/cache"}
	file := Mount{Type: "file", Target: "/work/a/cache/b/secret", Data: []byte("hush"), Perm: 0o400, ReadOnly: true}
	spec := f.spec("sh", "-c", "cat /work/a/cache/file; echo; cat /work/a/cache/b/secret; echo new > /work/a/cache/new; stat -c %a /work/a")
	spec.Mounts = []Mount{tmpfs, cache, file}
	if out, err := f.run(spec); err != nil || out != "in the cache\nhush755" {
		t.Errorf("got %q, %v", out, err)
	}
	if data, err := os.ReadFile(dir + "/new"); err != nil || string(data) != "new\n" {
		t.Errorf("what was written to the bound directory: got %q, %v", data, err)
	}
	if entries, err := os.ReadDir(f.root + "/work"); err != nil || len(entries) != 0 {
		t.Errorf("the root below the tmpfs: got %v, %v, want nothing", entries, err)
	}
	file.Target = "/work/a/cache/out/secret"
	spec.Mounts = []Mount{tmpfs, cache, file}
	if _, err := f.run(spec); err == nil || !strings.Contains(err.Error(), `make mount point /work/a/cache/out/secret: "out"`) {
		t.Errorf("through a symlink: got %v", err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("behind the symlink: got %v, %v, want nothing", entries, err)
	}
	file.Target = "/work/a/cache/file/secret"
	spec.Mounts = []Mount{tmpfs, cache, file}
	if _, err := f.run(spec); err == nil || !strings.Contains(err.Error(), "make mount point") {
		t.Errorf("below a file: got %v", err)
	}
	spec.Mounts = []Mount{tmpfs, {Type: "file", Target: "/work/x", Perm: 0o400}, {Type: "bind", Source: dir, Target: "/work/x"}}
	if _, err := f.run(spec); err == nil {
		t.Error("a directory on a file: got no error")
	}
}

// touch writes a small file that everybody may read.
func touch(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

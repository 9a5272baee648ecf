package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

// LAWS 25: targets are resolved inside the root; what the image lacks is a stub,
// what a bound tree lacks is a stub of that, what any other mount lacks is neither;
// mounts come before what lies below them.
func TestPlan(t *testing.T) {
	bound := &mountView{tree: plant(t, "mount/", "mount/d/", "mount/f", "mount/l -> d"), at: "mount", dir: true}
	image := []string{"dev/", "etc/", "etc/conf", "run -> var/run", "var/", "var/run/", "out -> ../../../x", "loop -> loop", "etc/link -> ../var"}
	dir := func(target string) *place { return &place{target: target, dir: true} }
	file := func(target string) *place { return &place{target: target} }
	view := func(target string) *place { return &place{target: target, dir: true, view: bound} }
	for _, tt := range []struct {
		name   string
		places []*place
		want   []string // targets in order, then stubs
		err    string
	}{
		{"in the image", []*place{dir("etc"), file("etc/conf")}, []string{"/etc", "/etc/conf"}, ""},
		{"missing", []*place{dir("a/b"), file("a/c")}, []string{"/a/b", "/a/c", "stub a/b/", "stub a/c"}, ""},
		{"a symlink", []*place{file("run/secrets/x")}, []string{"/var/run/secrets/x", "stub var/run/secrets/x"}, ""},
		{"a symlink out of the root", []*place{file("out/secret")}, []string{"/x/secret", "stub x/secret"}, ""},
		{"by depth", []*place{file("t/a/b"), dir("t/a"), dir("t")}, []string{"/t", "/t/a", "/t/a/b", "stub t/"}, ""},
		{"below a mount on a symlink", []*place{dir("run"), file("run/x")}, []string{"/var/run", "/var/run/x"}, ""},
		{"below a mount that hides a symlink", []*place{dir("etc"), file("etc/link/x")}, []string{"/etc", "/etc/link/x"}, ""},
		{"below a mount by another way", []*place{dir("var/run"), file("run/x")}, []string{"/var/run", "/var/run/x"}, ""},
		{"below a bound tree", []*place{view("src"), dir("src/d"), file("src/new/x")}, []string{"/src", "/src/d", "/src/new/x", "stub src/", "view mount/new/x"}, ""},
		{"in /dev", []*place{dir("dev/shm"), file("dev/pipes/x")}, []string{"/dev/shm", "/dev/pipes/x"}, ""},
		{"the same place twice", []*place{file("etc/conf"), file("etc/conf")}, []string{"/etc/conf", "/etc/conf"}, ""},
		{"a file on a directory", []*place{file("etc")}, nil, "it is a directory, and what is mounted a file"},
		{"a directory on a file", []*place{dir("etc/conf")}, nil, "it is a file, and what is mounted a directory"},
		{"below a file of the image", []*place{dir("etc/conf/x")}, nil, "/etc/conf is no directory"},
		{"below a file that is mounted", []*place{file("etc/conf"), file("etc/conf/x")}, nil, "it lies below a file"},
		{"a symlink of a bound tree", []*place{view("src"), dir("src/l")}, nil, "it is a symlink of the mount /src"},
		{"through a symlink of a bound tree", []*place{view("src"), dir("src/l/x")}, nil, "it leads through a symlink of the mount /src"},
		{"a loop", []*place{dir("loop/x")}, nil, "mount /loop/x"},
		{"proc", []*place{dir("proc/sys")}, nil, "a RUN has a file system of its own at /proc"},
		{"dev", []*place{dir("dev")}, nil, "a RUN has a file system of its own at /dev"},
		{"our own on purpose elsewhere", []*place{{target: "etc", quiet: true}}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mounts, stubs, err := plan(plant(t, image...), tt.places)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range mounts {
				got = append(got, m.mount.Target)
			}
			for _, s := range stubs {
				got = append(got, "stub "+s.Path+map[bool]string{true: "/"}[s.Dir])
			}
			for _, m := range mounts {
				for _, s := range m.stubs {
					got = append(got, "view "+s.Path)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// LAWS 1: a tree that is bound is its own, with the links and times that it has.
func TestCut(t *testing.T) {
	e := plant(t, "a/", "a/b/", "a/b/f", "a/b/h = a/b/f", "a/out = a/b/f", "z").Edit()
	n := e.Lookup("a/b").Attrs()
	n.Mtime, n.Mode = tree.Time{Sec: 77}, 0o700
	if err := e.Put("a/b", n); err != nil {
		t.Fatal(err)
	}
	src := e.Tree()
	got, err := cut(src, "a/b", "mount")
	if err != nil {
		t.Fatal(err)
	}
	cs, err := tree.Diff(tree.Empty(), got, nil)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range cs {
		paths = append(paths, c.Path)
	}
	if diff := cmp.Diff([]string{"mount", "mount/f", "mount/h"}, paths); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	after, err := tree.Empty().Apply(cs)
	if err != nil {
		t.Fatal(err)
	}
	d, f := after.Lookup("mount"), after.Lookup("mount/f")
	if d.Mtime.Sec != 77 || d.Mode != 0o700 {
		t.Errorf("the directory: got time %v mode %o, want 77 and 700", d.Mtime, d.Mode)
	}
	if f.Nlink() != 2 || f != after.Lookup("mount/h") {
		t.Errorf("the link: got %d names, want 2 of one file", f.Nlink())
	}
	if one, err := cut(src, "z", "mount"); err != nil || one.Lookup("mount") == nil || one.Lookup("mount").Kind != tree.File {
		t.Errorf("a file: got %v, %v", one.Lookup("mount"), err)
	}
}

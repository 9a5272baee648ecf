package fusefs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// TestMountFlags: nodev always, nosuid never, and the kernel checks permissions for everybody. LAWS 19.
func TestMountFlags(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	defer r.finish()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[4] == r.root {
			for flag, want := range map[string]bool{"nodev": true, "nosuid": false, "default_permissions": true, "allow_other": true} {
				if got := strings.Contains(line, flag); got != want {
					t.Errorf("%s: got %v, want %v in %s", flag, got, want, line)
				}
			}
			return
		}
	}
	t.Fatalf("%s is not mounted", r.root)
}

// TestDeviceOfABase: it is there to be seen, not to be opened. LAWS 19.
func TestDeviceOfABase(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.layer(tree.Changes{{Path: "null", Node: &tree.Node{Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3}}}))
	defer r.finish()
	if out := r.sh("stat -c '%F %t %T' null"); out != "character special file 1 3\n" {
		t.Errorf("stat: got %q", out)
	}
	if out, err := r.try("echo >null"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("open of a device: got %v, %q, want it refused", err, out)
	}
}

// TestConnection: no passthrough, whose file would be the host's, and no O_TRUNC that no OPEN brings. LAWS 19, 20.
func TestConnection(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	defer r.finish()
	disabled := w.b.(*backend).steps[r.id].mountOptions().DisabledCapabilities
	for name, bit := range map[string]uint64{"passthrough": fuse.CAP_PASSTHROUGH, "atomic O_TRUNC": fuse.CAP_ATOMIC_O_TRUNC} {
		if disabled&bit == 0 {
			t.Errorf("%s is not switched off", name)
		}
	}
}

// TestDeviceIsOursAlone: no child of this process inherits a descriptor of /dev/fuse. LAWS 20.
func TestDeviceIsOursAlone(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	defer r.finish()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range fds {
		if target, err := os.Readlink(name); err != nil || target != "/dev/fuse" {
			continue
		}
		found++
		info, err := os.ReadFile(filepath.Join("/proc/self/fdinfo", filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		const closeOnExec = "02"
		if !strings.Contains(string(info), closeOnExec+"100002") {
			t.Errorf("descriptor of /dev/fuse: got %q, want close-on-exec", strings.Fields(string(info)))
		}
	}
	if found == 0 {
		t.Error("no descriptor of /dev/fuse: the test looks at the wrong process")
	}
}

// TestLimits: what the kernel would let through and no unpacker takes. The kernel checks some of these first. LAWS 21, 24.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	defer r.finish()
	s := w.b.(*backend).steps[r.id]
	root := fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
	var entry fuse.EntryOut
	set := func(name string, size int) fuse.Status {
		return s.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: root}, name, make([]byte, size))
	}
	var file fuse.EntryOut
	if st := s.Lookup(nil, &root, "empty", &file); st != fuse.OK {
		t.Fatal(st)
	}
	for _, tt := range []struct {
		name string
		got  fuse.Status
		want fuse.Status
	}{
		{"name", s.Mkdir(nil, &fuse.MkdirIn{InHeader: root}, strings.Repeat("n", 256), &entry), fuse.Status(unix.ENAMETOOLONG)},
		{"longest name", s.Mkdir(nil, &fuse.MkdirIn{InHeader: root, Mode: 0o755}, strings.Repeat("n", 255), &entry), fuse.OK},
		{"target", s.Symlink(nil, &root, strings.Repeat("t", 4096), "s1", &entry), fuse.Status(unix.ENAMETOOLONG)},
		{"longest target", s.Symlink(nil, &root, strings.Repeat("t", 4095), "s2", &entry), fuse.OK},
		{"xattr", set("user.a", 64<<10+1), fuse.Status(unix.E2BIG)},
		{"largest xattr", set("user.b", 64<<10), fuse.OK},
		{"xattr name", set("user."+strings.Repeat("n", 251), 0), fuse.ERANGE},
		{"file called as a whiteout", s.Mkdir(nil, &fuse.MkdirIn{InHeader: root}, ".wh.d", &entry), fuse.EINVAL},
		{"link called as a whiteout", s.Link(nil, &fuse.LinkIn{InHeader: root, Oldnodeid: file.NodeId}, ".wh.l", &entry), fuse.EINVAL},
		{"rename to a whiteout", s.Rename(nil, &fuse.RenameIn{InHeader: root, Newdir: fuse.FUSE_ROOT_ID}, "empty", ".wh.r"), fuse.EINVAL},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	names := fuse.OK
	for i := 0; i < 400 && names == fuse.OK; i++ {
		names = set("user."+strings.Repeat(string(rune('a'+i%26)), 200+i%26)+strings.Repeat("x", i/26), 0)
	}
	if names != fuse.Status(unix.ENOSPC) {
		t.Errorf("names of xattrs together: got %v, want no space", names)
	}
}

// TestVersion2: capabilities bound to the root of a user namespace become those of an image. LAWS 26.
func TestVersion2(t *testing.T) {
	body := strings.Repeat("\x07", 16)
	v2 := "\x01\x00\x00\x02" + body
	for _, tt := range []struct{ name, in, want string }{
		{"version 2", v2, v2},
		{"version 3 of root", "\x01\x00\x00\x03" + body + "\x00\x00\x00\x00", v2},
		{"version 3 of a namespace below", "\x01\x00\x00\x03" + body + "\x01\x00\x00\x00", "\x01\x00\x00\x03" + body + "\x01\x00\x00\x00"},
	} {
		if got := string(version2([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: got %x, want %x", tt.name, got, tt.want)
		}
	}
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	s := w.b.(*backend).steps[r.id]
	root := fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
	var file fuse.EntryOut
	if st := s.Lookup(nil, &root, "empty", &file); st != fuse.OK {
		t.Fatal(st)
	}
	in := fuse.SetXAttrIn{InHeader: fuse.InHeader{NodeId: file.NodeId}}
	if st := s.SetXAttr(nil, &in, capability, []byte("\x01\x00\x00\x03"+body+"\x00\x00\x00\x00")); st != fuse.OK {
		t.Fatal(st)
	}
	res := r.finish()
	if v, _ := res.Changes[0].Node.Xattr(capability); v != v2 {
		t.Errorf("capability in the layer: got %x, want %x", v, v2)
	}
}

// TestStatFs: the room that a program sees is the same whatever was written and whatever the host has. LAWS 8.
func TestStatFs(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	defer r.finish()
	const ask = "stat -f -c '%s %S %b %f %a %c %d %l' ."
	before := r.sh(ask)
	if after := r.sh("dd if=/dev/zero of=new bs=1M count=8 status=none; mkdir -p a/b/c; ls -R . >/dev/null; " + ask); after != before {
		t.Errorf("statfs: got %s after writing, want %s", after, before)
	}
}

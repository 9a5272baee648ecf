package fusefs

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// parent makes the layer that the operations below start from.
func (w *world) parent() string {
	linked := w.file(0o644, "linked\n")
	big := strings.Repeat("0123456789abcdef", 64<<10)
	return w.layer(tree.Changes{
		{Path: "", Node: dirNode()},
		{Path: "d", Node: dirNode()},
		{Path: "d/a", Node: w.file(0o644, "aaa\n")},
		{Path: "d/b", Node: w.file(0o600, "bbb\n")},
		{Path: "d/link", Node: linked},
		{Path: "d/sub", Node: dirNode()},
		{Path: "d/sub/x", Node: w.file(0o644, "xxx\n")},
		{Path: "d/sub/link", Node: linked},
		{Path: "e", Node: dirNode()},
		{Path: "e/link", Node: linked},
		{Path: "big", Node: w.file(0o644, big)},
		{Path: "empty", Node: w.file(0o644, "")},
		{Path: "frac", Node: &tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: 1000, Nsec: 5}}},
		{Path: "suid", Node: &tree.Node{Kind: tree.File, Mode: 0o6755, Mtime: tree.Time{Sec: 1000}, Xattrs: []tree.Xattr{{Name: "security.capability", Value: "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}}},
		{Path: "sym", Node: &tree.Node{Kind: tree.Symlink, Mode: 0o777, Mtime: tree.Time{Sec: 1000}, Size: 3, Target: "d/a"}},
		{Path: "sgid", Node: &tree.Node{Kind: tree.Dir, Mode: 0o2777, GID: 7, Mtime: tree.Time{Sec: 1000}}},
	})
}

// TestOperations checks the normal form of what single operations leave (LAWS 14), times rounded (LAWS 13).
func TestOperations(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"nothing", "ls -laR . >/dev/null; cat d/a big >/dev/null", ""},
		{"no-op chmod", "chmod -R u+rwX,go+rX d/sub; chmod 644 d/a frac; chown 0:0 d/b", ""},
		{"same bytes", "cp -p big big2; cat big2 > big; touch -d @1000 big; rm big2", ""},
		{"create and remove", "touch d/new; rm d/new; mkdir e/n; rmdir e/n", ""},
		{"rename away and back", "mv d/a d/z; mv d/z d/a; mv d q; mv q d", ""},
		{"chmod", "chmod 600 d/a", "d0755 0:0 1000 d\n-0600 0:0 1000 4 d/a"},
		{"chmod of a fraction", "chmod 600 frac", "-0600 0:0 1000 0 frac"},
		{"append", "echo more >> d/a", "d0755 0:0 1000 d\n-0644 0:0 now 9 d/a"},
		{"truncate", "truncate -s 2 d/a", "d0755 0:0 1000 d\n-0644 0:0 now 2 d/a"},
		{"overwrite", "echo z > d/a", "d0755 0:0 1000 d\n-0644 0:0 now 2 d/a"},
		{"unlink", "rm d/a", "d0755 0:0 now d\nx d/a"},
		{"remove tree", "rm -r d/sub", "d0755 0:0 now d\nx d/sub"},
		{"replace file by directory", "rm d/a; mkdir d/a; touch d/a/y", "d0755 0:0 1000 d\nd0755 0:0 now d/a\n-0644 0:0 now 0 d/a/y"},
		{"replace directory by file", "rm -r d/sub; echo q > d/sub", "d0755 0:0 1000 d\n-0644 0:0 now 2 d/sub"},
		{"rename file", "mv d/a e/c", "d0755 0:0 now d\nx d/a\nd0755 0:0 now e\n-0644 0:0 1000 4 e/c"},
		{"rename over", "mv d/a d/b", "d0755 0:0 now d\nx d/a\n-0644 0:0 1000 4 d/b"},
		{"rename directory", "mv d/sub e/s2", `
			d0755 0:0 now d
			-0644 0:0 1000 7 d/link
			x d/sub
			d0755 0:0 now e
			-0644 0:0 1000 7 e/link = d/link
			d0755 0:0 1000 e/s2
			-0644 0:0 1000 7 e/s2/link = d/link
			-0644 0:0 1000 4 e/s2/x`},
		{"rename directory that was never looked into", "mv d n", `
			x d
			d0755 0:0 1000 e
			-0644 0:0 1000 7 e/link
			d0755 0:0 1000 n
			-0644 0:0 1000 4 n/a
			-0600 0:0 1000 4 n/b
			-0644 0:0 1000 7 n/link = e/link
			d0755 0:0 1000 n/sub
			-0644 0:0 1000 7 n/sub/link = e/link
			-0644 0:0 1000 4 n/sub/x`},
		{"swap", "mv d/a t; mv d/b d/a; mv t d/b", "d0755 0:0 1000 d\n-0600 0:0 1000 4 d/a\n-0644 0:0 1000 4 d/b"},
		{"write through one name", "echo y >> e/link; cat d/link d/sub/link | grep -c y | grep 2", `
			d0755 0:0 1000 d
			-0644 0:0 now 9 d/link
			d0755 0:0 1000 d/sub
			-0644 0:0 now 9 d/sub/link = d/link
			d0755 0:0 1000 e
			-0644 0:0 now 9 e/link = d/link`},
		{"remove one name", "rm e/link; test $(stat -c %h d/link) = 2", "d0755 0:0 now e\nx e/link"},
		{"link", "ln d/a e/l; test $(stat -c %h d/a) = 2", "d0755 0:0 1000 d\n-0644 0:0 1000 4 d/a\nd0755 0:0 now e\n-0644 0:0 1000 4 e/l = d/a"},
		{"break a link", "cp -p e/link t; mv t e/link", "d0755 0:0 1000 e\n-0644 0:0 1000 7 e/link"},
		{"symlink", "ln -s nowhere d/s; touch -h -d @1000 sym; readlink sym | grep d/a", "d0755 0:0 now d\nl0777 0:0 now d/s -> nowhere"},
		{"pipe and socket", "mkfifo p; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'; test -S s", "p0644 0:0 now p"},
		{"chown clears privileges", "chown 0:0 suid; test $(stat -c %a suid) = 755; if getfattr -n security.capability suid; then exit 1; fi", "-0755 0:0 1000 0 suid"},
		{"write ends privileges", "echo >> suid; test $(stat -c %a suid) = 755", "-0755 0:0 now 1 suid"},
		{"setgid directory", "mkdir sgid/d; touch sgid/f", "d2777 0:7 now sgid\nd2755 0:7 now sgid/d\n-0644 0:7 now 0 sgid/f"},
		{"times", "touch -d @5.999 d/a; touch -d @-5 d/b; stat -c %.9Y d/a | grep 5.999", "d0755 0:0 1000 d\n-0644 0:0 5 4 d/a\n-0600 0:0 -5 4 d/b"},
		{"xattr", "setfattr -n user.x -v 1 d/a; getfattr -n user.x --only-values d/a | grep 1; setfattr -n user.y -v 2 d/b; setfattr -x user.y d/b", "d0755 0:0 1000 d\n-0644 0:0 1000 4 d/a [user.x=\"1\"]"},
		{"capability", "cp suid c; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 c; getfattr -n security.capability c", "-0755 0:0 now 0 c [security.capability=\"\\x01\\x00\\x00\\x02\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"]"},
		{"metadata of the root", "chmod 700 .", ""}, // unpackers ignore what a layer says of the root
		{"byte names", "touch \"$(printf 'a\\377b')\"", "-0644 0:0 now 0 \"a\\xffb\""},
		{"unlinked while open", "exec 3>gone; echo x >&3; rm gone; echo y >&3; test $(stat -Lc %h /proc/self/fd/3) = 0", ""},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			w := newWorld(t)
			r := w.mount(nil, w.parent())
			r.sh(tt.script)
			res := r.finish()
			expect(t, res, tt.want)
			again := w.mount(nil, r.layers[0], w.layer(res.Changes))
			again.sh("find . -type f -exec cat {} + >/dev/null; chmod -R u+r .")
			expect(t, again.finish(), "")
		})
	}
}

// TestRefused: what nobody could unpack is refused at write. LAWS 21, 24.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	long := strings.Repeat("n", 256)
	for _, tt := range []struct{ name, script, want string }{
		{"name", "touch " + long, "File name too long"},
		{"directory", "mkdir " + long, "File name too long"},
		{"rename", "mv d/a " + long, "File name too long"},
		{"lookup", "cat " + long, "File name too long"},
		{"device", "mknod null c 1 3", "Operation not permitted"},
		{"whiteout", "mknod w c 0 0", "Operation not permitted"},
		{"directory not empty", "rmdir d", "not empty"},
		{"rename over directory", "python3 -c 'import os; os.rename(\"e\", \"d\")'", "not empty"},
		{"exchange with nothing", "python3 -c '" + renameat2 + "ren(b\"d\", b\"nope\", 2)'", "No such file"},
		{"no replace", "python3 -c '" + renameat2 + "ren(b\"d/a\", b\"d/b\", 1)'", "File exists"},
		{"rename whiteout", "python3 -c '" + renameat2 + "ren(b\"d/a\", b\"d/n\", 4)'", "Invalid argument"},
		{"acl of nonsense", "setfattr -n system.posix_acl_access -v 0x0200000001 d/a", "Invalid argument"},
		{"default acl of a file", "setfacl -d -m u:1:r d/a", "Only directories"},
		{"another system attribute", "setfattr -n system.other -v 1 d/a", "not supported"},
		{"collapse", "fallocate -c -o 0 -l 4096 big", "not supported"},
		{"xattr create", "python3 -c 'import os; os.setxattr(\"d/a\", \"user.q\", b\"\"); os.setxattr(\"d/a\", \"user.q\", b\"\", os.XATTR_CREATE)'", "File exists"},
		{"xattr replace", "python3 -c 'import os; os.setxattr(\"d/a\", \"user.r\", b\"\", os.XATTR_REPLACE)'", "No data"},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			out, err := r.try(tt.script)
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("%s: got %v, %q, want %q", tt.script, err, out, tt.want)
			}
		})
	}
	r.finish()
}

const renameat2 = "import ctypes, os\ndef ren(a, b, f):\n  c = ctypes.CDLL(None, use_errno=True)\n  if c.renameat2(-100, a, -100, b, f) != 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"

func TestExchange(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh("python3 -c '" + renameat2 + "ren(b\"d/sub\", b\"e\", 2); ren(b\"d/a\", b\"d/b\", 2)'; ls d/sub/link e/x; cat d/a | grep bbb")
	expect(t, r.finish(), `
		d0755 0:0 1000 d
		-0600 0:0 1000 4 d/a
		-0644 0:0 1000 4 d/b
		d0755 0:0 1000 d/sub
		x d/sub/x
		d0755 0:0 1000 e
		-0644 0:0 1000 4 e/x`)
}

// TestStubs: mount points leave no trace. LAWS 25.
func TestStubs(t *testing.T) {
	w := newWorld(t)
	stubs := []recorder.Stub{{Path: "proc", Dir: true}, {Path: "etc/resolv.conf"}, {Path: "d/a"}, {Path: "deep/er", Dir: true}, {Path: "d/hosts"}}
	r := w.mount(stubs, w.parent())
	r.sh("test -d proc; test -f etc/resolv.conf; test -d deep/er; test -f d/hosts; grep aaa d/a; ls -laR . >/dev/null")
	expect(t, r.finish(), "")

	r = w.mount(stubs, w.parent())
	r.sh("touch etc/mine; rm etc/resolv.conf; echo own > etc/resolv.conf")
	expect(t, r.finish(), `
		d0755 0:0 now etc
		-0644 0:0 now 0 etc/mine
		-0644 0:0 now 4 etc/resolv.conf`)
}

// TestInodeNumbers: a function of the parent's path, and the same in readdir. LAWS 21.
func TestInodeNumbers(t *testing.T) {
	w := newWorld(t)
	parent := w.parent()
	const list = `python3 -c '
import os
for d, _, _ in sorted(os.walk(".")):
  for e in sorted(os.scandir(d), key=lambda e: e.name):
    i = e.inode()
    st = os.lstat(e.path)
    assert i == st.st_ino, (e.path, i, st)
    print(e.path, i, st.st_nlink, st.st_size)'`
	r := w.mount(nil, parent)
	first := r.sh(list)
	r.finish()
	r = w.mount(nil, parent)
	r.sh("cat e/link d/sub/x; mkdir new; mv d/a d/q; mv d/q d/a")
	second := r.sh(list + " | grep -v ./new")
	r.finish()
	if first != second {
		t.Errorf("inode numbers: got\n%s\nwant\n%s", second, first)
	}
	for line := range strings.Lines(first) {
		f := strings.Fields(line)
		if f[0] == "./d" && (f[2] != "1" || f[3] != "4096") {
			t.Errorf("directory: got links %s size %s, want 1 and 4096", f[2], f[3])
		}
	}
}

// TestDirectoryChangesWhileRead: a reader misses and repeats nothing that stayed.
func TestDirectoryChangesWhileRead(t *testing.T) {
	w := newWorld(t)
	cs := tree.Changes{{Path: "big", Node: dirNode()}}
	for i := range 3000 {
		cs = append(cs, tree.Change{Path: "big/base" + strings.Repeat("x", 20) + string(rune('a'+i%26)) + strconv.Itoa(i), Node: &tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: 1000}}})
	}
	r := w.mount(nil, w.layer(cs))
	out := r.sh(`python3 -c '
import os
for i in range(3000): open("big/new%d" % i, "w")
want = set(os.listdir("big"))
assert len(want) == 6000
seen, n = [], 0
for e in os.scandir("big"):
  seen.append(e.name); n += 1
  if n % 2: os.unlink("big/" + e.name)
  if n % 100 == 0: open("big/extra%d" % n, "w")
seen = [s for s in seen if not s.startswith("extra")]
assert len(seen) == len(set(seen)), "repeated"
assert set(seen) == want, "missed %d" % len(want - set(seen))
print("ok", len(os.listdir("big")))'`)
	if !strings.HasPrefix(out, "ok") {
		t.Errorf("readdir: got %q, want ok", out)
	}
	r.finish()
}

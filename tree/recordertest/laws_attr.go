package recordertest

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// longName is the longest name that there is.
var longName = strings.Repeat("n", 255)

// depth is how many directories deep makes.
const depth = 60

func deep() {
	must(mkdirAll(strings.Repeat("d/", depth)))
	write(strings.Repeat("d/", depth)+"f", "x")
}

func mkdirAll(p string) error {
	for i := range p {
		if p[i] == '/' {
			if err := unix.Mkdir(p[:i], 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func deepWant() string {
	var b strings.Builder
	p := ""
	for range depth {
		b.WriteString("d0755 0:0 now " + p + "d\n")
		p += "d/"
	}
	return b.String() + "-0644 0:0 now 1 " + p + "f\n"
}

// attrLaws are about what an entry is apart from its contents.
func attrLaws() []law {
	return []law{
		{
			name: "touch", do: func() { utimesAt("etc/motd", unix.Timespec{Nsec: unix.UTIME_NOW}) },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 6 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n"},
		},
		{
			// LAWS 13: rounded down to what a layer holds.
			name: "time in the past", do: func() { utimes("etc/motd", 1600000000, 999999999); utimes("link", 1, 0) },
			want: "d0755 0:0 T etc\n-0644 0:0 1600000000 6 etc/motd\nl0777 0:0 1 link -> etc/motd\n",
		},
		{
			name: "time before 1970", do: func() { utimes("etc/motd", -10, 500000000) },
			want: "d0755 0:0 T etc\n-0644 0:0 -10 6 etc/motd\n",
		},
		{
			name: "time in the same second", do: func() { utimes("etc/motd", epoch, 123) },
		},
		{
			name: "chmod", do: func() { chmod("etc/motd", 0o600) },
			want:     "d0755 0:0 T etc\n-0600 0:0 T 6 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n"},
		},
		{
			name: "chmod a directory", do: func() { chmod("dir", 0o700) },
			want: "d0700 0:0 T dir\n",
		},
		{
			// No layer can carry it; the next step sees the parent's root again.
			name: "chmod the root", do: func() { chmod(".", 0o700) },
		},
		{
			name: "chmod of a file with a fraction of a second", do: func() { chmod("frac", 0o600) },
			want: "-0600 0:0 T 5 frac\n",
		},
		{
			name: "chmod there and back", do: func() { chmod("etc/motd", 0); chmod("etc/motd", 0o644) },
		},
		{
			// LAWS 14: a no-op chmod -R costs nothing.
			name: "chmod that changes nothing", do: func() {
				everything(func(p string, info fs.FileInfo) {
					if info.Mode()&fs.ModeSymlink == 0 {
						var st unix.Stat_t
						must(unix.Lstat(p, &st))
						chmod(p, st.Mode&0o7777)
					}
				})
			},
		},
		{
			name: "chown", do: func() { chown("etc/motd", 1000, 1000); chown("link", 1000, -1) },
			want: "d0755 0:0 T etc\n-0644 1000:1000 T 6 etc/motd\nl0777 1000:0 T link -> etc/motd\n",
		},
		{
			name: "chown clears setuid", do: func() { chown("suid", 1000, 1000) },
			want: "-0755 1000:1000 T 5 suid\n",
		},
		{
			name: "chown clears capabilities", do: func() { chown("ping", 1000, 1000) },
			want: "-0755 1000:1000 T 5 ping\n",
		},
		{
			name: "setuid, setgid, sticky", do: func() { write("s", ""); chmod("s", 0o6711); mkdir("t"); chmod("t", 0o1777) },
			want: "-6711 0:0 now 0 s\nd1777 0:0 now t\n",
		},
		{
			name: "setgid directory", do: func() {
				mkdir("g")
				chown("g", 0, 1000)
				chmod("g", 0o2755)
				write("g/f", "x")
				mkdir("g/sub")
			},
			want: "d2755 0:1000 now g\n-0644 0:1000 now 1 g/f\nd2755 0:1000 now g/sub\n",
		},
	}
}

// xattrLaws are about extended attributes and file capabilities.
func xattrLaws() []law {
	return []law{
		{
			name: "xattrs", do: func() { setXattr("xa", "user.three", "3"); removeXattr("xa", "user.one") },
			want: `-0644 0:0 T 3 xa [user.three="3"] [user.two="\x00\xff"]` + "\n",
		},
		{
			name: "xattr of a directory and of a new file", do: func() { setXattr("etc", "user.d", ""); write("n", ""); setXattr("n", "user.n", "1") },
			want: `d0755 0:0 T etc [user.d=""]` + "\n" + `-0644 0:0 now 0 n [user.n="1"]` + "\n",
		},
		{
			name: "the same xattr again", do: func() { setXattr("xa", "user.one", "1") },
		},
		{
			// LAWS 24: what overlayfs would read is nobody's to write.
			name: "xattr of trouble", do: func() { _ = unix.Lsetxattr("etc/motd", "user.overlay.opaque", []byte("y"), 0) },
			notes: []string{""},
		},
		{
			// LAWS 26: capabilities are version 2 in a tree.
			name: "file capability", do: func() { setXattr("etc/motd", "security.capability", capNetRaw) },
			want: "d0755 0:0 T etc\n-0644 0:0 T 6 etc/motd " + capWant + "\n",
		},
		{
			name: "ACL", do: func() {
				setXattr("etc/motd", accessACL, userACL)
				setXattr("xa", accessACL, userACL)
				chmod("xa", 0o640)
			},
			want: "d0755 0:0 T etc\n-0674 0:0 T 6 etc/motd " + aclWant("access", 7, 4) + "\n-0640 0:0 T 3 xa " + aclWant("access", 4, 0) + ` [user.one="1"] [user.two="\x00\xff"]` + "\n",
		},
		{
			name: "default ACL", do: func() {
				mkdir("acl")
				setXattr("acl", defaultACL, userACL)
				mkdir("acl/sub")
				write("acl/f", "")
				setXattr("tmp", defaultACL, userACL)
				removeXattr("tmp", defaultACL)
			},
			want: "d0755 0:0 now acl " + aclWant("default", 7, 4) + "\n-0644 0:0 now 0 acl/f " + aclWant("access", 4, 4) + "\nd0654 0:0 now acl/sub " + aclWant("access", 5, 4) + " " + aclWant("default", 7, 4) + "\n",
		},
		{
			name: "chmod keeps a file capability", do: func() { chmod("ping", 0o711) },
			want: "-0711 0:0 T 5 ping " + capWant + "\n",
		},
		{
			name: "rename keeps a file capability", do: func() { rename("ping", "pong") },
			want: "x ping\n-0755 0:0 T 5 pong " + capWant + "\n",
		},
	}
}

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
	// userACL is u::rw, u:1000:rwx, g::r, m::rwx, o::r.
	userACL = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
)

// aclWant is userACL with another mask and other permissions for others, as text.
func aclWant(kind string, mask, other byte) string {
	v := []byte(userACL)
	v[4+3*8+2], v[4+4*8+2] = mask, other
	return fmt.Sprintf("[system.posix_acl_%s=%+q]", kind, v)
}

const capWant = `[security.capability="\x01\x00\x00\x02\x00 ` + `\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"]`

// kindLaws are about entries that are neither files nor directories.
func kindLaws() []law {
	return []law{
		{
			name: "symlink", do: func() { symlink("etc/motd", "new"); symlink("/no/where", "dir/away") },
			want: "d0755 0:0 now dir\nl0777 0:0 now dir/away -> /no/where\nl0777 0:0 now new -> etc/motd\n",
		},
		{
			name: "replace a symlink", do: func() { remove("link"); symlink("etc/passwd", "link") },
			want: "l0777 0:0 now link -> etc/passwd\n",
		},
		{
			name: "write through a symlink", do: func() { write("link", "x") },
			want: "d0755 0:0 T etc\n-0644 0:0 now 1 etc/motd\n",
		},
		{
			name: "fifo", do: func() { must(unix.Mkfifo("etc/p", 0o640)); remove("pipe") },
			want: "d0755 0:0 now etc\np0640 0:0 now etc/p\nx pipe\n",
		},
		{
			name: "bytes through a fifo", do: func() {
				f, err := os.OpenFile("pipe", os.O_RDWR, 0)
				must(err)
				_, err = f.WriteString("x")
				must(err)
				must(f.Close())
			},
		},
		{
			name: "socket", do: func() { listen("etc/s") },
			notes: []string{"etc/s"},
		},
		{
			name: "socket in place of a file", do: func() { remove("etc/motd"); listen("etc/motd") },
			want:  "d0755 0:0 now etc\nx etc/motd\n",
			notes: []string{"etc/motd"},
		},
		{
			name: "device", do: func() { expectErr(unix.Mknod("null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM) },
		},
	}
}

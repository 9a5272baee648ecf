package recordertest

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
)

// endLaws are about what happens when the command ends (LAWS 12).
func endLaws() []law {
	return []law{
		{
			name: "daemon with a dirty mapping",
			daemon: func(ready func()) {
				m := mapShared("etc/motd")
				m[0] = 'J'
				n := mapShared("data/big")
				n[len(n)-1] = '!'
				ready()
				forever()
			},
			want: "d0755 0:0 T data\n-0644 0:0 now 320000 data/big\nd0755 0:0 T etc\n-0644 0:0 now 6 etc/motd\n",
			contents: map[string]string{
				"etc/motd": "Jello\n", "data/big": big[:len(big)-1] + "!",
			},
		},
		{
			name: "daemon that writes to a file with a name",
			daemon: func(ready func()) {
				f, err := os.Create("log")
				must(err)
				_, err = f.WriteString("started\n")
				must(err)
				ready()
				forever()
			},
			want:     "-0644 0:0 now 8 log\n",
			contents: map[string]string{"log": "started\n"},
		},
		{
			name: "file open and unlinked at the end",
			daemon: func(ready func()) {
				for _, p := range []string{"etc/motd", "tmp/x"} {
					f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o644)
					must(err)
					remove(p)
					_, err = f.WriteString("nobody sees this")
					must(err)
				}
				ready()
				forever()
			},
			want: "d0755 0:0 now etc\nx etc/motd\n",
		},
		{
			name: "daemon in a directory that is gone",
			daemon: func(ready func()) {
				mkdir("cwd")
				must(os.Chdir("cwd"))
				remove("/cwd")
				ready()
				forever()
			},
			do: func() { write("x", "x") }, want: "-0644 0:0 now 1 x\n",
		},
	}
}

// stubLaws are about what the recorder shows for mounts: no trace of it stays
// (LAWS 25).
func stubLaws() []law {
	stubs := []recorder.Stub{
		{Path: "etc/resolv.conf"},
		{Path: "etc/motd"},
		{Path: "proc", Dir: true},
		{Path: "dir", Dir: true},
		{Path: "run/secrets/key"},
		{Path: "none/etc/resolv.conf"},
	}
	shown := func() {
		for _, s := range stubs {
			var st unix.Stat_t
			must(unix.Lstat(s.Path, &st))
			if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != s.Dir {
				panic("stub of the wrong kind: " + s.Path)
			}
		}
	}
	return []law{
		{name: "stubs", stubs: stubs, do: shown},
		{
			name: "stub beside a change", stubs: stubs, do: func() { write("etc/new", "x") },
			want: "d0755 0:0 now etc\n-0644 0:0 now 1 etc/new\n",
		},
		{
			name: "stub's directory in use", stubs: stubs, do: func() { write("none/etc/new", "x") },
			want: "d0755 0:0 now none\nd0755 0:0 now none/etc\n-0644 0:0 now 1 none/etc/new\n",
		},
		{
			name: "something in a stub", stubs: stubs, do: func() { write("proc/x", "x") },
			want: "d0755 0:0 now proc\n-0644 0:0 now 1 proc/x\n",
		},
		{
			name: "stub written", stubs: stubs, do: func() { write("etc/resolv.conf", "nameserver\n"); chmod("run/secrets/key", 0o600) },
		},
		{
			name: "stub removed", stubs: stubs, do: func() { remove("etc/resolv.conf"); removeAll("none") },
		},
		{
			name: "stub replaced", stubs: stubs, do: func() { remove("etc/resolv.conf"); write("etc/resolv.conf", "mine\n") },
			want:     "d0755 0:0 now etc\n-0644 0:0 now 5 etc/resolv.conf\n",
			contents: map[string]string{"etc/resolv.conf": "mine\n"},
		},
		{
			name: "directory of a stub removed", stubs: stubs, do: func() { removeAll("etc") },
			want: "x etc\n",
		},
		{
			name: "stub behind a symlink", stubs: []recorder.Stub{{Path: "resolv"}},
			do: func() { expect("resolv", read("run/x/resolv.conf"), "") },
		},
	}
}

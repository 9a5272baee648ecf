package recordertest

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fileLaws are about making, writing and cutting files.
func fileLaws() []law {
	return []law{
		{name: "nothing", do: func() {}},
		{
			name: "create", do: func() { write("etc/new", "x") },
			want:     "d0755 0:0 now etc\n-0644 0:0 now 1 etc/new\n",
			contents: map[string]string{"etc/new": "x"},
		},
		{
			name: "create in the root", do: func() { write("new", "") },
			want: "-0644 0:0 now 0 new\n",
		},
		{
			name: "append", do: func() { appendTo("etc/motd", "world\n") },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 12 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\nworld\n"},
		},
		{
			name: "append to an empty file", do: func() { appendTo("data/empty", "x") },
			want:     "d0755 0:0 T data\n-0644 0:0 now 1 data/empty\n",
			contents: map[string]string{"data/empty": "x"},
		},
		{
			name: "truncate to nothing", do: func() { truncate("data/big", 0) },
			want: "d0755 0:0 T data\n-0644 0:0 now 0 data/big\n",
		},
		{
			name: "shrink", do: func() { truncate("data/big", 100001) },
			want:     "d0755 0:0 T data\n-0644 0:0 now 100001 data/big\n",
			contents: map[string]string{"data/big": big[:100001]},
		},
		{
			name: "grow", do: func() { truncate("etc/motd", 10) },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 10 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n\x00\x00\x00\x00"},
		},
		{
			name: "shrink then grow", do: func() { truncate("etc/motd", 2); truncate("etc/motd", 4) },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 4 etc/motd\n",
			contents: map[string]string{"etc/motd": "he\x00\x00"},
		},
		{
			name: "open with O_TRUNC", do: func() { write("etc/motd", "bye\n") },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 4 etc/motd\n",
			contents: map[string]string{"etc/motd": "bye\n"},
		},
		{
			name: "overwrite in place", do: func() { writeAt("data/big", "HERE", 100000); writeAt("data/big", "THERE", 7) },
			want:     "d0755 0:0 T data\n-0644 0:0 now 320000 data/big\n",
			contents: map[string]string{"data/big": big[:7] + "THERE" + big[12:100000] + "HERE" + big[100004:]},
		},
		{
			name: "write past the end", do: func() { writeAt("etc/motd", "x", 8) },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 9 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n\x00\x00x"},
		},
		{
			name: "same bytes again", do: func() { write("etc/motd", "hello\n") },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 6 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n"},
		},
		{
			// LAWS 14: equal in content, type, mode, owner, xattrs and time.
			name: "same bytes and time again", do: func() { write("etc/motd", "hello\n"); utimes("etc/motd", epoch, 0) },
		},
		{
			name: "same file by rename", do: func() { write("etc/new", "hello\n"); utimes("etc/new", epoch, 0); rename("etc/new", "etc/motd") },
		},
		{
			// LAWS 22: only ctime and the bytes tell.
			name: "other bytes, same size and time", do: func() { writeAt("etc/motd", "J", 0); utimes("etc/motd", epoch, 0) },
			want:     "d0755 0:0 T etc\n-0644 0:0 T 6 etc/motd\n",
			contents: map[string]string{"etc/motd": "Jello\n"},
		},
	}
}

// unlinkLaws are about files that lose or never had a name.
func unlinkLaws() []law {
	return []law{
		{
			name: "unlink", do: func() { remove("etc/motd") },
			want: "d0755 0:0 now etc\nx etc/motd\n",
		},
		{
			name: "create and unlink", do: func() { write("etc/new", "x"); remove("etc/new") },
		},
		{
			name: "unlink and create again", do: func() { remove("etc/motd"); write("etc/motd", "new\n") },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 4 etc/motd\n",
			contents: map[string]string{"etc/motd": "new\n"},
		},
		{
			name: "unlink of an open file", do: unlinkOpen,
			want:     "d0755 0:0 now etc\n-0644 0:0 now 13 etc/copy\nx etc/motd\n",
			contents: map[string]string{"etc/copy": "hello\nunseen\n"},
		},
		{
			name: "file without a name linked in", do: func() { tmpFile("etc", "etc/new", "anonymous") },
			want:     "d0755 0:0 now etc\n-0644 0:0 now 9 etc/new\n",
			contents: map[string]string{"etc/new": "anonymous"},
		},
		{
			name: "large file", do: func() { write("large", strings.Repeat(big, 20)) },
			want:     "-0644 0:0 now 6400000 large\n",
			contents: map[string]string{"large": strings.Repeat(big, 20)},
		},
	}
}

// unlinkOpen writes to a file after its last name is gone, and reads it.
func unlinkOpen() {
	f, err := os.OpenFile("etc/motd", os.O_RDWR|os.O_APPEND, 0)
	must(err)
	remove("etc/motd")
	_, err = f.WriteString("unseen\n")
	must(err)
	buf := make([]byte, 13)
	_, err = f.ReadAt(buf, 0)
	must(err)
	write("etc/copy", string(buf))
	must(f.Close())
}

// contentLaws are about holes, mappings and copies inside the kernel.
func contentLaws() []law {
	return []law{
		{
			// LAWS 16: holes stay holes.
			name: "sparse file", do: func() { writeAt("sparse", "x", 50<<20); truncate("sparse", 100<<20) },
			want:  "-0644 0:0 now 104857600 sparse\n",
			dense: map[string]int64{"sparse": 1 << 20},
		},
		{
			name: "only a hole", do: func() { write("hole", ""); truncate("hole", 5000) },
			want:     "-0644 0:0 now 5000 hole\n",
			contents: map[string]string{"hole": strings.Repeat("\x00", 5000)},
		},
		{
			name: "write into a parent's sparse file", do: func() { writeAt("data/sparse", "x", 100) },
			want: "d0755 0:0 T data\n-0644 0:0 now 2101248 data/sparse\n",
			contents: map[string]string{
				"data/sparse": strings.Repeat("\x00", 100) + "x" + strings.Repeat("\x00", sparseHole-101) +
					strings.Repeat("s", sparseData) + strings.Repeat("\x00", sparseHole),
			},
			dense: map[string]int64{"data/sparse": 512 << 10},
		},
		{
			name: "fallocate", do: func() { fallocate("new", 0, 0, 10000) },
			want:     "-0644 0:0 now 10000 new\n",
			contents: map[string]string{"new": strings.Repeat("\x00", 10000)},
		},
		{
			name: "fallocate grows", do: func() { fallocate("etc/motd", 0, 2, 8) },
			want:     "d0755 0:0 T etc\n-0644 0:0 now 10 etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n\x00\x00\x00\x00"},
		},
		{
			name: "fallocate keeps the size", do: func() { write("new", "x"); fallocate("new", unix.FALLOC_FL_KEEP_SIZE, 0, 10000) },
			want:     "-0644 0:0 now 1 new\n",
			contents: map[string]string{"new": "x"},
		},
		{
			name: "punch a hole", do: func() {
				fallocate("data/big", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1000, 200000)
			},
			want:     "d0755 0:0 T data\n-0644 0:0 now 320000 data/big\n",
			contents: map[string]string{"data/big": big[:1000] + strings.Repeat("\x00", 200000) + big[201000:]},
		},
		{
			name: "shared mapping", do: func() {
				m := mapShared("etc/motd")
				m[0] = 'J'
				must(unix.Munmap(m))
				expect("read after write to a mapping", read("etc/motd"), "Jello\n")
			},
			want:     "d0755 0:0 T etc\n-0644 0:0 now 6 etc/motd\n",
			contents: map[string]string{"etc/motd": "Jello\n"},
		},
		{
			name: "shared mapping of a new file", do: func() {
				write("new", strings.Repeat("a", 10000))
				m := mapShared("new")
				m[9999] = 'z'
				must(unix.Msync(m, unix.MS_SYNC))
				m[0] = 'b'
			},
			want:     "-0644 0:0 now 10000 new\n",
			contents: map[string]string{"new": "b" + strings.Repeat("a", 9998) + "z"},
		},
		{
			name: "copy inside the kernel", do: copyRange,
			want:     "-0644 0:0 now 200000 copy\n",
			contents: map[string]string{"copy": big[50000:250000]},
		},
	}
}

func copyRange() {
	src, err := os.Open("data/big")
	must(err)
	dst, err := os.Create("copy")
	must(err)
	from, to := int64(50000), int64(0)
	for to < 200000 {
		n, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(200000-to), 0)
		must(err)
		if n == 0 {
			panic("copy_file_range: early end")
		}
	}
	must(dst.Close())
	must(src.Close())
}

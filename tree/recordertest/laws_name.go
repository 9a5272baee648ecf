package recordertest

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameLaws are about entries that move.
func renameLaws() []law {
	return []law{
		{
			name: "rename", do: func() { rename("etc/motd", "etc/motd2") },
			want:     "d0755 0:0 now etc\nx etc/motd\n-0644 0:0 T 6 etc/motd2\n",
			contents: map[string]string{"etc/motd2": "hello\n"},
		},
		{
			name: "rename over", do: func() { rename("etc/motd", "etc/passwd") },
			want:     "d0755 0:0 now etc\nx etc/motd\n-0644 0:0 T 6 etc/passwd\n",
			contents: map[string]string{"etc/passwd": "hello\n"},
		},
		{
			name: "rename over an open file", do: func() {
				f, err := os.Open("etc/passwd")
				must(err)
				rename("etc/motd", "etc/passwd")
				buf := make([]byte, 5)
				_, err = f.ReadAt(buf, 0)
				must(err)
				expect("file that lost its name", string(buf), "root\n")
				must(f.Close())
			},
			want: "d0755 0:0 now etc\nx etc/motd\n-0644 0:0 T 6 etc/passwd\n",
		},
		{
			name: "rename there and back", do: func() { rename("etc/motd", "etc/x"); rename("etc/x", "etc/motd") },
		},
		{
			name: "rename and write", do: func() { rename("etc/motd", "etc/x"); appendTo("etc/x", "more\n") },
			want:     "d0755 0:0 now etc\nx etc/motd\n-0644 0:0 now 11 etc/x\n",
			contents: map[string]string{"etc/x": "hello\nmore\n"},
		},
		{
			// LAWS 14: docker's overlay would say EXDEV; a tree moves whole.
			name: "rename a directory", do: func() { rename("dir", "dir2") },
			want: "x dir\nd0755 0:0 T dir2\nd0755 0:0 T dir2/sub\n-0644 0:0 T 4 dir2/sub/one\n-0644 0:0 T 4 dir2/sub/two\n-0644 0:0 T 6 dir2/three\n",
			contents: map[string]string{
				"dir2/sub/one": "one\n", "dir2/three": "three\n",
			},
		},
		{
			name: "rename a directory elsewhere", do: func() { rename("dir/sub", "etc/sub") },
			want: "d0755 0:0 now dir\nx dir/sub\nd0755 0:0 now etc\nd0755 0:0 T etc/sub\n-0644 0:0 T 4 etc/sub/one\n-0644 0:0 T 4 etc/sub/two\n",
		},
		{
			name: "rename a directory over an empty one", do: func() { mkdir("empty"); rename("dir/sub", "empty") },
			want: "d0755 0:0 now dir\nx dir/sub\nd0755 0:0 T empty\n-0644 0:0 T 4 empty/one\n-0644 0:0 T 4 empty/two\n",
		},
		{
			name: "rename a directory over a full one", do: func() { expectErr(unix.Rename("dir", "etc"), unix.ENOTEMPTY) },
		},
		{
			name: "rename a directory and write in it", do: func() { rename("dir", "dir2"); write("dir2/sub/new", "x"); remove("dir2/sub/one") },
			want: "x dir\nd0755 0:0 T dir2\nd0755 0:0 now dir2/sub\n-0644 0:0 now 1 dir2/sub/new\n-0644 0:0 T 4 dir2/sub/two\n-0644 0:0 T 6 dir2/three\n",
		},
		{
			name: "rename without replacing", do: func() {
				expectErr(unix.Renameat2(unix.AT_FDCWD, "etc/motd", unix.AT_FDCWD, "etc/passwd", unix.RENAME_NOREPLACE), unix.EEXIST)
			},
		},
		{
			name: "exchange", do: func() { exchange("etc/motd", "etc/passwd") },
			want:     "d0755 0:0 T etc\n-0644 0:0 T 5 etc/motd\n-0644 0:0 T 6 etc/passwd\n",
			contents: map[string]string{"etc/motd": "root\n", "etc/passwd": "hello\n"},
		},
		{
			name: "exchange a file and a directory", do: func() { exchange("etc/motd", "dir/sub") },
			want: "d0755 0:0 T dir\n-0644 0:0 T 6 dir/sub\nd0755 0:0 T etc\nd0755 0:0 T etc/motd\n-0644 0:0 T 4 etc/motd/one\n-0644 0:0 T 4 etc/motd/two\n",
		},
	}
}

// linkLaws are about names that share a file: in a layer every group is complete
// (LAWS 14).
func linkLaws() []law {
	return []law{
		{
			name: "hard link", do: func() { link("etc/motd", "etc/motd2") },
			want:     "d0755 0:0 now etc\n-0644 0:0 T 6 etc/motd\n-0644 0:0 T 6 etc/motd2 = etc/motd\n",
			contents: map[string]string{"etc/motd": "hello\n", "etc/motd2": "hello\n"},
		},
		{
			name: "two new names of a new file", do: func() { write("etc/b", "x"); link("etc/b", "dir/a") },
			want: "d0755 0:0 now dir\n-0644 0:0 now 1 dir/a\nd0755 0:0 now etc\n-0644 0:0 now 1 etc/b = dir/a\n",
		},
		{
			name: "hard link to a parent's group", do: func() { link("bin/tool", "bin/third") },
			want: "d0755 0:0 now bin\n-0755 0:0 T 8 bin/alias\n-0755 0:0 T 8 bin/third = bin/alias\n-0755 0:0 T 8 bin/tool = bin/alias\n",
		},
		{
			name: "write through one name of a group", do: func() { appendTo("links/b", "x") },
			want: "d0755 0:0 T links\n-0644 0:0 now 8 links/a\n-0644 0:0 now 8 links/b = links/a\n" +
				"d0755 0:0 T links2\n-0644 0:0 now 8 links2/c = links/a\n",
			contents: map[string]string{"links/a": "linked\nx", "links2/c": "linked\nx"},
		},
		{
			name: "chmod through one name of a group", do: func() { chmod("bin/alias", 0o700) },
			want: "d0755 0:0 T bin\n-0700 0:0 T 8 bin/alias\n-0700 0:0 T 8 bin/tool = bin/alias\n",
		},
		{
			name: "unlink one name of a group", do: func() { remove("links/a") },
			want: "d0755 0:0 now links\nx links/a\n",
		},
		{
			name: "unlink one name and write through another", do: func() { remove("links/a"); write("links/b", "y") },
			want: "d0755 0:0 now links\nx links/a\n-0644 0:0 now 1 links/b\nd0755 0:0 T links2\n-0644 0:0 now 1 links2/c = links/b\n",
		},
		{
			name: "unlink all names of a group", do: func() { remove("bin/alias"); remove("bin/tool") },
			want: "d0755 0:0 now bin\nx bin/alias\nx bin/tool\n",
		},
		{
			name: "break a link", do: func() { write("links/new", read("links/a")); rename("links/new", "links/a") },
			want: "d0755 0:0 T links\n-0644 0:0 now 7 links/a\n",
		},
		{
			// The bytes, mode and time are the parent's: only the group tells, and
			// one of its parts keeps what the parent has.
			name: "break a link and keep the time", do: func() {
				write("bin/new", read("bin/tool"))
				chmod("bin/new", 0o755)
				utimes("bin/new", epoch, 0)
				rename("bin/new", "bin/tool")
			},
			want: "d0755 0:0 T bin\n-0755 0:0 T 8 bin/tool\n",
		},
		{
			name: "rename one name of a group", do: func() { rename("links/a", "etc/z") },
			want: "d0755 0:0 now etc\n-0644 0:0 T 7 etc/z\nd0755 0:0 now links\nx links/a\n-0644 0:0 T 7 links/b = etc/z\n" +
				"d0755 0:0 T links2\n-0644 0:0 T 7 links2/c = etc/z\n",
		},
		{
			name: "rename a directory with one name of a group", do: func() { rename("links2", "links3") },
			want: "d0755 0:0 T links\n-0644 0:0 T 7 links/a\n-0644 0:0 T 7 links/b = links/a\nx links2\nd0755 0:0 T links3\n-0644 0:0 T 7 links3/c = links/a\n",
		},
		{
			// POSIX: renaming one name of a file onto another does nothing.
			name: "rename a name over its twin", do: func() { must(unix.Rename("bin/alias", "bin/tool")) },
		},
		{
			name: "remove a directory with one name of a group", do: func() { removeAll("links2") },
			want: "x links2\n",
		},
		{
			name: "join two files", do: func() { remove("etc/passwd"); link("etc/motd", "etc/passwd") },
			want: "d0755 0:0 T etc\n-0644 0:0 T 6 etc/motd\n-0644 0:0 T 6 etc/passwd = etc/motd\n",
		},
		{
			name: "hard link to a symlink", do: func() { must(unix.Link("link", "link2")) },
			want: "l0777 0:0 T link -> etc/motd\nl0777 0:0 T link2 -> etc/motd = link\n",
		},
	}
}

// dirLaws are about directories and entries that change their kind.
func dirLaws() []law {
	return []law{
		{
			name: "mkdir", do: func() { mkdir("etc/d") },
			want: "d0755 0:0 now etc\nd0755 0:0 now etc/d\n",
		},
		{
			name: "rmdir", do: func() { mkdir("etc/d"); remove("etc/d") },
		},
		{
			name: "replace a file by a directory", do: func() { remove("etc/motd"); mkdir("etc/motd"); write("etc/motd/x", "x") },
			want: "d0755 0:0 T etc\nd0755 0:0 now etc/motd\n-0644 0:0 now 1 etc/motd/x\n",
		},
		{
			name: "replace a directory by a file", do: func() { removeAll("dir"); write("dir", "x") },
			want: "-0644 0:0 now 1 dir\n",
		},
		{
			name: "replace a directory by a symlink to it", do: func() { rename("dir", "real"); symlink("real", "dir") },
			want: "l0777 0:0 now dir -> real\nd0755 0:0 T real\nd0755 0:0 T real/sub\n-0644 0:0 T 4 real/sub/one\n-0644 0:0 T 4 real/sub/two\n-0644 0:0 T 6 real/three\n",
		},
		{
			name: "remove a directory", do: func() { removeAll("dir") },
			want: "x dir\n",
		},
		{
			// Whiteouts for what is gone, never opaque marks (LAWS 14).
			name: "remove and make again", do: func() { removeAll("dir"); mkdir("dir"); write("dir/new", "x") },
			want: "d0755 0:0 now dir\n-0644 0:0 now 1 dir/new\nx dir/sub\nx dir/three\n",
		},
		{
			name: "remove and make the same again", do: func() {
				removeAll("dir/sub")
				mkdir("dir/sub")
				for _, s := range []string{"one", "two"} {
					write("dir/sub/"+s, s+"\n")
					utimes("dir/sub/"+s, epoch, 0)
				}
			},
		},
		{
			// LAWS 14: the time of a directory in which no name changed is none.
			name: "time of a directory", do: func() { utimes("etc", 1600000000, 0); write("dir/x", "x"); remove("dir/x") },
		},
		{
			name: "time of a directory with another name", do: func() { write("etc/x", "x"); utimes("etc", 1600000000, 999999999) },
			want: "d0755 0:0 1600000000 etc\n-0644 0:0 now 1 etc/x\n",
		},
		{name: "deep directories", do: deep, want: deepWant()},
		{
			name: "odd names", do: func() {
				mkdir("o")
				for _, s := range []string{"\xff\xfe", "a\nb", "-rf", " ", longName} {
					write("o/"+s, "x")
				}
				remove("odd/\xff\xfe")
				appendTo("odd/new\nline", "x")
			},
			want: "d0755 0:0 now o\n-0644 0:0 now 1 \"o/ \"\n-0644 0:0 now 1 o/-rf\n-0644 0:0 now 1 \"o/a\\nb\"\n" +
				"-0644 0:0 now 1 o/" + longName + "\n-0644 0:0 now 1 \"o/\\xff\\xfe\"\n" +
				"d0755 0:0 now odd\n-0644 0:0 now 6 \"odd/new\\nline\"\nx \"odd/\\xff\\xfe\"\n",
		},
		{
			name: "name too long", do: func() { expectErr(os.WriteFile(longName+"n", nil, 0o644), unix.ENAMETOOLONG) },
		},
	}
}

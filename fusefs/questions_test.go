package fusefs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// questionCases are operations, and what each asks of the parent that askParent makes (docs/design.md has the rules).
var questionCases = []struct{ name, ops string }{
	{"stat", "stat d/a"},
	{"stat again", "stat d/a; stat d/a"},
	{"lstat of a symlink", "lstat sym"},
	{"stat through a symlink", "stat sym"},
	{"stat through a symlink that dangles", "stat dangling"},
	{"statx AT_STATX_DONT_SYNC", "dontsync d/a"},
	{"statx for the time of birth", "btime d/a"},
	{"access", "access d/a 4; access d/a 1"},
	{"open without a read", "open d/a"},
	{"O_PATH", "opath d/a"},
	{"open by another user", "uread d/b"},
	{"read", "read d/a"},
	{"read again", "read d/a; read d/a"},
	{"read of one byte", "pread big 100000 1"},
	{"read behind the end", "pread d/a 100 1"},
	{"read of an empty file", "read empty"},
	{"read with O_DIRECT", "odirect d/a"},
	{"mapping that nobody touches", "mmap0 d/a"},
	{"mapping", "mmap d/a 4"},
	{"mapping behind the end", "mmap empty 4096"},
	{"fadvise", "fadvise d/a"},
	{"sendfile", "sendfile d/a"},
	{"splice", "splice d/a"},
	{"copy_file_range", "copy d/a e/n"},
	{"lseek SEEK_DATA", "seekdata d/a 0"},
	{"lseek SEEK_HOLE", "seekhole d/a 0"},
	{"lseek SEEK_END", "seekend d/a 0"},
	{"exec of a static program", "exec bin/busybox"},
	{"exec of a script", "exec bin/script"},
	{"readlink", "readlink sym; readlink sym"},
	{"list", "list d"},
	{"list again", "list d; list d"},
	{"list of the first few", "list1 d"},
	{"list of the root", "list ."},
	{"open of a directory", "opendir d"},
	{"chdir", "chdir d"},
	{"ls -l", "lslong d"},
	{"name that is not there", "stat nope"},
	{"name that is not there again", "stat nope; stat nope"},
	{"below a name that is not there", "stat nope/x/y"},
	{"below a file", "stat d/a/x"},
	{"name that is too long", "stat " + strings.Repeat("n", 256)},
	{"getxattr", "getx xattr user.a"},
	{"getxattr of nothing", "getx d/a user.a"},
	{"listxattr", "listx xattr"},
	{"getxattr of an ACL", "getx d/a system.posix_acl_access"},
	{"setxattr", "setx d/a user.a 1 0"},
	{"setxattr with XATTR_CREATE", "setx xattr user.a 1 1"},
	{"setxattr with XATTR_REPLACE", "setx d/a user.a 1 2"},
	{"removexattr", "rmx xattr user.a"},
	{"removexattr of nothing", "rmx d/a user.a"},
	{"chmod", "chmod d/a 0600"},
	{"chmod that changes nothing", "chmod d/a 0644"},
	{"chmod of a directory", "chmod d 0700"},
	{"chown", "chown d/a 1"},
	{"chown of a symlink", "chown sym 1"},
	{"utimensat", "utimes d/a"},
	{"truncate to 0", "trunc d/a 0"},
	{"truncate to 0, then read", "trunc d/a 0; read d/a"},
	{"truncate", "trunc d/a 2"},
	{"O_TRUNC", "otrunc d/a"},
	{"O_TRUNC, write, read", "creat d/a xyz; read d/a"},
	{"O_TRUNC, the same bytes and time", "rewrite d/a aaa"},
	{"append", "append d/a x"},
	{"write", "write d/a x"},
	{"write by another user", "uwrite d/b"},
	{"shared mapping", "mwrite d/a"},
	{"fallocate", "falloc d/a 0 8192 0"},
	{"fallocate that keeps the size", "falloc d/a 0 8192 1"},
	{"create", "create d/n x"},
	{"create, stat, read, remove", "create d/n x; stat d/n; read d/n; unlink d/n; stat d/n"},
	{"create in a directory of the step", "mkdir n; create n/x 1; stat n/y; list n"},
	{"create over a file", "creat d/b x"},
	{"O_EXCL of what is there", "create d/a x"},
	{"O_TMPFILE", "tmpfile d"},
	{"mkdir", "mkdir d/n"},
	{"mkdir of what is there", "mkdir d"},
	{"mkfifo", "mkfifo d/n"},
	{"symlink", "symlink x d/n"},
	{"link", "link d/a e/n"},
	{"link to a file of several names", "link e/link e/n"},
	{"link onto what is there", "link d/a d/b"},
	{"unlink", "unlink d/a"},
	{"unlink of nothing", "unlink d/nope"},
	{"unlink of a directory", "unlink d"},
	{"unlink of one name of several", "unlink e/link"},
	{"rmdir", "rmdir void"},
	{"rmdir of a directory that is not empty", "rmdir d"},
	{"rmdir of a file", "rmdir d/a"},
	{"rename", "rename d/a e/n"},
	{"rename onto a file", "rename d/a d/b"},
	{"rename onto an empty directory", "rename d/sub void"},
	{"rename onto a directory that is not empty", "rename void d"},
	{"rename with RENAME_NOREPLACE", "noreplace d/a d/b"},
	{"rename with RENAME_EXCHANGE", "exchange d/a d/b"},
	{"rename of a directory", "rename d n"},
	{"rename of a directory, then look into it", "rename d n; read n/a; stat n/nope; stat d/a"},
	{"rename away and back", "rename d/a d/n; rename d/n d/a"},
	{"stat of one name of several", "stat d/link"},
	{"read of one name of several, stat of another", "read d/link; stat e/link"},
	{"stat of one name of several, read of another", "stat d/link; read e/link"},
	{"write to one name of several", "append d/link x"},
	{"flock and fcntl locks", "flock d/a"},
	{"inotify", "inotify d/a"},
	{"name_to_handle_at", "handle d/a"},
	{"FS_IOC_GETFLAGS", "flags d/a"},
	{"fcntl F_GETLK", "getlock d/a"},
	{"fcntl F_SETLEASE", "lease d/a"},
	{"fcntl F_NOTIFY", "dnotify d"},
	{"fanotify", "fanotify d/a"},
	{"getcwd", "getcwd"},
	{"above the root", "access .. 4"},
	{"openat2 RESOLVE_NO_SYMLINKS", "openat2 sym 4"},
	{"openat2 RESOLVE_BENEATH", "openat2 d/a 8"},
	{"openat2 RESOLVE_IN_ROOT through a symlink", "openat2 sym 16"},
	{"openat2 RESOLVE_CACHED", "openat2 d/a 32"},
	{"faccessat2", "faccessat2 sym"},
	{"statx of a descriptor", "statxfd d/a"},
	{"readahead", "readahead d/a"},
	{"preadv2 RWF_NOWAIT", "preadv2 d/a 8"},
	{"madvise MADV_WILLNEED", "advise d/a 3"},
	{"madvise MADV_POPULATE_READ", "advise d/a 22"},
	{"private mapping to execute", "mapx d/a"},
	{"exec by descriptor", "execfd bin/busybox"},
	{"open_by_handle_at", "handleopen d/a"},
	{"FICLONE", "ficlone d/a e/n"},
	{"FIEMAP", "fiemap d/a"},
	{"FS_IOC_FSGETXATTR", "fsgetxattr d/a"},
	{"FS_IOC_GETVERSION", "getversion d/a"},
	{"FIONREAD", "fionread d/a"},
	{"io_uring, open and read", "uringread d/a"},
	{"io_uring, statx", "uringstatx d/a 0"},
	{"io_uring, statx AT_STATX_DONT_SYNC", "uringstatx d/a 0x4000"},
	{"bind mount", "bind d e a"},
	{"socket", "bindsocket d/n"},
	{"O_TMPFILE, then link", "tmplink d d/n"},
	{"rename with RENAME_WHITEOUT", "whiteout d/a d/n"},
	{"ls -l of a program", "box ls -l d"},
	{"find", "box find d"},
	{"du", "box du d"},
	{"grep -r", "box grep -r bbb d"},
	{"tar c", "box tar -cf /dev/null d/sub"},
	{"cp -a", "box cp -a d/sub n"},
	{"rm -r", "box rm -r d/sub"},
	{"test -e of what is not there", "box test -e d/nope"},
	{"test -x", "box test -x d/a"},
	{"statfs", "statfs d"},
	{"fsync", "fsync d/a"},
}

// askParent is the parent of questionCases.
func (w *world) askParent() string {
	box, err := os.ReadFile(filepath.Join(testenv.BusyboxRoot(w.t), "bin", "busybox"))
	if err != nil {
		w.t.Fatal(err)
	}
	file := w.parent()
	xattr := w.file(0o644, "x\n")
	xattr.Xattrs = []tree.Xattr{{Name: "user.a", Value: "1"}, {Name: "user.b", Value: "2"}}
	data, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	cs, err := tree.Decode(data)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.layer(append(cs, tree.Changes{
		{Path: "bin", Node: dirNode()},
		{Path: "bin/busybox", Node: w.file(0o755, string(box))},
		{Path: "bin/script", Node: w.file(0o755, "#!bin/busybox\n")},
		{Path: "dangling", Node: &tree.Node{Kind: tree.Symlink, Mode: 0o777, Size: 6, Target: "d/nope"}},
		{Path: "void", Node: dirNode()},
		{Path: "xattr", Node: xattr},
	}...))
}

// traced runs operations on a fresh mount over layers.
func (w *world) traced(b recorder.Backend, a *asker, ops []string, layers ...string) ([]string, recorder.Result) {
	w.t.Helper()
	w.count++
	id := fmt.Sprint("step", w.count)
	work := filepath.Join(w.dir, "work", id)
	if err := os.Mkdir(work, 0o755); err != nil {
		w.t.Fatal(err)
	}
	root, err := b.Mount(context.Background(), recorder.Spec{ID: id, Layers: layers, PackDir: w.packs.Dir(), WorkDir: work, Trace: true})
	if err != nil {
		w.t.Fatalf("mount: %v", err)
	}
	seen := a.do(root, ops)
	res, err := b.Finish(context.Background(), id)
	if err != nil {
		w.t.Fatalf("finish of %q: %v", ops, err)
	}
	return seen, res
}

// asked is questions as text; what every step asks is left out.
func asked(list []trace.Question) string {
	var words []string
	for i := 0; i < len(list); {
		p, kinds := list[i].Path, []string(nil)
		for ; i < len(list) && list[i].Path == p; i++ {
			kinds = append(kinds, list[i].Kind.String())
		}
		if p == "" && len(kinds) == 1 {
			continue
		}
		words = append(words, "/"+p+" "+strings.Join(kinds, "+"))
	}
	return strings.Join(words, ", ")
}

var golden = filepath.Join("testdata", "questions.golden")

// had reports whether the kernel that runs the tests has what a case is about, and lets it be used.
func had(name string, seen []string) bool {
	last := seen[len(seen)-1]
	guarded := strings.HasPrefix(name, "io_uring") || name == "fanotify" || name == "bind mount"
	return !strings.HasSuffix(last, unix.ENOSYS.Error()) && (!guarded || !strings.HasSuffix(last, unix.EPERM.Error()))
}

// wantLine is the golden line of a case.
func wantLine(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: this kernel does not have it", name)
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, name+": ") {
			return line
		}
	}
	return ""
}

// TestQuestions holds what each operation asks of the parent, on the kernel that runs it: LAWS 2, 3, 4. Each is done in two
// steps, which must ask the same (LAWS 1).
func TestQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := newAsker(t)
	layer := w.askParent()
	var got strings.Builder
	for _, c := range questionCases {
		ops := strings.Split(c.ops, "; ")
		seen, res := w.traced(w.b, a, ops, layer)
		_, again := w.traced(w.b, a, ops, layer)
		if res.Doubt != "" || again.Doubt != "" {
			t.Errorf("%s: got doubt %q, %q, want none", c.name, res.Doubt, again.Doubt)
		}
		if !slices.Equal(res.Questions, again.Questions) {
			t.Errorf("%s: the second step asks\n%s\nthe first\n%s", c.name, asked(again.Questions), asked(res.Questions))
		}
		if !slices.IsSortedFunc(res.Questions, trace.Question.Compare) {
			t.Errorf("%s: questions out of order: %s", c.name, asked(res.Questions))
		}
		for _, line := range seen {
			if strings.Contains(line, "no such operation") {
				t.Errorf("%s: %s", c.name, line)
			}
		}
		line := fmt.Sprintf("%s: %s\n", c.name, asked(res.Questions))
		if !had(c.name, seen) { // by no fault of ours
			line = wantLine(t, c.name)
		}
		got.WriteString(line)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) && !*alwaysGive {
		t.Errorf("questions: got\n%s\nwant\n%s", got.String(), want)
	}
}

// withoutTimes is a text form of changes in which all times are alike.
func withoutTimes(cs tree.Changes) string {
	var out strings.Builder
	for line := range strings.Lines(tree.Format(cs)) {
		f := strings.Split(line, " ")
		if len(f) > 3 && f[0] != "x" && f[0] != "h" {
			f[2] = "now"
		}
		out.WriteString(strings.Join(f, " "))
	}
	return out.String()
}

// TestQuestionsAfterEviction does everything twice, and between the two the kernel forgets what it had in its caches: it asks
// the server again, a program sees the same, and the trace is that of a kernel that remembers. LAWS 1, 2.
func TestQuestionsAfterEviction(t *testing.T) {
	if unix.Access(dropCaches, unix.W_OK) != nil {
		return // root's alone, and not in every container
	}
	w := newWorld(t)
	a := newAsker(t)
	layer := w.askParent()
	roots, seen := make([]*running, len(questionCases)), make([][]string, len(questionCases))
	for k, c := range questionCases {
		roots[k] = w.mount(nil, layer)
		seen[k] = a.do(roots[k].root, strings.Split(c.ops, "; "))
	}
	first := w.b.(*backend).steps[roots[0].id]
	before := first.counts[opLookup].Load()
	if err := evict(); err != nil {
		t.Fatal(err)
	}
	for k, c := range questionCases {
		seen[k] = append(seen[k], a.do(roots[k].root, strings.Split(c.ops, "; "))...)
	}
	if first.counts[opLookup].Load() == before {
		t.Errorf("%s: nothing was asked again: the test says nothing", questionCases[0].name)
	}
	for k, c := range questionCases {
		ops := strings.Split(c.ops, "; ")
		want, without := w.traced(w.b, a, append(slices.Clone(ops), ops...), layer)
		with := roots[k].finish()
		if diff := cmp.Diff(want, seen[k]); diff != "" {
			t.Errorf("%s: after an eviction the program sees (-without +with):\n%s", c.name, diff)
		}
		if got, want := asked(with.Questions), asked(without.Questions); got != want || with.Doubt != "" {
			t.Errorf("%s: after an eviction: got doubt %q, questions\n%s\nwant\n%s", c.name, with.Doubt, got, want)
		}
		if diff := cmp.Diff(withoutTimes(without.Changes), withoutTimes(with.Changes)); diff != "" {
			t.Errorf("%s: after an eviction the layer differs (-without +with):\n%s", c.name, diff)
		}
	}
}

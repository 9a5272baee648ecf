package fusefs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

var (
	update   = flag.Bool("update", false, "rewrite golden files")
	programs = flag.Bool("programs", false, "by hand: the requests of programs that others wrote")
)

// opNames are those of the requests that programs cause.
var opNames = map[int]string{
	1: "LOOKUP", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR", 10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN",
	15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH",
	27: "OPENDIR", 28: "READDIR", 34: "ACCESS", 35: "CREATE", 39: "IOCTL", 40: "POLL", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE",
	51: "TMPFILE", 52: "STATX", 53: "COPY_FILE_RANGE_64",
}

// requestCases each run in a process of its own on a fresh mount, on which OPEN, OPENDIR and FLUSH were answered before.
// A first line of two does not count.
var requestCases = []struct{ name, script string }{
	{"stat of a parent file", "os.stat('d/a')"},
	{"stat again", "os.stat('d/a'); os.stat('d/a')"},
	{"stat of nothing", "exists('d/nope')"},
	{"stat of nothing again", "exists('d/nope'); exists('d/nope')"},
	{"read of a parent file", "read('d/a')"},
	{"read again", "read('d/a'); read('d/a')"},
	{"read of 1 MiB", "read('big')"},
	{"list", "os.listdir('d')"},
	{"list again", "os.listdir('d'); os.listdir('d')"},
	{"readlink twice", "os.readlink('sym'); os.readlink('sym')"},
	{"create of an empty file", "os.close(create('n'))"},
	{"create and write of a small file", "f = create('n'); os.write(f, b'x' * 5000); os.close(f)"},
	{"ten small files in one directory", "for i in range(10): f = create('n%d' % i); os.write(f, b'x' * 5000); os.close(f)"},
	{"ten small files as tar x makes them", "for i in range(10): f = create('n%d' % i); os.write(f, b'x' * 5000); os.utime(f, (1, 1)); os.fchown(f, 1, 1); os.fchmod(f, 0o600); os.close(f)"},
	{"create, write, read back", "f = create('n'); os.write(f, b'x' * 5000); os.close(f); read('n'); read('n')"},
	{"1 MiB in 128 KiB", "f = create('n'); [os.write(f, bytes(131072)) for i in range(8)]; os.close(f)"},
	{"64 KiB in 4 KiB", "f = create('n'); [os.write(f, bytes(4096)) for i in range(16)]; os.close(f)"},
	{"append to a parent file", "f = os.open('d/a', os.O_WRONLY | os.O_APPEND); os.write(f, b'more'); os.close(f)"},
	{"truncate of a parent file on open", "f = os.open('d/a', os.O_WRONLY | os.O_TRUNC); os.write(f, b'new'); os.close(f)"},
	{"chmod, chown, utimes", "os.chmod('d/a', 0o600); os.chown('d/a', 1, 1); os.utime('d/a', (1, 1))"},
	{"mkdir", "os.mkdir('n')"},
	{"rename", "os.rename('d/a', 'e/n')"},
	{"rename over", "os.rename('d/a', 'd/b')"},
	{"link", "os.link('d/a', 'e/n')"},
	{"unlink", "os.unlink('d/a')"},
	{"getxattr and listxattr", "os.listxattr('suid'); os.getxattr('suid', 'security.capability')"},
	{"setxattr", "os.setxattr('d/a', 'user.x', b'1')"},
	{"fsync", "f = create('n'); os.write(f, b'x'); os.fsync(f); os.close(f)"},
	{"copy_file_range of a parent file", "f = os.open('big', 0); g = create('n'); os.copy_file_range(f, g, 1 << 20)"},
	{"shared mapping of a parent file", "f = os.open('big', os.O_RDWR); m = mmap.mmap(f, 1 << 20); m[0] = 1; m.flush(); m.close(); os.close(f)"},
	// Of 640 files in 64 directories of the parent (walk.go), and of as many that the step makes.
	{"walk that looks at every file", "walk()"},
	{"walk that looks at every file, again", "walk(); walk()"},
	{"walk that looks at no file", "walk(0)"},
	{"walk that looks at three files of ten", "walk(3)"},
	{"chmod of all", "walk(99, lambda p: os.chmod(p, 0o600))"},
	{"removal of all", "walk(99, os.unlink, os.rmdir)"},
	{"removal of new files", "files('n')\nwalk(99, os.unlink, os.rmdir, 'n')"},
	{"copy of all", "walk(99, copy)"},
}

// programCases are what programs of others ask, by hand: coreutils 9.1, findutils 4.9, GNU tar 1.34, rsync 3.2.7, git 2.39.
var programCases = []struct{ name, script string }{
	{"find of a name", "run('find', 'w', '-name', 'x')"},
	{"find of a size", "run('find', 'w', '-size', '+1')"},
	{"ls -R", "run('ls', '-R', 'w')"},
	{"ls -lR", "run('ls', '-lR', 'w')"},
	{"du", "run('du', 'w')"},
	{"grep -r", "run('grep', '-rq', 'none', 'w')"},
	{"tar c", "run('tar', 'cf', '/dev/zero', 'w')"},
	{"rsync -a", "run('rsync', '-a', 'w', 'v')"},
	{"chmod -R", "run('chmod', '-R', 'o-r', 'w')"},
	{"chown -R", "run('chown', '-R', '1:1', 'w')"},
	{"rm -rf", "run('rm', '-rf', 'w')"},
	{"rm -rf of new files", "files('n')\nrun('rm', '-rf', 'n')"},
	{"cp -r", "run('cp', '-r', 'w', 'v')"},
	{"cp -a", "run('cp', '-a', 'w', 'v')"},
	{"cp -a of new files", "files('n')\nrun('cp', '-a', 'n', 'v')"},
	{"git add", "run('git', 'init', '-q', '.')\nrun('git', 'add', 'w')"},
	{"git status", "run('git', 'init', '-q', '.'); run('git', 'add', 'w')\nrun('git', 'status')"},
}

const requestHelpers = `
import os, sys, mmap, subprocess
def exists(p): return os.path.exists(p)
def read(p):
  f = os.open(p, os.O_RDONLY)
  while os.read(f, 1 << 20): pass
  os.close(f)
def create(p): return os.open(p, os.O_RDWR | os.O_CREAT | os.O_EXCL)
def walk(most=99, look=os.lstat, leave=lambda d: None, top='w'):
  dirs = []
  for d, _, files in os.walk(top):
    dirs.append(d)
    for f in files[:most]: look(d + '/' + f)
  for d in reversed(dirs): leave(d)
def copy(p):
  f = os.open(p, os.O_RDONLY); g = create('e/' + p.replace('/', '-')); os.copy_file_range(f, g, 1 << 20); os.close(f); os.close(g)
def files(top):
  for i in range(640):
    d = top + '/%d' % (i // 10)
    os.makedirs(d, exist_ok=True)
    f = create(d + '/%d' % (i % 10)); os.write(f, b'some'); os.close(f)
def run(*args): subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def start():
  read('empty'); os.listdir('sgid'); f = create('warm'); os.close(f); os.stat('.')
  sys.stdout.write('ready\n'); sys.stdout.flush(); sys.stdin.readline()
`

// TestRequests holds what each operation asks the server for: the cost of a file is the number of its requests.
// With -programs, programs of others instead.
func TestRequests(t *testing.T) {
	t.Parallel()
	cases, golden := requestCases, filepath.Join("testdata", "requests.golden")
	if *programs {
		cases, golden = programCases, filepath.Join("testdata", "requests-programs.golden")
	}
	var got strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&got, "%s: %s\n", c.name, requests(t, c.script))
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
		t.Errorf("requests: got\n%s\nwant\n%s", got.String(), want)
	}
}

// walkable is a layer of 640 files in 64 directories.
func (w *world) walkable() string {
	cs, file := tree.Changes{{Path: "w", Node: dirNode()}}, *w.file(0o644, "some")
	for d := range 64 {
		cs = append(cs, tree.Change{Path: fmt.Sprintf("w/%02d", d), Node: dirNode()})
		for f := range 10 {
			node := file
			cs = append(cs, tree.Change{Path: fmt.Sprintf("w/%02d/%d", d, f), Node: &node})
		}
	}
	return w.layer(cs)
}

// requests are what a script of requestCases asked for, in the order of their numbers.
func requests(t *testing.T, script string) string {
	t.Helper()
	first, script, two := strings.Cut(script, "\n")
	if !two {
		first, script = "", first
	}
	w := newWorld(t)
	r := w.mount(nil, w.parent(), w.walkable())
	s := w.b.(*backend).steps[r.id]
	cmd := r.command("chdir", "python3", "-c", requestHelpers+first+"\nstart()\n"+script+"\n")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	before := map[int]uint64{}
	for op := range opNames {
		before[op] = s.counts[op].Load()
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	var words []string
	for op := range opcodes {
		if n := s.counts[op].Load() - before[op]; opNames[op] != "" && n > 0 {
			words = append(words, fmt.Sprint(opNames[op], " ", n))
		}
	}
	r.finish()
	return strings.Join(words, ", ")
}

package recordertest

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// Random does random operations, the same ones on a and on b, and demands the
// same answers, changes and contents. Operations that meet one of the exceptions are
// left out, on both.
func Random(t *testing.T, a, b func(t *testing.T) recorder.Backend, seeds []int64, exceptions ...Exception) {
	var but []string
	for _, e := range exceptions {
		but = append(but, strconv.Itoa(int(e)))
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
			gotA, gotB := randomRun(t, a, seed, but), randomRun(t, b, seed, but)
			if diff := cmp.Diff(strings.Split(gotA, "\n"), strings.Split(gotB, "\n")); diff != "" {
				t.Errorf("seed %d (-first +second):\n%s", seed, diff)
			}
		})
	}
}

// randomRun returns all that a run showed, as text.
func randomRun(t *testing.T, newBackend func(t *testing.T) recorder.Backend, seed int64, but []string) string {
	t.Helper()
	bench := newBench(t)
	backend := open(t, newBackend)
	parent, layers := bench.parent()
	start := time.Now()
	spec := bench.spec(layers, nil)
	root, err := backend.Mount(t.Context(), spec)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	log, err := command(t.Context(), root, append([]string{"random", fmt.Sprint(seed)}, but...)...)
	if err != nil {
		t.Errorf("random operations: %v\n%s", err, log)
	}
	res, err := backend.Finish(t.Context(), spec.ID)
	if err != nil {
		t.Fatalf("finish: %v", err)
	}
	bench.roundTrip(backend, parent, layers, nil, res.Changes)
	var out strings.Builder
	out.WriteString(log + text(res.Changes, start))
	for _, c := range res.Changes {
		if c.Node != nil && c.Node.Kind == tree.File {
			fmt.Fprintf(&out, "%s: %q\n", c.Path, squeeze(bench.read(c.Node)))
		}
	}
	return out.String()
}

// squeeze shortens runs of one byte.
func squeeze(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		n := len(s) - len(strings.TrimLeft(s, s[:1]))
		if n > 8 {
			fmt.Fprintf(&b, "%s*%d ", s[:1], n)
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// pool are the names that random operations use: few, so that they meet.
var pool = []string{
	"bin/alias", "bin/tool", "bin/new", "dir", "dir/sub", "dir/sub/one", "dir/sub/two", "dir/three", "dir/four", "etc/motd", "etc/new", "data/sparse",
	"links", "links/a", "links/b", "links2/c", "links2", "link", "new", "new/x", "new/y", "pipe", "home/f", "xa", "frac", "data/empty",
}

// grouped are the names of pool that share a file in the parent.
var grouped = []string{"bin/alias", "bin/tool", "links/a", "links/b", "links2/c"}

// randomOps does operations that depend on the seed alone and prints how each
// ended.
func randomOps(seed int64, but []Exception) error {
	r := rand.New(rand.NewSource(seed))
	names := pool
	if slices.Contains(but, BreaksLinks) {
		names = slices.DeleteFunc(slices.Clone(pool), func(p string) bool { return slices.Contains(grouped, p) })
	}
	name := func() string { return names[r.Intn(len(names))] }
	for range 60 {
		op, a, b, k := r.Intn(len(operations)), name(), name(), r.Intn(10000)
		if slices.Contains(but, NoDirRename) && slices.Contains([]string{"rename", "exchange"}, operations[op].name) && (isDir(a) || isDir(b)) {
			continue
		}
		err := operations[op].do(a, b, k)
		if _, err := fmt.Println(operations[op].name, a, b, k, errno(err)); err != nil {
			return err
		}
	}
	return nil
}

func isDir(p string) bool {
	var st unix.Stat_t
	return unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func errno(err error) string {
	if err == nil {
		return ""
	}
	for _, e := range []unix.Errno{unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL, unix.ENXIO, unix.EPERM, unix.ELOOP, unix.ENODATA} {
		if strings.Contains(err.Error(), e.Error()) {
			return e.Error()
		}
	}
	return err.Error()
}

// operations that random draws from.
var operations = []struct {
	name string
	do   func(a, b string, k int) error
}{
	{"write", func(a, _ string, k int) error {
		return withFile(a, os.O_CREATE|os.O_TRUNC, func(f *os.File) error { _, err := f.WriteString(strings.Repeat("w", k)); return err })
	}},
	{"write at", func(a, _ string, k int) error {
		return withFile(a, 0, func(f *os.File) error { _, err := f.WriteAt([]byte("patch"), int64(k)); return err })
	}},
	{"append", func(a, _ string, k int) error {
		return withFile(a, os.O_APPEND, func(f *os.File) error { _, err := fmt.Fprint(f, k); return err })
	}},
	{"truncate", func(a, _ string, k int) error {
		return withFile(a, 0, func(f *os.File) error { return f.Truncate(int64(k)) })
	}},
	{"punch", func(a, _ string, k int) error {
		return withFile(a, 0, func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(k/2), int64(k+1))
		})
	}},
	{"rename", func(a, b string, _ int) error { return unix.Rename(a, b) }},
	{"exchange", func(a, b string, _ int) error {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}},
	{"link", func(a, b string, _ int) error { return unix.Link(a, b) }},
	{"symlink", func(a, b string, _ int) error { return unix.Symlink(a, b) }},
	{"unlink", func(a, _ string, _ int) error { return unix.Unlink(a) }},
	{"rmdir", func(a, _ string, _ int) error { return unix.Rmdir(a) }},
	{"rm -r", func(a, _ string, k int) error {
		if k%4 > 0 {
			return nil
		}
		// RemoveAll opens the directory above, and would wait for a fifo's writer.
		if info, err := os.Stat(filepath.Dir(a)); err != nil || !info.IsDir() {
			return err
		}
		return os.RemoveAll(a)
	}},
	{"mkdir", func(a, _ string, _ int) error { return unix.Mkdir(a, 0o755) }},
	{"chmod", func(a, _ string, k int) error { return unix.Fchmodat(unix.AT_FDCWD, a, uint32(k)&0o777|0o400, 0) }},
	{"chown", func(a, _ string, k int) error { return unix.Lchown(a, k%3, k%2) }},
	{"utimes", func(a, _ string, k int) error {
		ts := unix.Timespec{Sec: 1500000000 + int64(k), Nsec: int64(k)}
		return unix.UtimesNanoAt(unix.AT_FDCWD, a, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}},
	{"setxattr", func(a, _ string, k int) error {
		return unix.Setxattr(a, fmt.Sprint("user.", k%3), []byte(fmt.Sprint(k)), 0)
	}},
	{"removexattr", func(a, _ string, _ int) error { return unix.Removexattr(a, "user.one") }},
	{"mkfifo", func(a, _ string, _ int) error { return unix.Mkfifo(a, 0o644) }},
}

// withFile opens a regular file for writing; a fifo's time is no recorder's
// strength.
func withFile(p string, flags int, fn func(*os.File) error) error {
	f, err := os.OpenFile(p, os.O_RDWR|unix.O_NONBLOCK|flags, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = unix.ENXIO
	}
	if err == nil {
		err = fn(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

package cache

import (
	"errors"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

func TestOpenCreatesLayout(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a", "b"))
	for _, name := range []string{"version", "oci-layout", "index.json", "blobs/sha256", "packs", "records", "index", "contexts", "trees", "tmp"} {
		if _, err := os.Stat(s.path(name)); err != nil {
			t.Errorf("layout: %v", err)
		}
	}
	if fi, err := os.Stat(s.Dir()); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("root: got %v, %v, want mode 0700", fi.Mode(), err)
	}
	if entries, _ := os.ReadDir(s.path("index")); len(entries) > 0 {
		t.Errorf("index: got %d files after Open, want none: Badger opens at first use", len(entries))
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, file, text, says string
	}{
		{"a newer version", "version", "fbuild store 2\n", `"fbuild store 2"`},
		{"somebody's home", ".bashrc", "", `".bashrc"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), dir)
			if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("open: got %v, want ErrVersion that says %s", err, tt.says)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("directory: got %d entries, want it as it was", len(entries))
			}
		})
	}
}

func TestOpenGoesOnAfterInterruptedCreation(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"blobs", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
}

// LAWS 31: a file system that cannot hold a store is named when it is opened.
func TestOpenUnsuitable(t *testing.T) {
	testenv.NeedUserNS(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatalf("mount ramfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	_, err := Open(t.Context(), filepath.Join(dir, "store"))
	if !errors.Is(err, ErrUnsuitable) || !strings.Contains(err.Error(), "holes") || !strings.Contains(err.Error(), "--root") {
		t.Errorf("open on a file system without holes: got %v, want ErrUnsuitable that says so and what to do", err)
	}
}

func TestTempDirGoesWithItsStore(t *testing.T) {
	s := open(t, t.TempDir())
	dir, err := s.TempDir("step")
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, s.Dir())
	age(t, s.lease.dir, time.Hour)
	other.sweep(t.Context())
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("temporary directory of a living store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary directory after Close: got %v, want not exist", err)
	}
}

func TestSweep(t *testing.T) {
	s := open(t, t.TempDir())
	s.swept.Wait() // that of Open must not be at work on what is made below
	part := "spool-" + strings.Repeat("a", 32) + ".part"
	for _, tt := range []struct {
		name, path string
		age        time.Duration
		dir, held  bool
		want       bool // still there
	}{
		{"a dead lease", "tmp/run-1-a", time.Hour, true, false, false},
		{"a lease made just now", "tmp/run-2-b", 0, true, false, true},
		{"a living lease", "tmp/run-3-c", time.Hour, true, true, true},
		{"a dead spool", "packs/" + part, time.Hour, false, false, false},
		{"a spool made just now", "packs/" + part, 0, false, false, true},
		{"a spool being written", "packs/" + part, time.Hour, false, true, true},
		{"a pack", "packs/" + strings.TrimSuffix(part, ".part"), time.Hour, false, false, true},
		{"the locks", "tmp/locks", time.Hour, true, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := s.path(tt.path)
			if tt.dir {
				if err := os.MkdirAll(filepath.Join(name, "step"), 0o755); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.held {
				f, err := lockObject(name)
				if err != nil || f == nil {
					t.Fatalf("hold: %v", err)
				}
				defer func() { _ = f.Close() }() // only held
			}
			age(t, name, tt.age)
			if left := s.Leftovers(t.Context()); len(left) > 0 {
				t.Errorf("leftovers: got %q, want none", left)
			}
			if _, err := os.Stat(name); (err == nil) != tt.want {
				t.Errorf("after a sweep: got %v, want there = %v", err, tt.want)
			}
			if tt.path != "tmp/locks" {
				if err := os.RemoveAll(name); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestUsageAgreesWithDu(t *testing.T) {
	s := open(t, t.TempDir())
	putBlob(t, s, randomBytes(300_000))
	diffID, n := putLayer(t, s, randomBytes(100_000))
	putRecord(t, s, "a", Record{Layers: []tree.Digest{diffID}})
	s.AddContent(n.Digest, n.Extents)
	w, err := s.CreatePack()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.File().WriteAt([]byte("x"), 64<<20); err != nil { // a hole takes nothing
		t.Fatal(err)
	}
	s = reopen(t, s)
	if err := os.Link(s.path("oci-layout"), s.path("trees/again")); err != nil { // counted once
		t.Fatal(err)
	}
	u, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := osexec.CommandContext(t.Context(), "du", "-s", "-B1", s.Dir()).Output()
	if err != nil {
		t.Fatalf("du: %v", err)
	}
	want, _ := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if u.Total != want {
		t.Errorf("usage: got %d, du says %d", u.Total, want)
	}
	var sum int64
	for _, k := range u.Kinds {
		sum += k.Bytes
		if k.Bytes == 0 && k.Kind != "trees" {
			t.Errorf("usage of %s: got 0", k.Kind)
		}
	}
	if sum != u.Total {
		t.Errorf("usage: kinds add up to %d, total is %d", sum, u.Total)
	}
}

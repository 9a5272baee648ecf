package buildctx

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// readsIn is how many files a build with this cache reads, at a time of its own.
func readsIn(t *testing.T, dir, cache string, fine bool, now time.Time) int {
	t.Helper()
	c := open(t, dir, Options{StatCache: cache, Now: clockAt(now)})
	c.cache.fine = fine
	sink := &memSink{}
	tr, err := c.Digests(t.Context(), scanTree(t, c, "."), []string{""}, sink)
	if err != nil {
		t.Fatal(err)
	}
	_ = tr.Walk(func(p string, n *tree.Node) error {
		if n.Kind != tree.File {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		if n.Digest != digestOf(string(data)) {
			t.Errorf("digest of %s: got %s, want that of %q", p, n.Digest, data)
		}
		return nil
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.puts
}

// LAWS 23: a digest is kept only if the file was older than its hashing by more than the clock of its file system can hide.
func TestRacyStatCache(t *testing.T) {
	tests := []struct {
		name  string
		fine  bool
		older time.Duration // the file, than its hashing
		kept  bool
	}{
		{"at once", false, 0, false},
		{"the clock is behind", false, -time.Hour, false},
		{"just below two seconds", false, 1900 * time.Millisecond, false},
		{"two seconds", false, 2100 * time.Millisecond, true},
		{"a fine clock, at once", true, 0, false},
		{"a fine clock, just below", true, 50 * time.Millisecond, false},
		{"a fine clock", true, 150 * time.Millisecond, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"f": "x"})
			cache := filepath.Join(t.TempDir(), "deep", "cache")
			hashed := ctimeOf(t, filepath.Join(dir, "f")).Add(tt.older)
			if got := readsIn(t, dir, cache, tt.fine, hashed); got != 1 {
				t.Fatalf("files read by the first build: got %d, want 1", got)
			}
			want := 1
			if tt.kept {
				want = 0
			}
			if got := readsIn(t, dir, cache, tt.fine, hashed.Add(time.Hour)); got != want {
				t.Errorf("files read by the second build: got %d, want %d", got, want)
			}
		})
	}
}

func ctimeOf(t *testing.T, file string) time.Time {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	return time.Unix(st.Ctim.Sec, st.Ctim.Nsec)
}

// LAWS 23: size, mtime, ctime and inode must all be equal; mtime alone is no witness, nor is a fresh mtime in the future.
func TestStatCacheSignature(t *testing.T) {
	later := time.Now().Add(time.Hour)
	tests := []struct {
		name   string
		change func(f string) error
		want   int // files read by the second build
	}{
		{"nothing", func(string) error { return nil }, 0},
		{"other bytes, same size and mtime", func(f string) error {
			info, err := os.Stat(f)
			if err != nil {
				return err
			}
			if err := os.WriteFile(f, []byte("y"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(f, info.ModTime(), info.ModTime())
		}, 1},
		{"replaced by rename", func(f string) error {
			if err := os.WriteFile(f+"2", []byte("y"), 0o644); err != nil {
				return err
			}
			return os.Rename(f+"2", f)
		}, 1},
		{"truncated", func(f string) error { return os.Truncate(f, 0) }, 1},
		{"touched", func(f string) error { return os.Chtimes(f, time.Unix(1, 0), time.Unix(1, 0)) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"f": "x"})
			cache := filepath.Join(t.TempDir(), "cache")
			readsIn(t, dir, cache, false, later)
			if err := tt.change(filepath.Join(dir, "f")); err != nil {
				t.Fatal(err)
			}
			if got := readsIn(t, dir, cache, false, later); got != tt.want {
				t.Errorf("files read: got %d, want %d", got, tt.want)
			}
		})
	}
	t.Run("an mtime in the future", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"f": "x"})
		if err := os.Chtimes(filepath.Join(dir, "f"), later, later); err != nil {
			t.Fatal(err)
		}
		cache := filepath.Join(t.TempDir(), "cache")
		for range 2 {
			if got := readsIn(t, dir, cache, true, later); got != 1 {
				t.Errorf("files read: got %d, want 1", got)
			}
		}
	})
}

func sampleCache(n int) *statCache {
	s := &statCache{file: "x", fresh: map[string]entry{}}
	for i := range n {
		p := fmt.Sprintf("node_modules/package-%d/lib/file-%d.js", i/20, i)
		sum := sha256.Sum256([]byte(p))
		s.fresh[p] = entry{path: p, sum: string(sum[:]), sig: signature{
			size: int64(i), ino: uint64(i) << 20,
			mtime: tree.Time{Sec: 1_700_000_000 + int64(i), Nsec: 999_999_999}, ctime: tree.Time{Sec: -int64(i), Nsec: int32(i)},
		}}
	}
	return s
}

// A cache that is not exactly what was written is none: no bit of it can change unnoticed.
func TestCorruptStatCache(t *testing.T) {
	good := string(sampleCache(20).encode())
	if at, ok := decodeCache(good); !ok || len(at) != 20 {
		t.Fatalf("decode: got %d entries, %v", len(at), ok)
	}
	for i := range good {
		bad := []byte(good)
		bad[i] ^= 0x10
		if _, ok := decodeCache(string(bad)); ok {
			t.Errorf("byte %d changed: accepted", i)
		}
		if _, ok := decodeCache(good[:i]); ok {
			t.Errorf("cut to %d bytes: accepted", i)
		}
	}
	dir := write(t, t.TempDir(), map[string]string{"f": "x"})
	cache := filepath.Join(t.TempDir(), "cache")
	later := time.Now().Add(time.Hour)
	for _, data := range []string{"", "garbage", good[:100]} {
		if err := os.WriteFile(cache, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readsIn(t, dir, cache, false, later); got != 1 {
			t.Errorf("files read with the cache %.10q: got %d, want 1", data, got)
		}
		if got := readsIn(t, dir, cache, false, later); got != 0 {
			t.Errorf("files read after it was written anew: got %d, want 0", got)
		}
	}
	left, err := os.ReadDir(filepath.Dir(cache))
	if err != nil || len(left) != 1 {
		t.Errorf("files beside the cache: got %v (%v), want none", left, err)
	}
}

func TestStatCacheMerge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cache")
	s := sampleCache(3)
	s.file = file
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("s", 32)
	paths := func() []string {
		s := openStatCache(file, true)
		out := []string{}
		for i := range s.at {
			out = append(out, s.old(i).path)
		}
		return out
	}
	used := "node_modules/package-0/lib/file-1.js"
	for i := range maxAge + 1 {
		s := openStatCache(file, true)
		if _, ok := s.lookup(used, sampleCache(3).fresh[used].sig); !ok {
			t.Fatalf("lookup after %d writes: not found", i)
		}
		s.fresh["a"] = entry{path: "a", sum: sum, sig: signature{size: int64(i)}}
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if diff := cmp.Diff([]string{"a", "node_modules/package-0/lib/file-0.js", used, "node_modules/package-0/lib/file-2.js"}, paths()); diff != "" {
				t.Errorf("after one write (-want +got):\n%s", diff)
			}
		}
	}
	if diff := cmp.Diff([]string{"a", used}, paths()); diff != "" {
		t.Errorf("after %d writes (-want +got):\n%s", maxAge+1, diff)
	}
}

// A context of 20,000 files costs milliseconds to ask for its cache: nothing is done for
// an entry that nobody asks for.
func TestStatCacheLoadsFast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cache")
	s := sampleCache(20_000)
	s.file = file
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(3, func() {
		if s := openStatCache(file, true); len(s.at) != 20_000 {
			t.Fatalf("entries: got %d, want 20,000", len(s.at))
		}
	})
	if allocs > 200 {
		t.Errorf("loading: got %v allocations, want a few", allocs)
	}
	t.Logf("loaded with %v allocations", allocs)
}

func TestDecodeRoundTrip(t *testing.T) {
	s := sampleCache(100)
	data := string(s.encode())
	at, ok := decodeCache(data)
	if !ok {
		t.Fatal("decode: refused")
	}
	for _, pos := range at {
		e, _, _ := decodeEntry(data[pos:])
		if diff := cmp.Diff(s.fresh[e.path], e, cmp.AllowUnexported(entry{}, signature{})); diff != "" {
			t.Errorf("entry %q (-want +got):\n%s", e.path, diff)
		}
	}
}

// Whatever stands in the file, with a checksum that fits: no panic, and lookups work.
func FuzzStatCache(f *testing.F) {
	good := string(sampleCache(3).encode())
	f.Add(good[len(cacheMagic) : len(good)-sumSize])
	f.Add("")
	f.Fuzz(func(t *testing.T, body string) {
		data := cacheMagic + body
		sum := sha256.Sum256([]byte(data))
		data += string(sum[:sumSize])
		at, ok := decodeCache(data)
		if !ok {
			return
		}
		s := &statCache{file: "x", data: data, at: at, used: make([]bool, len(at)), fresh: map[string]entry{}}
		for i := range at {
			e := s.old(i)
			if _, ok := s.lookup(e.path, e.sig); !ok {
				t.Errorf("lookup %q: not found", e.path)
			}
		}
		if again, ok := decodeCache(string(s.encode())); !ok || len(again) != len(at) {
			t.Errorf("encoded again: got %d entries (%v), want %d", len(again), ok, len(at))
		}
	})
}

package buildctx

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

func TestDigestsAndFill(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"a": "one", "d/b": "two", "d/e/c": "", "d/l": "->b", "other": "x"})
	c := open(t, dir, Options{})
	sink := &memSink{}
	tr := scanTree(t, c, ".")
	got, err := c.Digests(t.Context(), tr, []string{"a", "d", "d/b"}, sink)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]tree.Digest{"a": digestOf("one"), "d/b": digestOf("two"), "d/e/c": digestOf(""), "d/l": "", "other": ""} {
		if n := got.Lookup(p); n.Digest != want {
			t.Errorf("digest of %s: got %q, want %q", p, n.Digest, want)
		}
	}
	if n := got.Lookup("a"); len(n.Extents) != 1 || n.Size != 3 {
		t.Errorf("a: got size %d with %d extents, want 3 with 1", n.Size, len(n.Extents))
	}
	if tr.Lookup("a").Digest != "" {
		t.Error("the tree that was given changed")
	}
	puts := sink.puts
	again, err := c.Digests(t.Context(), got, []string{"a", "d"}, sink)
	if err != nil {
		t.Fatal(err)
	}
	filled, err := c.Fill(t.Context(), again, []string{""}, sink)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sink.puts-puts, 1; got != want { // "other", which nobody asked for before
		t.Errorf("files read again: got %d, want %d", got, want)
	}
	if n := filled.Lookup("other"); n.Digest != digestOf("x") || len(n.Extents) != 1 {
		t.Errorf("other: got digest %q and %d extents", n.Digest, len(n.Extents))
	}
	if _, err := c.Digests(t.Context(), tr, []string{"nope"}, sink); err == nil {
		t.Error("a path that is not in the tree: got no error")
	}
}

// Fill finds what the sink has, and reads again, with a new digest, what it lost.
func TestFillAfterChange(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"kept": "kept", "lost": "lost"})
	c := open(t, dir, Options{})
	sink := &memSink{}
	tr := scanTree(t, c, ".")
	e := tr.Edit()
	for p, d := range map[string]tree.Digest{"kept": digestOf("kept"), "lost": digestOf("before")} {
		n := tr.Lookup(p).Attrs()
		n.Digest = d
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := sink.Put(t.Context(), strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	got, err := c.Fill(t.Context(), e.Tree(), []string{""}, sink)
	if err != nil {
		t.Fatal(err)
	}
	if n := got.Lookup("lost"); n.Digest != digestOf("lost") || len(n.Extents) != 1 {
		t.Errorf("lost: got digest %q, want that of what was read", n.Digest)
	}
	if n := got.Lookup("kept"); n.Digest != digestOf("kept") || len(n.Extents) != 1 || sink.puts != 2 {
		t.Errorf("kept: got digest %q after %d puts, want it found", n.Digest, sink.puts)
	}
}

// A file that changes while it is read is read once more, and no third time.
func TestChangeWhileReading(t *testing.T) {
	for name, tt := range map[string]struct {
		changes int
		want    string
		err     error
	}{
		"once":  {1, "hello!", nil},
		"twice": {2, "", ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"f": "hello"})
			c := open(t, dir, Options{})
			tr := scanTree(t, c, ".")
			sink := &memSink{during: func(n int) {
				if n > tt.changes {
					return
				}
				f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				if _, err := f.WriteString("!"); err != nil {
					t.Error(err)
				}
			}}
			got, err := c.Digests(t.Context(), tr, []string{"f"}, sink)
			if !errors.Is(err, tt.err) {
				t.Fatalf("Digests: got %v, want %v", err, tt.err)
			}
			if err != nil {
				var pe *PathError
				if !errors.As(err, &pe) || pe.Path != "f" || pe.Hint == "" {
					t.Errorf("Digests: got %v, want the path and a hint", err)
				}
				return
			}
			if n := got.Lookup("f"); n.Digest != digestOf(tt.want) || n.Size != int64(len(tt.want)) {
				t.Errorf("f: got size %d, digest %s, want those of %q", n.Size, n.Digest, tt.want)
			}
		})
	}
}

// What became a symlink, a directory or nothing since the scan is never read.
func TestSwappedSinceTheScan(t *testing.T) {
	outside := write(t, t.TempDir(), map[string]string{"f": "secret", "d/f": "secret"})
	for name, swap := range map[string]func(dir string) error{
		"file by a symlink":   func(dir string) error { return os.Symlink(outside+"/f", filepath.Join(dir, "d/f")) },
		"file by a fifo":      func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "d/f"), 0o600) },
		"file by a directory": func(dir string) error { return os.Mkdir(filepath.Join(dir, "d/f"), 0o700) },
		"file by nothing":     func(string) error { return nil },
		"directory by a symlink": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "d")), os.Symlink(outside+"/d", filepath.Join(dir, "d")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"d/f": "mine"})
			c := open(t, dir, Options{})
			tr := scanTree(t, c, ".")
			if err := errors.Join(os.Remove(filepath.Join(dir, "d/f")), swap(dir)); err != nil {
				t.Fatal(err)
			}
			sink := &memSink{}
			for what, fn := range map[string]func() error{
				"Digests": func() error { _, err := c.Digests(t.Context(), tr, []string{"d/f"}, sink); return err },
				"Fill":    func() error { _, err := c.Fill(t.Context(), tr, []string{"d/f"}, sink); return err },
			} {
				if err := fn(); !errors.Is(err, ErrChanged) {
					t.Errorf("%s: got %v, want ErrChanged", what, err)
				}
			}
			if len(sink.stored) != 0 {
				t.Errorf("stored contents: got %q, want none", sink.stored)
			}
		})
	}
}

// A directory that turns into a symlink out of the context and back, all the time, lets nothing in.
func TestSwapRace(t *testing.T) {
	outside := write(t, t.TempDir(), map[string]string{"f": "secret", "sub/f": "secret"})
	dir := write(t, t.TempDir(), map[string]string{"d/f": "mine", "d/sub/f": "mine", "link": "->" + outside})
	c := open(t, dir, Options{})
	tr := scanTree(t, c, "d")
	sink := &memSink{}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "d"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	good, bad := 0, 0
	for range 1000 {
		got, err := c.Tree(t.Context(), []string{"d"})
		if err == nil {
			for _, name := range names(got) {
				if strings.HasPrefix(name, "link") || strings.Contains(name, "secret") {
					t.Fatalf("scan: got %q", name)
				}
			}
		}
		if _, err := c.Digests(t.Context(), tr, []string{"d"}, sink); err == nil {
			good++
		} else if bad++; !errors.Is(err, ErrChanged) {
			t.Fatalf("Digests: got %v, want ErrChanged", err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if _, leaked := sink.stored[digestOf("secret")]; leaked {
		t.Errorf("a file outside of the context was read (%d good, %d refused)", good, bad)
	}
	t.Logf("%d good, %d refused", good, bad)
}

// asNobody runs FN on a thread without privileges, so that root's tests see permissions too.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		fn()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_ = unix.Setfsgid(65534)
		_ = unix.Setfsuid(65534) // drops the capabilities over files too
		fn()
	}()
	<-done
}

func TestUnreadable(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"f": "x", "d/g": "x"})
	for name, mode := range map[string]os.FileMode{"f": 0, "d": 0} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "d"), 0o700) })
	for up := dir; strings.HasPrefix(up, os.TempDir()+"/"); up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, dir, Options{})
	asNobody(t, func() {
		_, err := c.read(t.Context(), "f", &tree.Node{Kind: tree.File}, &memSink{})
		var pe *PathError
		if !errors.As(err, &pe) || err.Error() != `read "f" in build context: permission denied` || !strings.Contains(pe.Hint, ".dockerignore") {
			t.Errorf("read f: got %v, want it named with a hint", err)
		}
		s := &scan{c: c}
		_, err = s.readDir(t.Context(), &directory{path: "d", placed: true})
		if !errors.As(err, &pe) || err.Error() != `read directory "d" in build context: permission denied` || pe.Hint == "" {
			t.Errorf("read d: got %v, want it named with a hint", err)
		}
		if _, err := s.readDir(t.Context(), &directory{path: "d"}); err != nil {
			t.Errorf("read d, which is ignored: got %v, want no error", err)
		}
	})
}

func TestSinkErrors(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"f": "x"})
	c := open(t, dir, Options{})
	tr := scanTree(t, c, ".")
	_, err := c.Digests(t.Context(), tr, []string{""}, fullSink{})
	if want := `store "f" of build context: no space left on device`; err == nil || err.Error() != want {
		t.Errorf("Digests: got %v, want %s", err, want)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the cause is lost: %v", err)
	}
}

type fullSink struct{}

func (fullSink) Find(tree.Digest, int64) ([]tree.Extent, bool) { return nil, false }

func (fullSink) Put(context.Context, io.Reader) (tree.Digest, int64, []tree.Extent, error) {
	return "", 0, nil, unix.ENOSPC
}

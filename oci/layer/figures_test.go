package layer

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

var (
	figuresDir  = flag.String("figures", "", "directory for TestFigures, which is a measurement and no test")
	figuresOf   = flag.String("figures-of", "", "directories that it measures instead of its own contents, separated by commas")
	figuresWith = flag.String("figures-with", "", "the compression that it measures")
)

// fileFrames finds frames in the blob of one layer.
type fileFrames struct {
	blob *os.File
	at   map[FrameKey]Frame
}

func (f fileFrames) Frame(k FrameKey, buf []byte) (Frame, []byte, bool) {
	at, ok := f.at[k]
	if !ok {
		return Frame{}, nil, false
	}
	buf = append(buf, make([]byte, at.Len)...)
	_, err := f.blob.ReadAt(buf, at.Off)
	return at, buf, err == nil
}

// TestFigures measures what docs/figures.md tells of layers.
func TestFigures(t *testing.T) {
	if *figuresDir == "" {
		return // not a skip: CI counts those
	}
	dir := filepath.Join(*figuresDir, "layer-figures")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	set := pack.NewSet(dir)
	defer func() { _ = set.Close() }()
	if *figuresOf == "" {
		for _, c := range []struct {
			name  string
			files int
			size  int
		}{{"1 GiB in 8 files", 8, 128 << 20}, {"30,000 files of 4 KiB", 30_000, 4 << 10}} {
			measureLayer(t, c.name, dir, figureFiles(t, dir, c.files, c.size), set)
		}
	} else {
		for of := range strings.SplitSeq(*figuresOf, ",") {
			measureLayer(t, filepath.Base(of), dir, figureTree(t, dir, of), set)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// figureFiles writes a pack of text that compresses to about a third.
func figureFiles(t *testing.T, dir string, files, size int) tree.Changes {
	w, err := pack.Create(dir, "spool")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4096)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", r.Uint64()>>(4*r.IntN(14)))
	}
	var cs tree.Changes
	buf := make([]byte, 0, 1<<20)
	for i := range files {
		off := w.Offset()
		for left := size; left > 0; left -= len(buf) {
			for buf = buf[:0]; len(buf) < min(left, 1<<20); {
				buf = append(buf, words[r.IntN(len(words))]...)
			}
			buf = buf[:min(left, 1<<20)]
			if _, err := w.Write(buf); err != nil {
				t.Fatal(err)
			}
		}
		n := &tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(size), Extents: []tree.Extent{{Pack: w.ID(), Off: off, Len: int64(size)}}}
		cs = append(cs, tree.Change{Path: fmt.Sprintf("f%06d", i), Node: n})
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return cs
}

// figureTree writes a pack of the files below a directory.
func figureTree(t *testing.T, dir, of string) tree.Changes {
	w, err := pack.Create(dir, "spool")
	if err != nil {
		t.Fatal(err)
	}
	var cs tree.Changes
	buf := make([]byte, 1<<20)
	err = filepath.WalkDir(of, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == of {
			return err
		}
		name, err := filepath.Rel(of, path)
		if err != nil {
			return err
		}
		c := tree.Change{Path: name, Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}
		cs = append(cs, c)
		if !d.Type().IsRegular() {
			return nil // a stand-in, where it is no directory
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		off := w.Offset()
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, buf)
		c.Node.Kind, c.Node.Size = tree.File, n
		if n > 0 {
			c.Node.Extents = []tree.Extent{{Pack: w.ID(), Off: off, Len: n}}
		}
		return errors.Join(err, f.Close())
	})
	if err := errors.Join(err, w.Commit()); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(cs, func(a, b tree.Change) int { return tree.Compare(a.Path, b.Path) })
	return cs
}

func measureLayer(t *testing.T, name, dir string, cs tree.Changes, set *pack.Set) {
	clock := func(what string, fn func() error) time.Duration {
		start := time.Now()
		if err := fn(); err != nil {
			t.Fatal(err)
		}
		d := time.Since(start)
		t.Logf("%s, %s: %.2f s", name, what, d.Seconds())
		return d
	}
	to := func(w io.Writer) error { return WriteTar(context.Background(), w, cs, set, Options{}) }
	hash := clock("SHA-256 of the tar", func() error { return to(sha256.New()) })
	blob, err := os.Create(filepath.Join(dir, "blob"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blob.Close() }()
	var first, again Sealed
	cold := clock("sealed", func() error {
		first, err = Seal(context.Background(), blob, cs, set, Options{Compression: *figuresWith})
		return err
	})
	frames := fileFrames{blob, map[FrameKey]Frame{}}
	for _, f := range first.Frames {
		frames.at[f.Key] = f
	}
	warm := clock("sealed again", func() error {
		again, err = Seal(context.Background(), io.Discard, cs, set, Options{Compression: *figuresWith, Frames: frames})
		return err
	})
	plain := clock("one stream of compress/gzip", func() error {
		z := gzip.NewWriter(io.Discard)
		if err := to(z); err != nil {
			return err
		}
		return z.Close()
	})
	t.Logf("%s: cold %.2fx of one stream; again %.2fx of SHA-256, %d of %d frames reused, %d too small; %d of %d bytes",
		name, cold.Seconds()/plain.Seconds(), warm.Seconds()/hash.Seconds(), again.Stats.Reused, again.Stats.Frames, again.Stats.Small, first.Size, first.TarSize)
}

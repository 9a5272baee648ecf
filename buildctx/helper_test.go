package buildctx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fbuild/fbuild/tree"
)

// memSink is a Sink that keeps contents in memory.
type memSink struct {
	mu     sync.Mutex
	stored map[tree.Digest]string
	puts   int
	during func(n int) // called in the middle of the n-th Put
}

func (m *memSink) Find(d tree.Digest, size int64) ([]tree.Extent, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.stored[d]
	if !ok || int64(len(data)) != size {
		return nil, false
	}
	return []tree.Extent{{Pack: "copy-x", Len: size}}, true
}

func (m *memSink) Put(_ context.Context, r io.Reader) (tree.Digest, int64, []tree.Extent, error) {
	m.mu.Lock()
	m.puts++
	n := m.puts
	m.mu.Unlock()
	head := make([]byte, 1)
	k, err := io.ReadFull(r, head)
	if m.during != nil {
		m.during(n)
	}
	data := head[:k]
	if err == nil {
		rest, err := io.ReadAll(r)
		if err != nil {
			return "", 0, nil, fmt.Errorf("put: %w", err)
		}
		data = append(data, rest...)
	}
	d := digestOf(string(data))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stored == nil {
		m.stored = map[tree.Digest]string{}
	}
	m.stored[d] = string(data)
	return d, int64(len(data)), []tree.Extent{{Pack: "copy-x", Len: int64(len(data))}}, nil
}

func digestOf(s string) tree.Digest {
	sum := sha256.Sum256([]byte(s))
	return tree.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// write makes a directory of the test: names that end in "/" are directories, contents that begin with "->" symlinks.
func write(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, link := strings.CutPrefix(data, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		case link:
			err = os.Symlink(target, p)
		default:
			err = os.WriteFile(p, []byte(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, dir string, o Options) *Context {
	t.Helper()
	c, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.root.Close() })
	return c
}

// names lists a tree's entries, directories with a slash, symlinks with their target.
func names(tr tree.Tree) []string {
	out := []string{}
	_ = tr.Walk(func(p string, n *tree.Node) error {
		switch {
		case p == "":
		case n.Kind == tree.Dir:
			out = append(out, p+"/")
		case n.Kind == tree.Symlink:
			out = append(out, p+"->"+n.Target)
		default:
			out = append(out, p)
		}
		return nil
	})
	return out
}

func scanTree(t testing.TB, c *Context, sources ...string) tree.Tree {
	t.Helper()
	tr, err := c.Tree(t.Context(), sources)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// clockAt is a clock that stands still.
func clockAt(at time.Time) func() time.Time { return func() time.Time { return at } }

package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbuild/fbuild/tree"
)

const testPack = tree.PackID("tar-00000000000000000000000000000000")

// when is the time of every entry in these tests.
const when = 1_700_000_000

// ent is one entry of a tar made by archive/tar.
type ent struct {
	tar.Header
	body string
}

func file(name, body string) ent {
	return ent{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func dir(name string, mode int64) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func symlink(name, target string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func link(name, target string) ent {
	return ent{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// tarOf writes a tar of the entries.
func tarOf(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range ents {
		h := e.Header
		if h.ModTime.IsZero() && h.Typeflag != tar.TypeXGlobalHeader {
			h.ModTime = time.Unix(when, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("write header of %q: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatalf("write %q: %v", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// mustRead reads a blob and returns the pack's bytes as well.
func mustRead(t testing.TB, blob []byte) (tree.Changes, Info, []byte) {
	t.Helper()
	var pack bytes.Buffer
	cs, info, err := Read(context.Background(), bytes.NewReader(blob), testPack, &pack, Limits{})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return cs, info, pack.Bytes()
}

// packs gives contents out of packs in memory.
type packs map[tree.PackID][]byte

func (p packs) Open(n *tree.Node) (io.ReadCloser, error) {
	var parts []io.Reader
	for _, x := range n.Extents {
		if x.Pack == "" {
			parts = append(parts, io.LimitReader(zeroReader{}, x.Len))
			continue
		}
		b, ok := p[x.Pack]
		if !ok || x.Off+x.Len > int64(len(b)) {
			return nil, fmt.Errorf("no such extent: %+v", x)
		}
		parts = append(parts, bytes.NewReader(b[x.Off:x.Off+x.Len]))
	}
	return io.NopCloser(io.MultiReader(parts...)), nil
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// content returns the bytes of a file node.
func content(t testing.TB, p packs, n *tree.Node) string {
	t.Helper()
	r, err := p.Open(n)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// find returns the change at path.
func find(t testing.TB, cs tree.Changes, path string) *tree.Change {
	t.Helper()
	for i := range cs {
		if cs[i].Path == path {
			return &cs[i]
		}
	}
	t.Fatalf("no change at %q in\n%s", path, tree.Format(cs))
	return nil
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

const lazyPack tree.PackID = "lazy-22222222222222222222222222222222"

// blobRanges serves parts of a blob and counts their bytes.
type blobRanges struct {
	blob []byte
	sent int64
}

func (b *blobRanges) open(_ context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n <= 0 || off+n > int64(len(b.blob)) {
		return nil, errors.New("a range that the blob does not have")
	}
	b.sent += n
	return io.NopCloser(bytes.NewReader(b.blob[off : off+n])), nil
}

func (b *blobRanges) source(size *int64) TableSource {
	return TableSource{
		Size: int64(len(b.blob)), Open: b.open, Block: 4096,
		Make: func(data int64) (tree.PackID, int64, error) { *size = data + 8192; return lazyPack, 8192, nil },
	}
}

// readLazily makes changes and the whole lazy pack out of a seekable blob.
func readLazily(t testing.TB, blob []byte, annotations map[string]string) (tree.Changes, []byte) {
	t.Helper()
	s, ok := FindSeekable(annotations)
	if !ok {
		t.Fatalf("annotations %v: found no table", annotations)
	}
	var size int64
	table, err := ReadTable(t.Context(), s, (&blobRanges{blob: blob}).source(&size), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := EncodeChunks(table.Chunks)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := DecodeChunks(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(table.Chunks, chunks); diff != "" {
		t.Fatalf("chunks (-made +decoded):\n%s", diff)
	}
	pack := make([]byte, size)
	for _, x := range table.Inline {
		copy(pack[x.Off:], x.Data)
	}
	for i := range chunks {
		var out bytes.Buffer
		if err := chunks[i].Read(bytes.NewReader(blob[chunks[i].Blob:chunks[i].End]), &out); err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
		copy(pack[chunks[i].Off:], out.Bytes())
	}
	return table.Changes, pack
}

// What the table of contents says is what the tar says: the same entries, and the same
// bytes.
func TestTableIsTheLayer(t *testing.T) {
	cs, p := lazySample()
	for _, codec := range []string{"estargz", "zstd:chunked"} {
		t.Run(codec, func(t *testing.T) {
			blob, s := seal(t, cs, p, Options{Compression: codec})
			whole, _, pack := mustRead(t, blob)
			p[testPack] = pack
			lazy, lazyBytes := readLazily(t, blob, s.Annotations)
			p[lazyPack] = lazyBytes
			if diff := cmp.Diff(tree.Format(whole), tree.Format(lazy)); diff != "" {
				t.Errorf("changes (-whole +lazy):\n%s", diff)
			}
			checkClaims(t, p, lazy)
			if got, want := contentsOf(t, p, lazy), contentsOf(t, p, whole); got != want {
				t.Errorf("contents: got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// lazySample has an entry of every kind, and files of one chunk and of several.
func lazySample() (tree.Changes, packs) {
	cs, p := sample()
	for i := range cs {
		if n := cs[i].Node; n != nil {
			n.Mtime.Nsec = 0
		}
	}
	const id tree.PackID = "spool-33333333333333333333333333333333"
	p[id] = make([]byte, 5<<19+77)
	for i := range p[id] {
		p[id][i] = byte(i * i >> 9)
	}
	for name, size := range map[string]int64{"large/a": 5<<19 + 77, "large/b": 1 << 21, "large/small": 5000} {
		cs = append(cs, tree.Change{Path: name, Node: &tree.Node{Kind: tree.File, Mode: 0o644, Size: size, Extents: []tree.Extent{{Pack: id, Len: size}}}})
	}
	cs = append(cs, tree.Change{Path: "large", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}})
	cs.Sort()
	return cs, p
}

// checkClaims: a digest is right, and only files in several chunks have none.
func checkClaims(t testing.TB, p packs, cs tree.Changes) {
	t.Helper()
	for _, c := range cs {
		if c.Node == nil || c.Node.Kind != tree.File || c.Node.Size == 0 {
			continue
		}
		r, err := p.Open(c.Node)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
		switch want := digest(h); {
		case c.Node.Digest == "" && c.Node.Size <= 1<<20:
			t.Errorf("%q of one chunk has no digest", c.Path)
		case c.Node.Digest != "" && c.Node.Digest != want:
			t.Errorf("digest of %q: got %s, want %s", c.Path, c.Node.Digest, want)
		case c.Node.Digest != "" && c.Node.Size > 1<<20:
			t.Errorf("%q of several chunks has a digest that nobody verifies", c.Path)
		}
	}
}

// contentsOf lists the digests of all files.
func contentsOf(t testing.TB, p packs, cs tree.Changes) string {
	t.Helper()
	var b bytes.Buffer
	for _, c := range cs {
		if c.Node == nil || c.Node.Kind != tree.File {
			continue
		}
		r, err := p.Open(c.Node)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
		b.WriteString(c.Path + " " + hex.EncodeToString(h.Sum(nil)) + "\n")
	}
	return b.String()
}

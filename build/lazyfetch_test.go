package build

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// What a chunk's digest does not promise never gets into the pack: another build may have put the right bytes there and
// marked them while this one waited for its registry. LAWS 18, 34.
func TestChunksAreVerifiedBeforeTheyAreWritten(t *testing.T) {
	for _, size := range []int{5000, smallChunk + 5000} {
		w := newWorld(t)
		right, wrong := bytes.Repeat([]byte("right"), size/5), bytes.Repeat([]byte("WRONG"), size/5)
		sum := sha256.Sum256(right)
		p, _, err := pack.CreateLazy(w.store.Packs().Dir(), int64(size), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		open := func() *pack.Lazy {
			f, err := pack.OpenLazy(w.store.Packs().Dir(), p.ID())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			return f
		}
		ours, theirs := open(), open()
		var blob bytes.Buffer
		z := gzip.NewWriter(&blob)
		_, _ = z.Write(wrong)
		_ = z.Close()
		off := pack.LazyStart(int64(size))
		d, err := progress.New(progress.Options{Mode: progress.Plain, Out: &w.out})
		if err != nil {
			t.Fatal(err)
		}
		l := &lazyLayer{
			b: &builder{store: w.store, temp: t.TempDir(), opts: Options{Progress: d}}, id: p.ID(), file: ours, coming: map[int]chan struct{}{},
			chunks: []layer.Chunk{{Off: off, Size: int64(len(right)), End: int64(blob.Len()), Digest: tree.Digest("sha256:" + hex.EncodeToString(sum[:]))}},
		}
		l.l = &fsLayer{src: &oci.Layer{Range: func(context.Context, int64, int64) (io.ReadCloser, error) {
			if _, err := theirs.WriteAt(right, off); err != nil { // another build is faster
				return nil, err
			}
			return io.NopCloser(bytes.NewReader(blob.Bytes())), theirs.Mark(off, int64(len(right)))
		}}}
		if err := l.get(t.Context(), []int{0}); err == nil {
			t.Error("other bytes than promised: got no error")
		}
		got := make([]byte, len(right))
		if err := w.store.Packs().Read(p.ID(), got, off); err != nil || !bytes.Equal(got, right) {
			t.Errorf("chunk of %d bytes after it: got %.10q, %v, want what was marked", size, got, err)
		}
	}
}

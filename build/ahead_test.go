package build

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// spooled writes a pack that is not finished, as a recorder's, and returns where its
// bytes are.
func spooled(t *testing.T, b *builder, text string) (*pack.Writer, []tree.Extent) {
	t.Helper()
	p, err := pack.Create(b.store.Packs().Dir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Abort)
	if _, err := io.WriteString(p, text); err != nil {
		t.Fatal(err)
	}
	half := int64(len(text) / 2)
	return p, []tree.Extent{{Pack: p.ID(), Len: half}, {Pack: p.ID(), Off: half, Len: int64(len(text)) - half}}
}

// aheadOf is the work of a RUN whose recorder is not asked.
func aheadOf(t *testing.T, b *builder) *aheadWork {
	t.Helper()
	b.frames = newFrameStore(b.store)
	t.Cleanup(func() {
		if err := b.frames.close(); err != nil {
			t.Error(err)
		}
	})
	l, err := layer.NewAhead(layer.Options{Compression: "gzip"})
	if err != nil {
		t.Fatal(err)
	}
	w := &aheadWork{b: b, a: &aheads{}, o: layer.Options{Compression: "gzip"}, l: l}
	t.Cleanup(w.stop)
	return w
}

// LAWS 27: what the child makes of a file while it is written is what the layer holds.
func TestCompressAhead(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	work := aheadOf(t, b)
	text := strings.Repeat("what a RUN writes ", 200_000)
	p, extents := spooled(t, b, text)
	for _, again := range []bool{false, true} { // it is made once
		if err := work.compress(t.Context(), extents); err != nil {
			t.Fatal(err)
		}
		if n := len(b.frames.ahead); n != 4 {
			t.Errorf("again %v: got %d frames, want 4", again, n)
		}
	}
	sized := work.size
	st, err := work.a.file.Stat()
	if err != nil || st.Size() != sized || sized == 0 {
		t.Errorf("file of the frames: got %d bytes, %v, want %d", st.Size(), err, sized)
	}
	if left, _ := filepath.Glob(filepath.Join(b.temp, "frames-*")); len(left) > 0 {
		t.Errorf("the file has a name: %v", left)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := work.compress(t.Context(), extents); err != nil { // it has another name now
		t.Errorf("a pack that is finished: got %v, want nothing", err)
	}
	cs := tree.Changes{{Path: "f", Node: &tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(len(text)), Extents: extents}}}
	var plain, early bytes.Buffer
	want, err := layer.Seal(t.Context(), &plain, cs, b.store.Packs(), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := layer.Seal(t.Context(), &early, cs, b.store.Packs(), layer.Options{Frames: b.frames})
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != want.Digest || got.Stats.Ahead != 4 || got.Stats.Reused != 0 {
		t.Errorf("with frames made ahead: got %s, %+v, want %s and 4 frames", got.Digest, got.Stats, want.Digest)
	}
	b.frames.dropAhead(work.a.file)
	if got, err = layer.Seal(t.Context(), io.Discard, cs, b.store.Packs(), layer.Options{Frames: b.frames}); err != nil || got.Digest != want.Digest || got.Stats.Ahead != 0 {
		t.Errorf("dropped: got %s, %+v, %v, want %s and no frames", got.Digest, got.Stats, err, want.Digest)
	}
}

// A child that is gone ends the work, and nothing else.
func TestCompressAheadDies(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	work := aheadOf(t, b)
	_, extents := spooled(t, b, strings.Repeat("x", 100_000))
	if err := work.compress(t.Context(), extents); err != nil {
		t.Fatal(err)
	}
	if err := work.cmd.Process.Signal(os.Kill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	_, other := spooled(t, b, strings.Repeat("y", 100_000))
	if err := work.compress(t.Context(), other); err == nil {
		t.Error("got no error of a child that was killed")
	}
}

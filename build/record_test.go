package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// builder is a builder that no Build started.
func (w *world) builder() *builder {
	w.t.Helper()
	ctx, cancel := context.WithCancelCause(w.t.Context())
	w.t.Cleanup(func() { cancel(nil) })
	d, err := progress.New(progress.Options{Mode: progress.Plain, Out: &w.out})
	if err != nil {
		w.t.Fatal(err)
	}
	b := &builder{
		store: w.store, temp: w.t.TempDir(), sealCtx: ctx, sealing: make(chan struct{}, 1), cancel: cancel,
		family: newFamily(),
	}
	b.opts = Options{ContextDir: w.dir, Store: w.store, Progress: d}
	w.t.Cleanup(func() {
		b.family.close(b)
		if err := d.Close(nil); err != nil {
			w.t.Error(err)
		}
	})
	return b
}

// LAWS 10: a record whose blob is gone, or that says nothing, is a miss.
func TestRecordInDoubtIsAMiss(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	blob, err := w.store.CreateBlob()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blob.Write([]byte("a layer")); err != nil {
		t.Fatal(err)
	}
	there, _, err := blob.Commit("")
	if err != nil {
		t.Fatal(err)
	}
	gone := "sha256:" + string(bytes.Repeat([]byte("0"), 64))
	below := &fsState{}
	chain, err := below.chainID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	value := func(digest string) string {
		data, err := json.Marshal(stepRecord{DiffID: "sha256:1", Digest: digest, Below: chain})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	tests := []struct {
		name, value string
		want        bool
	}{
		{"its blob is there", value(string(there)), true},
		{"its blob is gone", value(gone), false},
		{"its digest is none", value("x"), false},
		{"it is cut", strings.TrimSuffix(value(string(there)), "}"), false},
		{"it is empty", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := newKey(tt.name).sum()
			if err := w.store.PutRecord(kindStep, string(key), cache.Record{Value: []byte(tt.value)}); err != nil {
				t.Fatal(err)
			}
			if _, ok := b.recorded(t.Context(), key, below); ok != tt.want {
				t.Errorf("hit: got %v, want %v", ok, tt.want)
			}
		})
	}
}

// LAWS 10: a layer index whose pack is gone is a miss: the layer is read again.
func TestIndexWithoutPackIsAMiss(t *testing.T) {
	w := newWorld(t)
	p, err := w.store.CreatePack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("contents")); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	diffID := tree.Digest("sha256:" + string(bytes.Repeat([]byte("1"), 64)))
	cs := tree.Changes{{Path: "f", Node: &tree.Node{Kind: tree.File, Size: 8, Extents: []tree.Extent{{Pack: p.ID(), Len: 8}}}}}
	if err := w.store.PutLayer(diffID, cs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		s, err := cache.Open(t.Context(), w.store.Dir()) // without the leases of the first
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := (&builder{store: s}).storedChanges(diffID); ok != want {
			t.Errorf("hit: got %v, want %v", ok, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(w.store.Packs().Dir(), string(p.ID()))) // the second time it is not there
	}
}

// LAWS 11: a layer that can't be sealed gives no record, not one of a step that
// changed nothing.
func TestNoRecordOfAFailedSeal(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	key := newKey("test").sum()
	unlocked := make(chan struct{})
	cs := tree.Changes{{Path: ".wh.x", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}}
	res := b.commit(key, &fsState{}, cs, func() { close(unlocked) })
	if err := res.layer.wait(t.Context()); err == nil {
		t.Error("seal: got no error")
	}
	b.background.Wait()
	<-unlocked
	if _, ok := b.recorded(t.Context(), key, &fsState{}); ok {
		t.Error("a step whose layer failed has a record")
	}
	if b.err == nil {
		t.Error("the build did not fail")
	}
}

// LAWS 11: a layer is served only when all of it was read and is what the
// image's config promises; nothing is stored under the name that it lied about.
func TestLayerThatLiesAboutItsDiffID(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	blob, err := w.store.CreateBlob()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := layer.Seal(t.Context(), blob, tree.Changes{{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}}, w.store.Packs(), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := blob.Commit(sealed.Digest); err != nil {
		t.Fatal(err)
	}
	h, err := v1.NewHash(string(sealed.Digest))
	if err != nil {
		t.Fatal(err)
	}
	promised := tree.Digest("sha256:" + string(bytes.Repeat([]byte("2"), 64)))
	for _, tt := range []struct {
		diffID tree.Digest
		want   error
	}{{sealed.DiffID, nil}, {promised, oci.ErrDigest}} {
		_, err := knownLayer(tt.diffID, v1.Descriptor{Digest: h, Size: sealed.Size}, nil).open(t.Context(), b)
		if !errors.Is(err, tt.want) {
			t.Errorf("open: got %v, want %v", err, tt.want)
		}
		b.background.Wait()
		if _, err := w.store.Layer(tt.diffID); (err == nil) != (tt.want == nil) {
			t.Errorf("stored under %s: got %v", tt.diffID, err)
		}
	}
}

// LAWS 23: a file that changes between hashing and storing is keyed by the bytes
// that were stored.
func TestCopyIsKeyedByWhatItStored(t *testing.T) {
	w := newWorld(t)
	w.write("one", "old")
	b := w.builder()
	local, err := b.mainContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	look := func() *copyRun {
		c := &copyRun{
			b: b, below: &fsState{}, src: &copySource{local: local}, step: b.opts.Progress.Step("copy"),
			tr: &dockerfile.Transfer{Sources: []string{"one"}, Target: "/"},
		}
		t.Cleanup(c.close)
		if err := c.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := look()
	before := c.key
	// As after a hit of the stat cache: the digest is known, the bytes are not stored.
	c.close()
	c.sink = newSink(b)
	from := c.picks[0].from
	e := from.tree.Edit()
	n := from.tree.Lookup("one").Attrs()
	n.Extents = nil
	if err := e.Put("one", n); err != nil {
		t.Fatal(err)
	}
	from.tree = e.Tree()
	w.write("one", "new")
	if _, err := c.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := look().key; c.key == before || c.key != want {
		t.Errorf("key: got %s, want %s, that of the new bytes; the old is %s", c.key, want, before)
	}
}

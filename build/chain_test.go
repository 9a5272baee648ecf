package build

import (
	"context"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

// A record counts only on the layers that it was made on: with others of the same
// keys below (a step was done anew) the difference could lack a file.
func TestRecordNeedsItsOwnParent(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	b := &builder{store: w.store, sealCtx: ctx, sealing: make(chan struct{}, 1), cancel: cancel}
	on := func(digit string) *fsState {
		h := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(digit, 64)}
		return (&fsState{}).push(knownLayer(tree.Digest(h.String()), v1.Descriptor{Digest: h}, nil))
	}
	cs := tree.Changes{{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}}
	key := newKey("test").sum()
	b.commit(key, on("1"), cs, func() {})
	b.background.Wait()
	if _, ok := b.recorded(ctx, key, on("1")); !ok {
		t.Error("not found on its own parent")
	}
	if _, ok := b.recorded(ctx, key, on("2")); ok {
		t.Error("found on another parent")
	}
	if _, ok := b.recorded(ctx, key, &fsState{}); ok {
		t.Error("found on nothing")
	}
}

// LAWS 23 and the like for the epoch: its times are in the layer, so it is in the
// key.
func TestEpochIsInTheKey(t *testing.T) {
	w := newWorld(t)
	w.write("f", "1")
	text := "FROM scratch\nWORKDIR /a/b\nCOPY f /x/y/\n"
	epoch := func(sec int64) func(*Options) {
		return func(o *Options) { at := time.Unix(sec, 0); o.Epoch = &at }
	}
	w.must(text)
	warm := w.must(text, epoch(1000))
	clean := newWorld(t)
	clean.dir = w.dir
	if cold := clean.must(text, epoch(1000)); cold.ImageID != warm.ImageID {
		t.Errorf("warm store %s, clean store %s", warm.ImageID, cold.ImageID)
	}
	if other := w.must(text, epoch(2000)); other.ImageID == warm.ImageID {
		t.Error("another epoch gave the same image")
	}
}

// Links between the sources of one COPY are not kept, as in docker, and so not in
// the key either.
func TestCopyKeepsLinksOfOneSourceOnly(t *testing.T) {
	got, err := doCopy(t, plant(t, "a", "b = a", "d/", "d/x", "d/y = d/x"), plant(t), "/t/", "a", "b", "d")
	if err != nil {
		t.Fatal(err)
	}
	if got.Lookup("t/a") == got.Lookup("t/b") {
		t.Error("two sources became one file")
	}
	if got.Lookup("t/x") != got.Lookup("t/y") {
		t.Error("links inside one source were broken")
	}
}

// An epoch is of its build: another one that finds its results has its own times.
func TestEpochIsNotInWhatOthersReuse(t *testing.T) {
	w := newWorld(t)
	at := time.Unix(1000, 0)
	text := "FROM scratch\nLABEL a=b\n"
	w.must(text, func(o *Options) { o.Epoch = &at })
	res := w.must(text)
	img, err := oci.OpenLayout(t.Context(), w.store.Dir(), res.Descriptor.Digest.String(), v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if got := img.Config.Created.Time; time.Since(got) > time.Hour {
		t.Errorf("image without a step: got one of %v, want one of now", got)
	}
	b := w.builder()
	b.opts.Epoch = &at
	step := b.commit("key of a RUN", &fsState{}, nil, func() {})
	b.background.Wait()
	if time.Since(step.created) > time.Hour {
		t.Errorf("step: got one of %v, want one of now", step.created)
	}
}

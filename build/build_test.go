package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// world is a store and a context for builds without RUN, which need no kernel.
type world struct {
	t     *testing.T
	store *cache.Store
	dir   string
	out   strings.Builder // what progress said of the last build
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := cache.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, store: s, dir: t.TempDir()}
}

func (w *world) write(name, text string) {
	w.t.Helper()
	name = filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) build(text string, change ...func(*Options)) (*Result, error) {
	w.t.Helper()
	f, err := dockerfile.Parse("Dockerfile", []byte(text), dockerfile.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.out.Reset()
	d, err := progress.New(progress.Options{Mode: progress.Plain, Out: &w.out})
	if err != nil {
		w.t.Fatal(err)
	}
	o := Options{
		File: f, ContextDir: w.dir, Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
		Recorder: RecorderAuto, Store: w.store, Progress: d, Stdout: &w.out,
	}
	for _, fn := range change {
		fn(&o)
	}
	res, err := Build(w.t.Context(), o)
	if cerr := d.Close(err); cerr != nil {
		w.t.Error(cerr)
	}
	return res, err
}

func (w *world) must(text string, change ...func(*Options)) *Result {
	w.t.Helper()
	res, err := w.build(text, change...)
	if err != nil {
		w.t.Fatalf("build: %v\n%s", err, w.out.String())
	}
	return res
}

// cached counts the steps that were not done again.
func (w *world) cached() int { return strings.Count(w.out.String(), " CACHED\n") }

const copyOnly = "FROM scratch AS a\nCOPY one /d/one\nWORKDIR /w\nFROM scratch\nLABEL x=y\nCOPY --from=a /d /e\nCOPY two .\nCMD [\"/x\"]\n"

// An unchanged build gives the same image, even when nothing but its
// configuration was made, and whatever the times of the files.
func TestRebuildIsCached(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.write("two", "2")
	first := w.must(copyOnly)
	if n := w.cached(); n != 0 {
		t.Errorf("first build: %d steps cached, want 0", n)
	}
	later := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(w.dir, "one"), later, later); err != nil {
		t.Fatal(err)
	}
	if again := w.must(copyOnly); again.ImageID != first.ImageID || w.cached() != 4 {
		t.Errorf("second build: image %s, %d cached; want %s, 4\n%s", again.ImageID, w.cached(), first.ImageID, w.out.String())
	}
	w.write("one", "changed")
	if changed := w.must(copyOnly); changed.ImageID == first.ImageID {
		t.Error("a changed file gave the same image")
	}
	meta := "FROM scratch\nENV A=1\n"
	if a, b := w.must(meta), w.must(meta); a.ImageID != b.ImageID {
		t.Error("an image without steps is different each time")
	}
}

// COPY --from is keyed by what it copies: a source stage that changed elsewhere
// leaves it cached.
func TestCopyFromEarlyCutOff(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.write("two", "2")
	w.must(copyOnly)
	w.must(strings.Replace(copyOnly, "WORKDIR /w", "WORKDIR /other", 1))
	if n := w.cached(); n != 3 {
		t.Errorf("%d steps cached, want 3: all but the changed WORKDIR\n%s", n, w.out.String())
	}
}

func TestUnusedStagesAreDropped(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.must("FROM scratch AS unused\nCOPY missing /\nFROM scratch\nCOPY one /\n")
	if _, err := w.build("FROM scratch AS used\nCOPY missing /\nFROM used\n"); !errors.Is(err, ErrNoSource) {
		t.Errorf("got %v, want ErrNoSource", err)
	}
}

// A failure names the place and leaves the good steps for the next build.
func TestFailureKeepsGoodSteps(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	_, err := w.build("FROM scratch\nCOPY one /\nCOPY missing /\n")
	var step *StepError
	if !errors.As(err, &step) || step.Location.Start != 3 {
		t.Fatalf("got %v, want a StepError of line 3", err)
	}
	w.must("FROM scratch\nCOPY one /\n")
	if w.cached() != 1 {
		t.Errorf("the step before the failure was done again\n%s", w.out.String())
	}
}

// LAWS 11: no result is stored before the layers under it are durable, and none
// at all if one of them failed.
func TestRecordsWaitForLayersBelow(t *testing.T) {
	t.Run("sealed", func(t *testing.T) { recordAfter(t, nil) })
	t.Run("failed", func(t *testing.T) { recordAfter(t, errors.New("disk on fire")) })
}

// recordAfter commits a step on a layer that ends with err, and looks whether a
// record of the step appears too early or wrongly.
func recordAfter(t *testing.T, end error) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	b := &builder{store: w.store, sealCtx: ctx, sealing: make(chan struct{}, 1), cancel: cancel}
	h := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	lower := &fsLayer{done: make(chan struct{}), loaded: true, diffID: tree.Digest(h.String()), desc: v1.Descriptor{Digest: h}}
	cs := tree.Changes{{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}}
	key := newKey("test").sum()
	unlocked := make(chan struct{})
	res := b.commit(key, (&fsState{}).push(lower), cs, func() { close(unlocked) })
	if err := res.layer.wait(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.recorded(ctx, key, (&fsState{}).push(lower)); ok {
		t.Error("stored although the layer below is not sealed")
	}
	lower.err = end
	close(lower.done)
	b.background.Wait()
	<-unlocked
	if _, ok := b.recorded(ctx, key, (&fsState{}).push(lower)); ok != (end == nil) {
		t.Errorf("layer below ended with %v; stored: %v", end, ok)
	}
}

// LAWS 23: the key is made of the bytes that were stored.
func TestKeyIsOfStoredBytes(t *testing.T) {
	w := newWorld(t)
	w.write("one", "old")
	text := "FROM scratch\nCOPY one /\n"
	old := w.must(text)
	w.write("one", "new") // the same size; the clock may not have moved
	if res := w.must(text); res.ImageID == old.ImageID {
		t.Error("a file of the same size and time but other bytes was taken for the old one")
	}
}

func TestOutputsAppearWhole(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	dest := filepath.Join(t.TempDir(), "out.tar")
	text := "FROM scratch\nCOPY one /\n"
	w.must(text, func(o *Options) { o.Outputs = []Output{{Type: OutputOCI, Dest: dest, Tar: true}} })
	if st, err := os.Stat(dest); err != nil || st.Size() == 0 {
		t.Errorf("archive: %v", err)
	}
	before, err := os.ReadFile(dest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.build("FROM scratch\nCOPY missing /\n", func(o *Options) { o.Outputs = []Output{{Type: OutputOCI, Dest: dest, Tar: true}} }); err == nil {
		t.Fatal("the build should fail")
	}
	after, err := os.ReadFile(dest)
	if err != nil || string(before) != string(after) {
		t.Error("a failed build touched the output")
	}
	local := filepath.Join(t.TempDir(), "fs")
	w.must(text, func(o *Options) { o.Outputs = []Output{{Type: OutputLocal, Dest: local}} })
	if got, err := os.ReadFile(filepath.Join(local, "one")); err != nil || string(got) != "1" {
		t.Errorf("local output: %q, %v", got, err)
	}
}

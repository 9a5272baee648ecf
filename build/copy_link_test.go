package build

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

// image returns the file system of an image and the paths of its last layer.
func (w *world) image(res *Result) (t tree.Tree, top []string) {
	w.t.Helper()
	img, err := oci.OpenLayout(w.t.Context(), w.store.Dir(), res.Descriptor.Digest.String(), v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		w.t.Fatal(err)
	}
	b, fs := w.builder(), &fsState{}
	for i := range img.Layers {
		fs = fs.push(knownLayer(img.Layers[i].DiffID, img.Layers[i].Desc, nil))
	}
	if t, err = fs.Tree(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
	cs, err := fs.layer.open(w.t.Context(), b)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range cs {
		top = append(top, cs[i].Path)
	}
	b.background.Wait()
	return t, top
}

// A linked copy is found again on whatever is below, and what follows it is not.
func TestLinkIsKeyedWithoutWhatIsBelow(t *testing.T) {
	w := newWorld(t)
	w.write("base", "1")
	w.write("app", "app")
	text := "FROM scratch AS src\nCOPY app /app\nFROM scratch\nCOPY base /base\nCOPY --link app /a/\nCOPY --link --from=src /app /b/\nADD --link app /c/\nCOPY --link <<doc /d/\nx\ndoc\nWORKDIR /w\n"
	first := w.must(text)
	w.write("base", "2")
	second := w.must(text)
	// COPY app, the four linked ones; not COPY base, nor the WORKDIR on top of them.
	if got, want := w.cached(), 5; got != want {
		t.Errorf("steps cached on another base: got %d, want %d\n%s", got, want, w.out.String())
	}
	if first.ImageID == second.ImageID {
		t.Error("another base gave the same image")
	}
	w.write("base", "1")
	if third := w.must(text); third.ImageID != first.ImageID {
		t.Errorf("the first base again: got another image\n%s", w.out.String())
	}
	w.must("FROM scratch\nCOPY --link app /a/\nCOPY base /base\n")
	if w.cached() != 1 {
		t.Errorf("below everything: got %d steps cached, want 1\n%s", w.cached(), w.out.String())
	}
	// Without --link, and with --chmod as in BuildKit, what is below counts.
	plain := strings.ReplaceAll(text, "--link ", "--link=false ")
	w.must(plain)
	w.write("base", "3")
	w.must(plain)
	if w.cached() != 1 {
		t.Errorf("not linked: got %d steps cached, want 1\n%s", w.cached(), w.out.String())
	}
}

// LAWS 11: what stands on a linked layer is reused only on the layers that it was
// made on.
func TestStepOnALinkedLayerKnowsTheBase(t *testing.T) {
	w := newWorld(t)
	w.write("base", "1")
	w.write("app", "app")
	text := "FROM scratch\nCOPY base /x\nCOPY --link app /a/\nCOPY app /x\n"
	w.must(text)
	w.write("base", "app") // now the last step changes nothing
	same := time.Now().Add(-time.Hour)
	for _, name := range []string{"base", "app"} {
		if err := os.Chtimes(filepath.Join(w.dir, name), same, same); err != nil {
			t.Fatal(err)
		}
	}
	res := w.must(text)
	if got := w.cached(); got != 1 {
		t.Errorf("got %d steps cached, want 1\n%s", got, w.out.String())
	}
	if _, top := w.image(res); !slices.Equal(top, []string{"a", "a/app"}) {
		t.Errorf("top layer: got %q, want that of the linked copy", top)
	}
}

// The layer is what a copy onto nothing gives: its directories are all there, and
// replace symlinks of the base. With --chmod it is a plain copy, as in BuildKit.
func TestLinkLooksAtNothing(t *testing.T) {
	w := newWorld(t)
	w.write("f", "f")
	w.write("root/real/x", "x")
	w.write("real/x", "x")
	root := filepath.Join(w.dir, "root")
	if err := errors.Join(os.Symlink("real", root+"/lib"), os.Mkdir(root+"/tmp", 0o700), os.Chmod(root+"/tmp", 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		copy  string
		layer []string
		lib   tree.Kind
		tmp   uint32
	}{
		{"COPY f /lib/", []string{"real", "real/f"}, tree.Symlink, 0o1777},
		{"COPY --link f /lib/", []string{"lib", "lib/f"}, tree.Dir, 0o1777},
		{"ADD --link f /tmp/", []string{"tmp", "tmp/f"}, tree.Symlink, 0o755},
		{"COPY --link --chmod=644 f /lib/", []string{"real", "real/f"}, tree.Symlink, 0o1777},
		{"COPY --link real /real", []string{"real", "real/x"}, tree.Symlink, 0o1777}, // the same file, and yet a layer
		{"COPY --link f /", []string{"f"}, tree.Symlink, 0o1777},
	} {
		t.Run(tt.copy, func(t *testing.T) {
			got, top := w.image(w.must("FROM scratch\nCOPY root /\n" + tt.copy + "\n"))
			if d := cmp.Diff(tt.layer, top); d != "" {
				t.Errorf("layer (-want +got)\n%s", d)
			}
			if lib, tmp := got.Lookup("lib"), got.Lookup("tmp"); lib.Kind != tt.lib || tmp.Mode != tt.tmp {
				t.Errorf("image: lib is a %v, tmp is %o; want %v and %o", lib.Kind, tmp.Mode, tt.lib, tt.tmp)
			}
			if x := got.Lookup("real/x"); x == nil {
				t.Error("image: real/x is gone")
			}
		})
	}
}

package build

import (
	"testing"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/tree"
)

func TestSquash(t *testing.T) {
	w := newWorld(t)
	w.write("a", "one")
	w.write("b", "two")
	base, out := t.TempDir(), t.TempDir()
	w.must("FROM scratch\nCOPY a /base/a\nCOPY a /base/gone", func(o *Options) { o.Outputs = []Output{{Type: OutputOCI, Dest: base}} })
	squashed := func(text string) *oci.Image {
		t.Helper()
		dir := t.TempDir()
		w.must(text, func(o *Options) {
			o.SingleSnapshot, o.Contexts = true, map[string]string{"base": "oci-layout://" + base}
			o.Outputs = []Output{{Type: OutputOCI, Dest: dir}, {Type: OutputLocal, Dest: out}}
		})
		img, err := oci.OpenLayout(t.Context(), dir, "", hostPlatform)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	const text = "FROM base AS one\nCOPY b /base/b\nWORKDIR /w\nFROM one\nCOPY b /base/a\nENV A=b\nCMD [\"x\"]"
	img := squashed(text)
	if got, want := len(img.Layers), 3; got != want {
		t.Errorf("layers: got %d, want the base's two and one", got)
	}
	full := 0
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			full++
		}
	}
	if n := len(img.Config.History); n != 3 || full != 3 || img.Config.History[2].CreatedBy != `CMD ["x"]` {
		t.Errorf("history: got %+v, want the base's two entries and one, of the last instruction", img.Config.History)
	}
	again := squashed(text)
	if img.Desc.Digest != again.Desc.Digest {
		t.Errorf("again: got %s, want the same, %s", again.Desc.Digest, img.Desc.Digest)
	}
	// The one layer holds what the steps' layers hold together.
	b := w.builder()
	b.opts.Platform = hostPlatform
	cs, err := knownLayer(img.Layers[2].DiffID, img.Layers[2].Desc, &img.Layers[2]).open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range cs {
		if c.Node != nil && c.Node.Kind == tree.File {
			paths = append(paths, c.Path)
		}
	}
	if len(paths) != 2 || paths[0] != "base/a" || paths[1] != "base/b" {
		t.Errorf("files of the layer: got %q, want base/a and base/b", paths)
	}

	for name, text := range map[string]string{"nothing but metadata": "FROM base\nENV A=b", "nothing": "FROM base"} {
		img := squashed(text)
		if len(img.Layers) != 2 || len(img.Config.History) > 3 {
			t.Errorf("%s: got %d layers and %d entries of history, want the base's two layers", name, len(img.Layers), len(img.Config.History))
		}
	}
}

package fusefs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// TestShortPackOfAChangedFile: the bytes of a changed file that still lie in the parent's pack are missed as well. LAWS 18.
func TestShortPackOfAChangedFile(t *testing.T) {
	w := newWorld(t)
	cs := tree.Changes{{Path: "f", Node: w.file(0o644, strings.Repeat("x", 10000))}}
	layer := w.layer(cs)
	if err := os.Truncate(filepath.Join(w.packs.Dir(), string(cs[0].Node.Extents[0].Pack)), 5000); err != nil {
		t.Fatal(err)
	}
	r := w.mount(nil, layer)
	if out, err := r.try("fallocate -p -o 0 -l 100 f; cat f"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("read of a changed file in a short pack: got %v, %q, want EIO", err, out[:min(len(out), 100)])
	}
	if _, err := w.b.Finish(context.Background(), r.id); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("finish: got %v, want an unexpected EOF", err)
	}
}

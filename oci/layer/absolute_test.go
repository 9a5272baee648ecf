package layer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// LAWS 15: an ancestor that is an absolute symlink leads from the root of the
// image, wherever the symlink stands.
func TestReadAbsoluteSymlinkBelowTheRoot(t *testing.T) {
	cs, _, _ := mustRead(t, tarOf(t, dir("a/b/", 0o755), symlink("a/b/l", "/real"), file("a/b/l/x", "1"), link("y", "a/b/l/x")))
	var got []string
	for _, c := range cs {
		got = append(got, c.Path)
	}
	if diff := cmp.Diff([]string{"a/b", "a/b/l", "real/x", "y"}, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

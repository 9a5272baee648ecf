package buildctx

import (
	"slices"
	"testing"
)

// What a source skips is not looked at, even where it could not be part of a
// context; what another source names is there all the same.
func TestTreeOfSkips(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"a/f": "", "a/big/f": "", "a/big/.wh.x": "", "a/sub/big/f": "", "a/sub/g": "", "l": "->a", "other/big/f": "",
	})
	c := open(t, dir, Options{})
	skip := func(below string) bool { return below == "big" }
	for _, tt := range []struct {
		name    string
		sources []Source
		want    []string
	}{
		{"a directory", []Source{{"a", skip}}, []string{"a/", "a/f", "a/sub/", "a/sub/big/", "a/sub/big/f", "a/sub/g"}},
		{"relative to each", []Source{{"a/sub", skip}, {"other", skip}}, []string{"a/", "a/sub/", "a/sub/g", "other/"}},
		{"through a symlink", []Source{{"l", skip}}, []string{"a/", "a/f", "a/sub/", "a/sub/big/", "a/sub/big/f", "a/sub/g", "l->a"}},
		{"by a pattern", []Source{{"[a]", skip}}, []string{"a/", "a/f", "a/sub/", "a/sub/big/", "a/sub/big/f", "a/sub/g"}},
		{"one inside another", []Source{{"a", skip}, {"a/sub", skip}}, []string{"a/", "a/f", "a/sub/", "a/sub/big/", "a/sub/big/f", "a/sub/g"}},
		{"what another source names", []Source{{"other", skip}, {Path: "other/big"}}, []string{"other/", "other/big/", "other/big/f"}},
		{"the same directory twice", []Source{{"other", skip}, {Path: "other"}}, []string{"other/", "other/big/", "other/big/f"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, err := c.TreeOf(t.Context(), tt.sources)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(tr); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if _, err := c.TreeOf(t.Context(), []Source{{Path: "a"}}); err == nil {
		t.Error("without a skip: got no error, the test is blind")
	}
}

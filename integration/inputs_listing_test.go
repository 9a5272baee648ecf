//go:build integration

package integration

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// listing is what an image holds: a line for every path of every layer, times
// left out, contents by digest.
type listing map[string]entry

type entry struct {
	Kept    string // what never varies
	Content string
}

func list(img v1.Image) (listing, error) {
	li := listing{}
	return li, eachEntry(img, func(layer int, h *tar.Header, r io.Reader) error {
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		key := fmt.Sprintf("%d %s", layer, name)
		if _, ok := li[key]; ok {
			return fmt.Errorf("layer %d has %s twice", layer, name)
		}
		e := *h
		e.Size, e.Name = 0, name
		li[key] = entry{Kept: entryLine(&e, false), Content: hex.EncodeToString(sum.Sum(nil))}
		return nil
	})
}

// diffListings says how two images differ; a path that varies may be missing, and
// have any contents, but not other owners or another mode.
func diffListings(a, b listing, varies *regexp.Regexp) string {
	var out []string
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, key := range slices.Sorted(maps.Keys(names)) {
		_, name, _ := strings.Cut(key, " ")
		free := varies != nil && varies.MatchString(name)
		x, inA := a[key]
		y, inB := b[key]
		switch {
		case inA != inB && !free:
			out = append(out, fmt.Sprintf("%s: only in one: %s%s", key, x.Kept, y.Kept))
		case inA && inB && x.Kept != y.Kept:
			out = append(out, fmt.Sprintf("%s: %s, %s", key, x.Kept, y.Kept))
		case inA && inB && x.Content != y.Content && !free:
			out = append(out, key+": contents differ")
		}
	}
	if n := len(out); n > 30 {
		out = append(out[:30], fmt.Sprintf("and %d more", n-30))
	}
	return strings.Join(out, "\n")
}

// TestDiffListings shows that the comparison of images can fail.
func TestDiffListings(t *testing.T) {
	file := func(kept, content string) listing { return listing{"0 log/a": {kept, content}} }
	varies := regexp.MustCompile(`^log/`)
	for _, c := range []struct {
		name   string
		a, b   listing
		varies *regexp.Regexp
		want   string
	}{
		{"equal", file("- 0644", "x"), file("- 0644", "x"), nil, ""},
		{"content", file("- 0644", "x"), file("- 0644", "y"), nil, "0 log/a: contents differ"},
		{"mode", file("- 0644", "x"), file("- 0600", "x"), varies, "0 log/a: - 0644, - 0600"},
		{"missing", file("- 0644", "x"), listing{}, nil, "0 log/a: only in one: - 0644"},
		{"content that varies", file("- 0644", "x"), file("- 0644", "y"), varies, ""},
		{"missing that varies", listing{}, file("- 0644", "y"), varies, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := diffListings(c.a, c.b, c.varies); got != c.want {
				t.Errorf("difference: got %q, want %q", got, c.want)
			}
		})
	}
}

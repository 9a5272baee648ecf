//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// merged is the file system of an image, made by the rules of the OCI image
// specification alone: by path the attributes, without times, and the contents. Names of one file share a
// node.
type merged map[string]*mergedNode

type mergedNode struct{ line, content string }

func mergeImage(img v1.Image) (merged, error) {
	m := merged{}
	current, own := -1, map[string]bool{} // what the layer itself has put
	return m, eachEntry(img, func(layer int, h *tar.Header, r io.Reader) error {
		if layer != current {
			current, own = layer, map[string]bool{}
		}
		name := strings.Trim(path.Clean("/"+h.Name), "/")
		dir, base := path.Split(name)
		if base == ".wh..wh..opq" {
			m.remove(strings.TrimSuffix(dir, "/"), false, own)
			return nil
		}
		if gone, ok := strings.CutPrefix(base, ".wh."); ok {
			m.remove(dir+gone, true, own)
			return nil
		}
		own[name] = true
		if h.Typeflag == tar.TypeLink {
			to := m[strings.Trim(path.Clean("/"+h.Linkname), "/")]
			if to == nil {
				return fmt.Errorf("%s is a link to %s, which is not there", name, h.Linkname)
			}
			m[name] = to
			return nil
		}
		if h.Typeflag != tar.TypeDir {
			m.remove(name, true, nil)
		}
		e := *h
		e.Name = ""
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return err
		}
		m[name] = &mergedNode{entryLine(&e, false), hex.EncodeToString(sum.Sum(nil))}
		return nil
	})
}

// remove takes away what is below a path, and ITSELF, but for what the layer has put.
func (m merged) remove(name string, itself bool, own map[string]bool) {
	for p := range m {
		if (itself && p == name || strings.HasPrefix(p, name+"/") || name == "" && p != "") && !own[p] {
			delete(m, p)
		}
	}
}

// diffTrees says how the file systems of two images differ, contents of what matches VARIES aside.
func diffTrees(a, b v1.Image, varies *regexp.Regexp) string {
	ma, err := mergeImage(a)
	if err != nil {
		return err.Error()
	}
	mb, err := mergeImage(b)
	if err != nil {
		return err.Error()
	}
	return diffMerged(ma, mb, varies)
}

func diffMerged(a, b merged, varies *regexp.Regexp) string {
	la, lb := a.links(), b.links()
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []string
	for _, p := range slices.Sorted(maps.Keys(all)) {
		x, y := a[p], b[p]
		free := varies != nil && varies.MatchString(p)
		switch {
		case x == nil:
			out = append(out, "missing: "+p)
		case y == nil:
			out = append(out, "too much: "+p)
		case !free && x.line != y.line:
			out = append(out, fmt.Sprintf("%s: got %s, want %s", p, x.line, y.line))
		case !free && x.content != y.content:
			out = append(out, p+": contents differ")
		case la[p] != lb[p]:
			out = append(out, fmt.Sprintf("%s: got links %s, want %s", p, la[p], lb[p]))
		}
	}
	if n := len(out); n > 30 {
		out = append(out[:30], fmt.Sprintf("and %d more", n-30))
	}
	return strings.Join(out, "\n")
}

// links are, by path, all names of the same node.
func (m merged) links() map[string]string {
	names := map[*mergedNode][]string{}
	for p, n := range m {
		names[n] = append(names[n], p)
	}
	out := map[string]string{}
	for p, n := range m {
		slices.Sort(names[n])
		out[p] = strings.Join(names[n], " ")
	}
	return out
}

// The comparison of file systems can fail, and follows whiteouts and links.
func TestDiffTrees(t *testing.T) {
	layer := func(files ...file) []byte {
		data, err := tarOf(files...)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	image := func(layers ...[]byte) v1.Image {
		img := empty.Image
		for _, data := range layers {
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
			if err != nil {
				t.Fatal(err)
			}
			if img, err = mutate.AppendLayers(img, l); err != nil {
				t.Fatal(err)
			}
		}
		return img
	}
	d := file{name: "d/", mode: 0o755}
	f := func(name, data string) file { return file{name: name, data: data, mode: 0o644} }
	one := layer(d, f("d/a", "1"), f("d/b", "2"), file{name: "d/c", hard: "d/b"})
	for _, tt := range []struct {
		name string
		a, b v1.Image
		want string
	}{
		{"equal", image(one), image(one), ""},
		{"in two layers", image(layer(d, f("d/a", "1")), layer(f("d/b", "2"), file{name: "d/c", hard: "d/b"})), image(one), ""},
		{"content", image(one, layer(f("d/a", "x"))), image(one), "d/a: contents differ"},
		{"whiteout", image(one, layer(f("d/.wh.a", ""))), image(one), "missing: d/a"},
		{"whiteout and again", image(one, layer(f("d/.wh.a", ""), f("d/a", "1"))), image(one), ""},
		{"opaque", image(one, layer(d, f("d/.wh..wh..opq", ""), f("d/a", "1"), f("d/b", "2"), file{name: "d/c", hard: "d/b"})), image(one), ""},
		{"more", image(one, layer(f("e", ""))), image(one), "too much: e"},
		{"mode", image(layer(file{name: "a", mode: 0o600})), image(layer(file{name: "a", mode: 0o644})), "a: got - 0600 0:0 0 , want - 0644 0:0 0 "},
		{"links", image(layer(d, f("d/a", "1"), f("d/b", "2"), f("d/c", "2"))), image(one), "d/b: got links d/b, want d/b d/c\nd/c: got links d/c, want d/b d/c"},
		{"directory by a file", image(one, layer(f("d", ""))), image(layer(f("d", ""))), ""},
	} {
		if got := diffTrees(tt.a, tt.b, nil); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := diffTrees(image(one, layer(f("d/a", "x"))), image(one), regexp.MustCompile("^d/a$")); got != "" {
		t.Errorf("what may vary: got %q, want nothing", got)
	}
}

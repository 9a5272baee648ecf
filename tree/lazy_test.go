package tree

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkLazy compares ApplyIndex with Decode and Apply.
func checkLazy(t *testing.T, parent Tree, encoded []byte) (Tree, bool) {
	t.Helper()
	var want Tree
	cs, wantErr := Decode(encoded)
	if wantErr == nil {
		want, wantErr = parent.Apply(cs)
	}
	got, packs, err := parent.ApplyIndex(string(encoded))
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Errorf("apply index: got %v, want %v", err, wantErr)
	}
	if err != nil || wantErr != nil {
		return got, false
	}
	if got, want := show(t, got), show(t, want); got != want {
		t.Errorf("apply index of\n%s(-want +got):\n%s", Format(cs), cmp.Diff(want, got))
	}
	checkLinks(t, got)
	for i := range cs {
		for k := 0; cs[i].Node != nil && k < len(cs[i].Node.Extents); k++ {
			if p := cs[i].Node.Extents[k].Pack; p != "" && !slices.Contains(packs, p) {
				t.Errorf("packs of the index: got %q, %q is missing", packs, p)
			}
		}
	}
	return got, true
}

// Layers of anybody, on a parent and on each other.
func TestApplyIndex(t *testing.T) {
	cases := 2000
	if testing.Short() {
		cases = 500
	}
	plain := 0
	for seed := range int64(cases) {
		r := rand.New(rand.NewSource(seed))
		tr := Empty()
		for range 3 {
			cs := foreignChanges(r)
			if r.Intn(2) == 0 { // one of ours
				e := tr.Edit()
				mutate(r, e, 12)
				var err error
				if cs, err = Diff(tr, e.Tree(), nil); err != nil {
					t.Fatal(err)
				}
			}
			encoded := Encode(cs)
			if _, lazy, err := scanIndex(string(encoded)); err == nil && lazy {
				plain++
			}
			next, ok := checkLazy(t, tr, encoded)
			if t.Failed() {
				t.Fatalf("seed %d, on\n%s", seed, show(t, tr))
			}
			if ok {
				tr = next
			}
		}
	}
	if plain < cases {
		t.Errorf("only %d of %d layers were lazy", plain, 3*cases)
	}
}

// foreignChanges are what a layer of others may hold.
func foreignChanges(r *rand.Rand) Changes {
	paths := append(slices.Clone(randomPaths), "b/x", "a/b/c/d", "i/a/b", "x/y/z", "x", "x/y")
	var cs Changes
	var nodes []*Node
	for _, p := range paths {
		c := Change{Path: p}
		switch r.Intn(9) {
		case 0, 1:
			c.Node = &Node{Kind: Dir, Mode: 0o755, Mtime: Time{Sec: int64(r.Intn(3))}}
			c.Opaque = r.Intn(3) == 0
		case 2, 3:
			c.Node = &Node{Kind: File, Mode: 0o644, Size: int64(r.Intn(2))}
			if c.Node.Size > 0 {
				c.Node.Extents = []Extent{{"tar-1", int64(r.Intn(2)), 1}}
			}
			nodes = append(nodes, c.Node)
		case 4:
			target := paths[r.Intn(len(paths))]
			c.Node = &Node{Kind: Symlink, Mode: 0o777, Target: target, Size: int64(len(target))}
		case 5:
			if len(nodes) > 0 {
				c.Node = nodes[r.Intn(len(nodes))]
			}
		case 6:
			if c.LinkTo = ""; r.Intn(8) == 0 {
				c.LinkTo = paths[r.Intn(len(paths))]
			}
		case 7:
			c.Opaque = r.Intn(4) == 0
		default:
			continue
		}
		cs = append(cs, c)
	}
	if r.Intn(2) == 0 { // with the directories above: the plain case
		for _, p := range paths {
			if !slices.ContainsFunc(cs, func(c Change) bool { return c.Path == p }) &&
				slices.ContainsFunc(cs, func(c Change) bool { return strings.HasPrefix(c.Path, p+"/") }) {
				cs = append(cs, Change{Path: p, Node: &Node{Kind: Dir, Mode: 0o711}})
			}
		}
		cs = slices.DeleteFunc(cs, func(c Change) bool { return c.LinkTo != "" || c.Opaque && c.Node == nil })
	}
	cs.Sort()
	return cs
}

// Trees are shared: whoever looks first makes the entries, for all.
func TestApplyIndexAtOnce(t *testing.T) {
	var cs Changes
	for d := range 50 {
		cs = append(cs, Change{Path: fmt.Sprint("d", d), Node: &Node{Kind: Dir, Mode: 0o755}})
		for f := range 20 {
			cs = append(cs, Change{Path: fmt.Sprintf("d%d/f%d", d, f), Node: &Node{Kind: File}})
		}
	}
	cs.Sort()
	tr, _, err := Empty().ApplyIndex(string(Encode(cs)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	seen := make([][]*Node, 4)
	for k := range seen {
		wg.Go(func() {
			_ = tr.Walk(func(_ string, n *Node) error {
				seen[k] = append(seen[k], n)
				return nil
			})
		})
	}
	wg.Wait()
	for k := range seen {
		if len(seen[k]) != 1051 || !slices.Equal(seen[k], seen[0]) {
			t.Errorf("walk %d: %d entries, not those of the others", k, len(seen[k]))
		}
	}
}

func BenchmarkApplyIndex(b *testing.B) {
	var cs Changes
	for d := range 1500 {
		cs = append(cs, Change{Path: fmt.Sprint("d", d), Node: &Node{Kind: Dir, Mode: 0o755}})
		for f := range 20 {
			cs = append(cs, Change{Path: fmt.Sprintf("d%d/f%d", d, f), Node: &Node{Kind: File, Size: 1, Extents: []Extent{{"p", int64(f), 1}}}})
		}
	}
	cs.Sort()
	s := string(Encode(cs))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Empty().ApplyIndex(s); err != nil {
			b.Fatal(err)
		}
	}
}

package tree

import (
	"fmt"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/testenv"
)

// A hostile layer with very many names for one file must not cost the square of
// their number, whether they are made, changed or removed.
func TestLargeLinkGroups(t *testing.T) {
	const n = 30_000
	file := &Node{Kind: File, Mode: 0o644}
	var made, changed, half Changes
	other := &Node{Kind: File, Mode: 0o600}
	for i := range n {
		p := fmt.Sprintf("f%05d", i)
		made = append(made, Change{Path: p, Node: file})
		changed = append(changed, Change{Path: p, Node: other})
		if i%2 == 0 {
			half = append(half, Change{Path: p})
		}
	}
	took := testenv.ProcessorTime(t, func() {
		a, err := Empty().Apply(made)
		if err != nil {
			t.Fatal(err)
		}
		b, err := a.Apply(changed)
		if err != nil {
			t.Fatal(err)
		}
		c, err := b.Apply(half)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range []struct {
			tree Tree
			want int
		}{{a, n}, {b, n}, {c, n / 2}} {
			if got := len(tr.tree.Lookup("f00001").Links()); got != tr.want {
				t.Errorf("names: got %d, want %d", got, tr.want)
			}
		}
		for _, to := range []Tree{b, c} {
			if _, err := Diff(a, to, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
	// The square takes minutes, the rest well under a second.
	if took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// LAWS 13: what a layer repeats of a foreign base has whole seconds, as everything
// in it: the tree handed on is what the sealed layer gives back.
func TestDiffRoundsWhatItRepeats(t *testing.T) {
	foreign := Time{Sec: 5, Nsec: 7}
	e := Empty().Edit()
	for _, p := range []string{"usr", "usr/local"} {
		if err := e.Put(p, Node{Kind: Dir, Mode: 0o755, Mtime: foreign}); err != nil {
			t.Fatal(err)
		}
	}
	parent := e.Tree()
	e = parent.Edit()
	if err := e.Put("usr/local/new", Node{Kind: File, Mode: 0o644, Mtime: Time{Sec: 9}}); err != nil {
		t.Fatal(err)
	}
	cs, err := Diff(parent, e.Tree(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(cs) != 3 {
		t.Fatalf("changes: got\n%swant three", Format(cs))
	}
	for _, c := range cs {
		if c.Node.Mtime.Nsec != 0 {
			t.Errorf("%s: got %v, want whole seconds", c.Path, c.Node.Mtime)
		}
	}
}

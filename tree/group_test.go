package tree

import (
	"fmt"
	"testing"
	"time"
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
	start := time.Now()
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
	// The square takes minutes, the rest well under a second.
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

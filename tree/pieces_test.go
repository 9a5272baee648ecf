package tree

import (
	"errors"
	"fmt"
	"math/rand"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pieces encodes changes, size bytes and more at a time.
func pieces(cs Changes, size int) []Piece {
	var out []Piece
	p := NewPieces(len(cs), size)
	take := func() {
		one := p.Take()
		out = append(out, Piece{Packs: one.Packs, Data: append([]byte(nil), one.Data...), Count: one.Count})
	}
	seen := map[*Node]int{}
	for i := range cs {
		seen[cs[i].Node]++
	}
	for i := range cs {
		p.Add(cs[i].Path, cs[i].Node, seen[cs[i].Node] > 1)
		if p.Len() >= size {
			take()
		}
	}
	take()
	return out
}

func grow(t Tree, list []Piece) (Changes, Tree, error) {
	g := t.Grow()
	for _, p := range list {
		if err := g.Add(p); err != nil {
			return nil, Tree{}, err
		}
	}
	return g.End()
}

// Changes that came in pieces, and the tree after, are those of Encode and Apply: on the
// parent that they were made on, and on any other, where nothing need fit.
func TestGrow(t *testing.T) {
	cases := 3000
	if testing.Short() {
		cases = 800
	}
	odd := 0
	for seed := range int64(cases) {
		r := rand.New(rand.NewSource(seed))
		e := Empty().Edit()
		mutate(r, e, 25)
		parent := e.Tree()
		e = parent.Edit()
		mutate(r, e, r.Intn(25))
		child := e.Tree()
		e = Empty().Edit()
		mutate(r, e, 25)
		other := e.Tree()
		cs, err := Diff(parent, child, nil)
		must(t, err)
		data := Encode(cs)
		list := pieces(cs, 1+r.Intn(200))
		for name, on := range map[string]Tree{"parent": parent, "other": other, "child": child} {
			before := show(t, on)
			want, werr := on.Apply(cs)
			gotCs, got, err := grow(on, list)
			if (err == nil) != (werr == nil) {
				t.Fatalf("seed %d on %s: got %v, want %v", seed, name, err, werr)
			}
			if g := on.Grow(); g.Add(list[0]) == nil && g.odd {
				odd++
				if name == "parent" {
					t.Errorf("seed %d: a difference was not applied as it came", seed)
				}
			}
			if err != nil {
				continue
			}
			if diff := cmp.Diff(show(t, want), show(t, got)); diff != "" {
				t.Fatalf("seed %d on %s (-want +got):\n%s", seed, name, diff)
			}
			checkLinks(t, got)
			if string(Encode(gotCs)) != string(data) {
				t.Fatalf("seed %d: got changes\n%s, want\n%s", seed, Format(gotCs), Format(cs))
			}
			if after := show(t, on); after != before {
				t.Fatalf("seed %d: the parent changed:\n%s", seed, cmp.Diff(before, after))
			}
		}
	}
	if odd == 0 {
		t.Error("nothing was met that does not fit: the test looks at too little")
	}
}

// What no encoder writes is refused where it stands.
func TestGrowRefuses(t *testing.T) {
	good := pieces(everyChange()[4:6], 1<<20)[0]
	for name, list := range map[string][]Piece{
		"cut short":    {{Packs: good.Packs, Data: good.Data[:len(good.Data)-1]}},
		"order":        {{Data: []byte{0, 1, 'b', 0}}, {Data: []byte{0, 1, 'a', 0}}},
		"no pack":      {{Data: good.Data}},
		"prefix":       {{Data: []byte{1, 1, 'b', 0}}},
		"same as what": {{Data: []byte{0, 1, 'b', flagSame, 0}}},
		"in two":       {{Packs: good.Packs, Data: good.Data[:5]}, {Data: good.Data[5:]}},
	} {
		if _, _, err := grow(Empty(), list); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

// manyFiles are n new files in directories of twenty.
func manyFiles(n int) Changes {
	cs := Changes{{Path: "new", Node: &Node{Kind: Dir, Mode: 0o755}}}
	for i := range n {
		if i%20 == 0 {
			cs = append(cs, Change{Path: fmt.Sprint("new/", i/20), Node: &Node{Kind: Dir, Mode: 0o755, Mtime: Time{Sec: 1.7e9}}})
		}
		x := []Extent{{Pack: "spool-01234567890123456789", Off: int64(i) * 4096, Len: 4000}}
		cs = append(cs, Change{Path: fmt.Sprintf("new/%d/%d", i/20, i), Node: &Node{Kind: File, Mode: 0o644, Mtime: Time{Sec: 1.7e9}, Size: 4000, Extents: x}})
	}
	cs.Sort()
	return cs
}

func BenchmarkApply(b *testing.B) {
	cs := manyFiles(30000)
	data, list := Encode(cs), pieces(cs, 64<<10)
	b.Run("at once", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cs, err := Decode(data)
			if err == nil {
				_, err = Empty().Apply(cs)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("in pieces", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g := Empty().Grow()
			for _, p := range list {
				if err := g.Add(p); err != nil {
					b.Fatal(err)
				}
			}
			if _, _, err := g.End(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPieces(b *testing.B) {
	cs := manyFiles(30000)
	b.ReportAllocs()
	for b.Loop() {
		p := NewPieces(len(cs), 80<<10)
		for i := range cs {
			p.Add(cs[i].Path, cs[i].Node, false)
			if p.Len() > 64<<10 {
				p.Take()
			}
		}
	}
}

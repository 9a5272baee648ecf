package trace

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// every asks everything about every path of a tree and some that are not there.
func every(t tree.Tree) []Question {
	var qs []Question
	_ = t.Walk(func(p string, n *tree.Node) error {
		for k := Entry; k <= Time; k++ {
			qs = append(qs, Question{Path: p, Kind: k})
		}
		if n.Kind != tree.Dir {
			qs = append(qs, Question{Path: p + "/below", Kind: Entry})
		}
		qs = append(qs, Question{Path: tree.Join(p, "missing"), Kind: Entry})
		return nil
	})
	return qs
}

func known(*tree.Node) (tree.Digest, error) { return digestA, nil }

func record(t testing.TB, s tree.Tree, qs []Question) *Trace {
	t.Helper()
	tr, err := Record([]tree.Tree{s}, qs, AnswerOptions{Digest: known})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// random makes a tree of a few directories, whose names are prefixes of each other.
func random(r *rand.Rand) tree.Tree {
	e := tree.Empty().Edit()
	names := []string{"a", "a.b", "a-b", "ab", "b"}
	var files []string
	for range 40 {
		p := names[r.IntN(len(names))]
		for range r.IntN(3) {
			p = tree.Join(p, names[r.IntN(len(names))])
		}
		edit(r, e, p, &files)
	}
	return e.Tree()
}

// edit changes something at p.
func edit(r *rand.Rand, e *tree.Editor, p string, files *[]string) {
	n := tree.Node{Kind: tree.File, Mode: 0o600 + uint32(r.IntN(2)), Size: int64(1 + r.IntN(2)), Digest: []tree.Digest{digestA, digestB}[r.IntN(2)]}
	switch r.IntN(8) {
	case 0:
		n = tree.Node{Kind: tree.Dir, Mode: 0o700 + uint32(r.IntN(2))}
	case 1:
		n = tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: []string{"a", "b"}[r.IntN(2)], Size: 1}
	case 2:
		n.Xattrs = []tree.Xattr{{Name: "user.x", Value: fmt.Sprint(r.IntN(2))}}
	case 3:
		if len(*files) > 0 { // an ancestor may be a file: then nothing is linked
			_ = e.Link(p, (*files)[r.IntN(len(*files))])
		}
		return
	case 4:
		_ = e.Remove(p)
		return
	}
	if e.Put(p, n) == nil && n.Kind == tree.File {
		*files = append(*files, p)
	}
}

// A trace matches the tree that it was recorded on, and another one exactly if every
// question has the same answer there, asked alone.
func TestMatchIsEveryAnswer(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hits, misses := 0, 0
	for range 2000 {
		s := random(r)
		qs := every(s)
		r.Shuffle(len(qs), func(i, j int) { qs[i], qs[j] = qs[j], qs[i] })
		tr := record(t, s, qs[:1+r.IntN(len(qs))])
		if d, n, err := tr.Match([]tree.Tree{s}, AnswerOptions{Digest: known}, 5); n != 0 || len(d) != 0 || err != nil {
			t.Fatalf("no match on its own tree: %v, %d, %v", d, n, err)
		}
		e := s.Edit()
		var files []string
		for range 1 + r.IntN(3) {
			edit(r, e, []string{"a", "a/a", "b", "ab/b"}[r.IntN(4)], &files)
		}
		other := e.Tree()
		want := 0
		for _, a := range tr.Answers {
			if got, err := Answer(other, a.Question, AnswerOptions{Digest: known}); err != nil || got != a.Answer {
				want++
			}
		}
		_, got, err := tr.Match([]tree.Tree{other}, AnswerOptions{Digest: known}, 1)
		if got != want || err != nil {
			t.Fatalf("%d differences, %v; asked alone %d", got, err, want)
		}
		if want == 0 {
			hits++
		} else {
			misses++
		}
	}
	if hits < 50 || misses < 50 {
		t.Errorf("%d hits and %d misses prove little", hits, misses)
	}
}

// Any edit of what a question is about makes the trace not match.
func TestMatchSeesEveryEdit(t *testing.T) {
	s := sample(t)
	file := s.Lookup("d/file").Attrs()
	alter := func(fn func(n *tree.Node)) tree.Node {
		n := file
		fn(&n)
		return n
	}
	cases := []struct {
		name string
		kind Kind
		node tree.Node
	}{
		{"mode", Entry, alter(func(n *tree.Node) { n.Mode = 0o755 })},
		{"owner", Entry, alter(func(n *tree.Node) { n.UID = 9 })},
		{"group", Entry, alter(func(n *tree.Node) { n.GID = 9 })},
		{"size", Entry, alter(func(n *tree.Node) { n.Size = 9 })},
		{"holes", Entry, alter(func(n *tree.Node) { n.Extents = []tree.Extent{{Len: 5}} })},
		{"kind", Entry, tree.Node{Kind: tree.Dir, Mode: 0o4644, UID: 1, GID: 2}},
		{"content", Content, alter(func(n *tree.Node) { n.Digest = digestB })},
		{"attributes", Xattr, alter(func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.b", Value: ""}} })},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tr := record(t, s, []Question{{Path: "d/file", Kind: c.kind}})
			e := s.Edit()
			if err := e.Put("d/file", c.node); err != nil {
				t.Fatal(err)
			}
			found, n, err := tr.Match([]tree.Tree{e.Tree()}, AnswerOptions{}, 0)
			if err != nil || n != 1 || len(found) != 1 || found[0].Path != "d/file" || found[0].Was == found[0].Is {
				t.Errorf("got %v, %d, %v; want one difference", found, n, err)
			}
		})
	}
}

// Times count only where the trace was made with them (LAWS 9).
func TestMatchTimes(t *testing.T) {
	s := sample(t)
	e := s.Edit()
	later := s.Lookup("d/file").Attrs()
	later.Mtime.Sec++
	if err := e.Put("d/file", later); err != nil {
		t.Fatal(err)
	}
	for _, times := range []bool{false, true} {
		tr, err := Record([]tree.Tree{s}, []Question{{Path: "d/file", Kind: Entry}}, AnswerOptions{Times: times})
		if err != nil {
			t.Fatal(err)
		}
		if _, n, err := tr.Match([]tree.Tree{e.Tree()}, AnswerOptions{}, 0); (n == 0) == times || err != nil {
			t.Errorf("with times %v: %d differences, %v", times, n, err)
		}
	}
}

// Doubt is no match (LAWS 10): a mount that is gone, bytes that cannot be read.
func TestMatchDoubt(t *testing.T) {
	s := sample(t)
	mounted := &Trace{Answers: []Answered{{Question{Root: 1, Path: "d", Kind: Entry}, "d 2755 3:4"}}}
	if _, _, err := mounted.Match([]tree.Tree{s}, AnswerOptions{}, 0); err == nil {
		t.Error("a trace of a mount matches without it")
	}
	if _, n, err := mounted.Match([]tree.Tree{{}, s}, AnswerOptions{}, 0); err != nil || n != 0 {
		t.Errorf("with the mount: %d, %v", n, err)
	}
	raw := record(t, s, []Question{{Path: "d/raw", Kind: Content}})
	broken := errors.New("pack is gone")
	o := AnswerOptions{Digest: func(*tree.Node) (tree.Digest, error) { return "", broken }}
	if _, _, err := raw.Match([]tree.Tree{s}, o, 0); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// Contents are read last, and not at all where something else differs already.
func TestMatchReadsLast(t *testing.T) {
	s := sample(t)
	tr := record(t, s, []Question{{Path: "d/raw", Kind: Content}, {Path: "d/x", Kind: Entry}})
	e := s.Edit()
	if err := e.Remove("d/x"); err != nil {
		t.Fatal(err)
	}
	o := AnswerOptions{Digest: func(*tree.Node) (tree.Digest, error) {
		t.Error("a file was read although the trace cannot match")
		return digestA, nil
	}}
	for _, limit := range []int{0, 10} {
		if _, n, err := tr.Match([]tree.Tree{e.Tree()}, o, limit); n != 1 || err != nil {
			t.Errorf("limit %d: %d differences, %v; want 1", limit, n, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	s := sample(t)
	tr := record(t, s, every(s))
	tr.Times = true
	for _, want := range []*Trace{tr, {}} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.Answers, got.Answers); d != "" && len(want.Answers)+len(got.Answers) > 0 || want.Times != got.Times {
			t.Error(d)
		}
		for i := range b {
			if _, err := Decode(b[:i]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("cut to %d bytes: %v, want ErrCorrupt", i, err)
			}
		}
	}
}

// What Decode would not take is not encoded.
func TestEncodeBounds(t *testing.T) {
	long := &Trace{Answers: []Answered{{Question{Path: string(make([]byte, maxPath+1)), Kind: Entry}, absent}}}
	if _, err := long.Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func FuzzDecode(f *testing.F) {
	s := sample(f)
	for _, tr := range []*Trace{record(f, s, every(s)), {}} {
		b, err := tr.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := Decode(b)
		if err != nil {
			return
		}
		again, err := tr.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("what was encoded is not decoded: %v", err)
		}
		if third, err := back.Encode(); err != nil || !bytes.Equal(again, third) {
			t.Fatal("two forms of one trace")
		}
		_, _, _ = tr.Match([]tree.Tree{s}, AnswerOptions{Digest: known}, 3)
	})
}

// large is a tree of 50,000 files in 1,000 directories, and everything asked of it.
func large(t testing.TB) (tree.Tree, *Trace) {
	e := tree.Empty().Edit()
	var qs []Question
	for d := range 1000 {
		dir := fmt.Sprintf("srv/node_modules/package-%d/lib", d)
		for f := range 50 {
			p := fmt.Sprintf("%s/module-%d.js", dir, f)
			if err := e.Put(p, tree.Node{Kind: tree.File, Mode: 0o644, Size: int64(d*f + 1), Digest: tree.Digest(fmt.Sprintf("sha256:%064d", d*50+f))}); err != nil {
				t.Fatal(err)
			}
			qs = append(qs, Question{Path: p, Kind: []Kind{Entry, Content}[f%2]})
		}
	}
	s := e.Tree()
	return s, record(t, s, qs)
}

// A trace of 50,000 questions is a matter of milliseconds; the bound leaves room for
// the race detector and a slow machine.
func TestMatchIsFast(t *testing.T) {
	s, tr := large(t)
	took := testenv.ProcessorTime(t, func() {
		if _, n, err := tr.Match([]tree.Tree{s}, AnswerOptions{}, 0); n != 0 || err != nil {
			t.Fatalf("%d differences, %v", n, err)
		}
	})
	if took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	t.Logf("took %v", took)
}

func BenchmarkMatch(b *testing.B) {
	s, tr := large(b)
	for b.Loop() {
		if _, n, err := tr.Match([]tree.Tree{s}, AnswerOptions{}, 0); n != 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	_, tr := large(b)
	data, err := tr.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(data)), "B")
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

package tree

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// randomPaths are few, so that edits meet.
var randomPaths = []string{
	"a", "a/b", "a/b/c", "a/b/d", "a/e", "f", "f/g", "f/h", "i", "a-", "a.b/c", "a.b", "f/g/j", "f/g/k", "i/\xff", "i/l\n",
}

// mutate does k random edits; ones that make no sense are passed over.
func mutate(r *rand.Rand, e *Editor, k int) {
	path := func() string { return randomPaths[r.Intn(len(randomPaths))] }
	for range k {
		p, q := path(), path()
		switch r.Intn(8) {
		case 0:
			_ = e.Put(p, Node{Kind: Dir, Mode: []uint32{0o755, 0o700}[r.Intn(2)], Mtime: Time{Sec: int64(r.Intn(3))}})
		case 1, 2:
			n := Node{Kind: File, Mode: 0o644, UID: uint32(r.Intn(2)), Mtime: Time{Sec: int64(r.Intn(3))}, Size: int64(r.Intn(3))}
			if n.Size > 0 {
				n.Extents = []Extent{{PackID(fmt.Sprint("tar-", r.Intn(2))), int64(r.Intn(2)), n.Size}}
			}
			_ = e.Put(p, n)
		case 3:
			_ = e.Put(p, Node{Kind: Symlink, Mode: 0o777, Target: q, Size: int64(len(q)), Mtime: Time{Sec: 1}})
		case 4, 5:
			_ = e.Link(p, q)
		case 6:
			_ = e.Remove(p)
		case 7:
			if n := e.Lookup(p); n != nil {
				c := n.Attrs()
				c.Mtime.Sec, c.Xattrs = int64(r.Intn(3)), []Xattr{{"user.x", fmt.Sprint(r.Intn(2))}}
				_ = e.Put(p, c)
			}
		}
	}
}

// LAWS 13, 14: stacking the difference on the parent gives the child, up to the
// times of directories in which no name changed, through the encoded form too.
func TestDiffThenApply(t *testing.T) {
	cases := 8000
	if testing.Short() {
		cases = 2000
	}
	for seed := range int64(cases) {
		r := rand.New(rand.NewSource(seed))
		e := Empty().Edit()
		mutate(r, e, 25)
		parent := e.Tree()
		before := show(t, parent)
		e = parent.Edit()
		mutate(r, e, r.Intn(12))
		child := e.Tree()
		checkRoundTrip(t, parent, child)
		checkLinks(t, parent)
		checkLinks(t, child)
		if after := show(t, parent); after != before {
			t.Errorf("the parent changed:\n%s", cmp.Diff(before, after))
		}
		// And for trees that share nothing.
		e = Empty().Edit()
		mutate(r, e, 25)
		checkRoundTrip(t, parent, e.Tree())
		if t.Failed() {
			t.Fatalf("seed %d\nparent:\n%s\nchild:\n%s", seed, before, show(t, child))
		}
	}
}

func checkRoundTrip(t *testing.T, parent, child Tree) {
	t.Helper()
	cs, err := Diff(parent, child, nil)
	must(t, err)
	text := Format(cs)
	decoded, err := Decode(Encode(cs))
	must(t, err)
	if got := Format(decoded); got != text {
		t.Errorf("decoded changes (-want +got):\n%s", cmp.Diff(text, got))
	}
	got, err := parent.Apply(decoded)
	must(t, err)
	checkLinks(t, got)
	for _, pair := range [][2]Tree{{got, child}, {child, got}} {
		rest, err := Diff(pair[0], pair[1], nil)
		must(t, err)
		if len(rest) != 0 {
			t.Errorf("changes:\n%sleave a difference:\n%s", text, Format(rest))
		}
	}
	// The normal form of the result is the changes again: nothing too much.
	again, err := Diff(parent, got, nil)
	must(t, err)
	if s := Format(again); s != text {
		t.Errorf("changes of the result (-first +again):\n%s", cmp.Diff(text, s))
	}
	for i := 1; i < len(cs); i++ {
		if Compare(cs[i-1].Path, cs[i].Path) >= 0 {
			t.Errorf("order: %q before %q", cs[i-1].Path, cs[i].Path)
		}
	}
}

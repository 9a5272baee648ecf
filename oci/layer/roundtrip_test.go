package layer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/tree"
)

// random makes changes of every kind out of a seed, and the pack of their files.
type random struct {
	*rand.Rand
	pack []byte
	cs   tree.Changes
	nods []*tree.Node // that may get another name
}

const spoolPack = tree.PackID("spool-00000000000000000000000000000000")

func (r *random) name() string {
	switch r.IntN(12) {
	case 0:
		return strings.Repeat("long", 1+r.IntN(63))
	case 1:
		return "\xff\xfe" + fmt.Sprint(r.IntN(9))
	case 2:
		return "ünï-" + fmt.Sprint(r.IntN(9))
	case 3:
		return "with space\nand line " + fmt.Sprint(r.IntN(9))
	}
	return fmt.Sprintf("%c%d", 'a'+rune(r.IntN(26)), r.IntN(100))
}

func pick[T any](r *random, of ...T) T { return of[r.IntN(len(of))] }

// fill adds changes below dir; the directories themselves are changes too.
func (r *random) fill(dir string, depth int) {
	names := map[string]bool{}
	for range r.IntN(9) {
		names[r.name()] = true
	}
	for name := range names {
		p := tree.Join(dir, name)
		if len(p) > 2000 {
			continue
		}
		switch {
		case r.IntN(8) == 0:
			r.cs = append(r.cs, tree.Change{Path: p})
		case r.IntN(20) == 0:
			r.cs = append(r.cs, tree.Change{Path: p, Opaque: true})
		case len(r.nods) > 0 && r.IntN(6) == 0:
			r.cs = append(r.cs, tree.Change{Path: p, Node: pick(r, r.nods...)})
		default:
			n := r.node()
			c := tree.Change{Path: p, Node: n}
			if n.Kind == tree.Dir {
				c.Opaque = r.IntN(6) == 0
			} else {
				r.nods = append(r.nods, n)
			}
			r.cs = append(r.cs, c)
			if n.Kind == tree.Dir && depth > 0 {
				r.fill(p, depth-1)
			}
		}
	}
}

func (r *random) node() *tree.Node {
	n := &tree.Node{
		Kind: tree.Kind(1 + r.IntN(6)), Mode: uint32(r.IntN(0o10000)),
		UID: pick[uint32](r, 0, 1000, 2097151, 2097152, 4294967294), GID: pick[uint32](r, 0, 5, 3_000_000_000),
		Mtime: tree.Time{Sec: pick[int64](r, 0, when, -1, -1<<33, 1<<33-1, 1<<33, 1<<39)},
	}
	for range pick(r, 0, 0, 0, 1, 3) {
		n.Xattrs = append(n.Xattrs, tree.Xattr{Name: fmt.Sprintf("user.%s%d", pick(r, "a", "ü", "b c"), len(n.Xattrs)), Value: pick(r, "", "v", "a=b\n\x00\xff", strings.Repeat("x", 70))})
	}
	n.Xattrs = tree.SortXattrs(n.Xattrs)
	switch n.Kind {
	case tree.File:
		r.contents(n)
	case tree.Symlink:
		n.Mode = 0o777
		n.Target = pick(r, "x", "/abs", "../up", strings.Repeat("t", 100), strings.Repeat("t/", 900), "\xff", "ü")
		n.Size = int64(len(n.Target))
	case tree.CharDevice, tree.BlockDevice:
		n.Major, n.Minor = pick[uint32](r, 1, 8, 4095), pick[uint32](r, 0, 3, 1<<20-1)
	default: // no more than every node has
	}
	return n
}

func (r *random) contents(n *tree.Node) {
	for range r.IntN(5) {
		size := pick[int64](r, 1, 511, 512, 513, int64(1+r.IntN(5000)), 65536, 100_000)
		if r.IntN(3) == 0 {
			size = pick[int64](r, 1, 4096, 65535, 65536, 700_001, 1<<20, 5<<20)
			if k := len(n.Extents) - 1; k >= 0 && n.Extents[k].Pack == "" {
				continue
			}
			n.Extents = append(n.Extents, tree.Extent{Len: size})
		} else {
			n.Extents = append(n.Extents, tree.Extent{Pack: spoolPack, Off: int64(len(r.pack)), Len: size})
			for range size {
				r.pack = append(r.pack, byte(r.IntN(4)))
			}
			r.pack = append(r.pack, '#') // extents do not touch
		}
		n.Size += size
	}
}

// describeChanges is Format with contents, so that extents need not be equal, and with
// the holes that a layer keeps.
func describeChanges(t testing.TB, p packs, cs tree.Changes) string {
	var b strings.Builder
	b.WriteString(tree.Format(cs))
	seen := map[*tree.Node]bool{}
	for _, c := range cs {
		if c.Node == nil || c.Node.Kind != tree.File || seen[c.Node] {
			continue
		}
		seen[c.Node] = true
		l, err := layoutOf(c.Node)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v %v\n", sum([]byte(content(t, p, c.Node))), l.sparse, l.spans)
	}
	return b.String()
}

// LAWS 13: what is read from a sealed layer is what was sealed, and sealing that
// gives the same bytes again.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(40) {
		r := &random{Rand: rand.New(rand.NewPCG(seed, 1))}
		r.fill("", 3)
		r.cs.Sort()
		p := packs{spoolPack: r.pack}
		for _, codec := range []string{"gzip", "zstd", "uncompressed"} {
			if codec != "gzip" && seed%5 != 0 {
				continue
			}
			var blob bytes.Buffer
			sealed, err := Seal(context.Background(), &blob, r.cs, p, Options{Compression: codec})
			if err != nil {
				t.Fatalf("seed %d: Seal: %v", seed, err)
			}
			cs, info, pack := mustRead(t, blob.Bytes())
			if info.DiffID != sealed.DiffID || info.Size != sealed.Size || info.TarSize != sealed.TarSize {
				t.Errorf("seed %d: read %+v, sealed %+v", seed, info, sealed)
			}
			if len(info.Notes)+len(sealed.Notes) > 0 {
				t.Errorf("seed %d: notes: got %q and %q, want none", seed, info.Notes, sealed.Notes)
			}
			p[testPack] = pack
			if diff := cmp.Diff(describeChanges(t, p, r.cs), describeChanges(t, p, cs)); diff != "" {
				t.Fatalf("seed %d: changes (-sealed +read):\n%s", seed, diff)
			}
			again, err := Seal(context.Background(), &bytes.Buffer{}, cs, p, Options{Compression: codec})
			if err != nil || again.Digest != sealed.Digest {
				t.Errorf("seed %d: sealed again: got %s, %v, want %s", seed, again.Digest, err, sealed.Digest)
			}
		}
	}
}

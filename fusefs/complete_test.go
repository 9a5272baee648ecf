package fusefs

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

var (
	seeds     = flag.Int("seeds", 40, "random programs of TestTracesAreComplete")
	firstSeed = flag.Uint64("seed", 1, "the first of them")
	evicts    = flag.Bool("evict", false, "by hand, as root: random programs during which the kernel forgets what it has in its caches")
	blindRule = flag.Int("blind", -1, "by hand: the rule that traces are made without, and must be caught")
)

// judge runs programs on trees and tells whether a trace is worth its name.
type judge struct {
	w      *world
	a      *asker
	b      recorder.Backend
	pool   map[string][]tree.Extent
	forget func(answer string) string // what of an answer is taken away
	blind  bool                       // a rule is taken away
}

func newJudge(t *testing.T, give giveMode, blind ...rule) *judge {
	t.Helper()
	w := newWorld(t)
	w.b = New(Options{blind: blind, give: give})
	return &judge{w: w, a: newAsker(t), b: w.b, pool: map[string][]tree.Extent{}, forget: func(s string) string { return s }, blind: blind != nil}
}

// file is a node with contents; equal strings lie in one place.
func (j *judge) file(data string) tree.Node {
	n := tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: 1000}, Size: int64(len(data))}
	n.Digest = tree.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data))))
	if data == "" {
		return n
	}
	if j.pool[data] == nil {
		j.pool[data] = j.w.contents(data)
	}
	n.Extents = j.pool[data]
	return n
}

// sparse is a file of zeros: pages that are stored and (-) holes.
func (j *judge) sparse(pages string) tree.Node {
	n := j.file(strings.Repeat("\x00", 4096*len(pages)))
	stored := n.Extents[0]
	n.Extents = nil
	for k, c := range pages {
		x := tree.Extent{Pack: stored.Pack, Off: stored.Off + int64(4096*k), Len: 4096}
		if c == '-' {
			x = tree.Extent{Len: 4096}
		}
		n.Extents = append(n.Extents, x)
	}
	return n
}

// outcome is what a program saw and made.
type outcome struct {
	seen []string
	res  recorder.Result
}

func (j *judge) run(t tree.Tree, ops []string) outcome {
	j.w.t.Helper()
	cs, err := tree.Diff(tree.Empty(), t, nil)
	if err != nil {
		j.w.t.Fatal(err)
	}
	root := t.Root().Attrs()
	seen, res := j.w.traced(j.b, j.a, ops, j.w.layer(append(tree.Changes{{Path: "", Node: &root}}, cs...)))
	if res.Doubt != "" {
		j.w.t.Fatalf("%q: got doubt %q, want none", ops, res.Doubt)
	}
	if missed := trace.Missing(t, res.Changes, res.Questions); missed != "" && !j.blind {
		j.w.t.Errorf("%q: nothing was asked at %q, which changed", ops, missed)
	}
	return outcome{seen, res}
}

// matches reports whether every question of o, which ran on t, has the same answer in u.
func (j *judge) matches(o outcome, t, u tree.Tree) bool {
	j.w.t.Helper()
	was, err := trace.Record([]tree.Tree{t}, o.res.Questions, trace.AnswerOptions{})
	if err != nil {
		j.w.t.Fatal(err)
	}
	is, err := trace.Record([]tree.Tree{u}, o.res.Questions, trace.AnswerOptions{})
	if err != nil {
		j.w.t.Fatal(err)
	}
	return slices.EqualFunc(was.Answers, is.Answers, func(a, b trace.Answered) bool { return j.forget(a.Answer) == j.forget(b.Answer) })
}

// fault compares running ops on u with the use of o there, and returns what differs, "" for nothing.
func (j *judge) fault(o outcome, u tree.Tree, ops []string) string {
	j.w.t.Helper()
	there := j.run(u, ops)
	for k := range ops {
		if o.seen[k] != there.seen[k] {
			return fmt.Sprintf("the program saw\n%s\ninstead of\n%s", o.seen[k], there.seen[k])
		}
	}
	want, err := u.Apply(there.res.Changes)
	if err != nil {
		j.w.t.Fatal(err)
	}
	got, err := u.Apply(o.res.Changes)
	if err != nil {
		return err.Error()
	}
	if g, w := j.flat(got), j.flat(want); g != w {
		return "the tree differs (-right +used again):\n" + cmp.Diff(strings.Split(w, "\n"), strings.Split(g, "\n"))
	}
	again, err := tree.Diff(u, got, nil) // LAWS 5: the layer is in normal form there as well
	if err != nil {
		j.w.t.Fatal(err)
	}
	paths := func(cs tree.Changes) (list []string) {
		for _, c := range cs {
			list = append(list, fmt.Sprint(c.Path, " ", c.Whiteout()))
		}
		return list
	}
	if g, w := paths(o.res.Changes), paths(again); !slices.Equal(g, w) {
		return fmt.Sprintf("the layer holds %q, of which count %q", g, w)
	}
	return ""
}

// flat is a whole tree as text, without times.
func (j *judge) flat(t tree.Tree) string {
	j.w.t.Helper()
	var b strings.Builder
	o := trace.AnswerOptions{Digest: func(n *tree.Node) (tree.Digest, error) {
		data := make([]byte, n.Size)
		k, err := j.w.packs.ReadAt(n, data, 0)
		if int64(k) == n.Size {
			err = nil
		}
		return tree.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(data))), err
	}}
	err := t.Walk(func(p string, _ *tree.Node) error {
		for _, k := range []trace.Kind{trace.Entry, trace.Content, trace.Link, trace.Xattr, trace.Names} {
			s, err := trace.Answer(t, trace.Question{Path: p, Kind: k}, o)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%q %s; ", p, s)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		j.w.t.Fatal(err)
	}
	return b.String()
}

// lawTree is where the programs of TestEveryRuleIsNeeded run.
func (j *judge) lawTree() tree.Tree {
	e := tree.Empty().Edit()
	xattr := j.file("x\n")
	xattr.Xattrs = []tree.Xattr{{Name: "user.a", Value: "1"}}
	void3 := *dirNode()
	void3.Xattrs = xattr.Xattrs
	for _, x := range []struct {
		p string
		n tree.Node
	}{
		{"d", *dirNode()},
		{"d/a", j.file("aaa\n")},
		{"d/sub", *dirNode()},
		{"d/sub/x", j.file("xxx\n")},
		{"empty", j.file("")},
		{"g", *dirNode()},
		{"g/1", j.file("linked\n")},
		{"h", *dirNode()},
		{"k", *dirNode()},
		{"k/1", j.file("linked\n")},
		{"sparse", j.sparse("-0")},
		{"sym", tree.Node{Kind: tree.Symlink, Mode: 0o777, Mtime: tree.Time{Sec: 1000}, Size: 3, Target: "d/a"}},
		{"void", *dirNode()},
		{"void2", *dirNode()},
		{"void3", void3},
		{"xattr", xattr},
	} {
		j.put(e, x.p, x.n)
	}
	j.link(e, "g/2", "g/1")
	j.link(e, "h/2", "k/1")
	return e.Tree()
}

func (j *judge) put(e *tree.Editor, p string, n tree.Node) {
	j.w.t.Helper()
	if err := e.Put(p, n); err != nil {
		j.w.t.Fatal(err)
	}
}

func (j *judge) link(e *tree.Editor, p, target string) {
	j.w.t.Helper()
	if err := e.Link(p, target); err != nil {
		j.w.t.Fatal(err)
	}
}

func (j *judge) remove(e *tree.Editor, p string) {
	j.w.t.Helper()
	if err := e.Remove(p); err != nil {
		j.w.t.Fatal(err)
	}
}

// with changes the attributes of the entry at p.
func (j *judge) with(e *tree.Editor, p string, fn func(*tree.Node)) {
	n := e.Lookup(p).Attrs()
	fn(&n)
	j.put(e, p, n)
}

// regrouped gives the two names of g other partners: what each shows stays, but for the bytes of the second.
func (j *judge) regrouped(e *tree.Editor, second string) {
	j.put(e, "g/1", j.file("linked\n"))
	j.put(e, "g/2", j.file(second))
	j.link(e, "g/3", "g/1")
	j.link(e, "g/4", "g/2")
}

// cutAt takes from answers what stands behind a mark.
func cutAt(mark string) func(string) string {
	return func(s string) string { before, _, _ := strings.Cut(s, mark); return before }
}

// noSize takes the size out of what is asked of a file.
func noSize(s string) string {
	f := strings.Fields(s)
	if len(f) > 4 && f[0] == "-" {
		f[4] = ""
	}
	return strings.Join(f, " ")
}

// lawCases are programs and changes of their parent. With every rule the change is seen; without those of blind, or where
// answers lack what forget takes away, it is not, and the result would be wrong.
var lawCases = []struct {
	name   string
	blind  []rule
	forget func(string) string
	ops    string
	edit   func(j *judge, e *tree.Editor)
}{
	{"entry", []rule{ruleEntry}, nil, "stat d/a", func(j *judge, e *tree.Editor) { j.with(e, "d/a", func(n *tree.Node) { n.Mode = 0o600 }) }},
	{"entry, given in a list", []rule{ruleGiven}, nil, "list d; stat d/a", func(j *judge, e *tree.Editor) { j.with(e, "d/a", func(n *tree.Node) { n.Mode = 0o600 }) }},
	{"entry, of an ancestor", []rule{ruleEntry}, nil, "uread d/a", func(j *judge, e *tree.Editor) { j.with(e, "d", func(n *tree.Node) { n.Mode = 0o700 }) }},
	{"entry, AT_STATX_DONT_SYNC", []rule{ruleEntry}, nil, "dontsync d/a", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("longer\n")) }},
	{"size in entry", nil, noSize, "dontsync d/a", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("longer\n")) }},
	{"size in entry, mapping behind the end", nil, noSize, "mmap empty 4096", func(j *judge, e *tree.Editor) { j.put(e, "empty", j.file("full\n")) }},
	{"inode number in entry", nil, cutAt(" ="), "lstat g/1; lstat g/2", func(j *judge, e *tree.Editor) { j.regrouped(e, "linked\n") }},
	{"stored bytes in entry", nil, cutAt(" ~"), "stat sparse", func(j *judge, e *tree.Editor) { j.put(e, "sparse", j.sparse("00")) }},
	{"where holes lie in content", nil, cutAt(" ~"), "seekdata sparse 0", func(j *judge, e *tree.Editor) { j.put(e, "sparse", j.sparse("0-")) }},
	{"absent", []rule{ruleAbsent}, nil, "stat d/n", func(j *judge, e *tree.Editor) { j.put(e, "d/n", j.file("new\n")) }},
	{"absent, mkdir", []rule{ruleAbsent}, nil, "mkdir d/n", func(j *judge, e *tree.Editor) { j.put(e, "d/n", *dirNode()) }},
	{"list", []rule{ruleList}, nil, "list d", func(j *judge, e *tree.Editor) { j.put(e, "d/n", j.file("new\n")) }},
	{"list, kinds", []rule{ruleList}, nil, "list d", func(j *judge, e *tree.Editor) { j.put(e, "d/a", *dirNode()) }},
	{"content", []rule{ruleContent}, nil, "read d/a", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"content, mapped", []rule{ruleContent}, nil, "mmap d/a 4", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"link", []rule{ruleLink}, nil, "readlink sym", func(j *judge, e *tree.Editor) { j.with(e, "sym", func(n *tree.Node) { n.Target = "d/b" }) }},
	{"xattr", []rule{ruleXattr}, nil, "getx xattr user.a", func(j *judge, e *tree.Editor) {
		j.with(e, "xattr", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"xattr, setxattr", []rule{ruleSetXattr}, nil, "setx xattr user.a 1 1", func(j *judge, e *tree.Editor) { j.with(e, "xattr", func(n *tree.Node) { n.Xattrs = nil }) }},
	{"xattr, removexattr", []rule{ruleSetXattr}, nil, "rmx d/a user.a", func(j *judge, e *tree.Editor) {
		j.with(e, "d/a", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"victim, rmdir", []rule{ruleVictim}, nil, "rmdir void", func(j *judge, e *tree.Editor) { j.put(e, "void/n", j.file("new\n")) }},
	{"victim, rename", []rule{ruleVictim}, nil, "rename void d", func(j *judge, e *tree.Editor) { j.remove(e, "d/a"); j.remove(e, "d/sub") }},
	// What a write leaves is asked at the end as well.
	{"write", []rule{ruleWrite, ruleLayer}, nil, "append d/a x", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"every name of a file", []rule{ruleLinks}, cutAt(" ="), "read g/1; read g/2", func(j *judge, e *tree.Editor) { j.regrouped(e, "others\n") }},
	{"layer, chmod", []rule{ruleLayer}, nil, "chmod d/a 0600", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"layer, xattr", []rule{ruleLayer, ruleMoved}, nil, "link d/a n", func(j *judge, e *tree.Editor) {
		j.with(e, "d/a", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"layer, target", []rule{ruleLayer}, nil, "chown sym 1", func(j *judge, e *tree.Editor) { j.with(e, "sym", func(n *tree.Node) { n.Target = "d/b" }) }},
	{"layer, another name", []rule{ruleLayer, ruleMoved}, nil, "link d/a n", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"dropped", []rule{ruleDropped}, nil, "rewrite d/a aaa", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"dropped, the time rounded", []rule{ruleDropped}, nil, "rewrite d/a aaa; fraction d/a", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"dropped, replaced", []rule{ruleDropped}, nil, "unlink d/a; creat d/a; rewrite d/a aaa", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"dropped, replaced directory", []rule{ruleDropped}, nil, "rename void2 void", func(j *judge, e *tree.Editor) {
		j.with(e, "void", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"dropped on another parent", []rule{ruleDropped}, nil, "rename void2 void3", func(j *judge, e *tree.Editor) { j.with(e, "void3", func(n *tree.Node) { n.Xattrs = nil }) }},
	{"ancestor", []rule{ruleAncestor}, nil, "chmod d/a 0600", func(j *judge, e *tree.Editor) {
		j.with(e, "d", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"ancestor, of another name", []rule{ruleAncestor}, nil, "rename g/2 d/n; append d/n x", func(j *judge, e *tree.Editor) {
		j.with(e, "g", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"ancestor, of another name of what moved", []rule{ruleAncestor}, nil, "rename k n", func(j *judge, e *tree.Editor) {
		j.with(e, "h", func(n *tree.Node) { n.Xattrs = []tree.Xattr{{Name: "user.a", Value: "2"}} })
	}},
	{"moved, bytes", []rule{ruleMoved}, nil, "rename d/a n", func(j *judge, e *tree.Editor) { j.put(e, "d/a", j.file("bbb\n")) }},
	{"moved, below", []rule{ruleMoved}, nil, "rename d n", func(j *judge, e *tree.Editor) { j.put(e, "d/sub/x", j.file("yyy\n")) }},
	{"moved, new below", []rule{ruleMoved}, nil, "rename d n", func(j *judge, e *tree.Editor) { j.put(e, "d/sub/y", j.file("yyy\n")) }},
	{"names", []rule{ruleNames}, nil, "chmod g/1 0600", func(j *judge, e *tree.Editor) { j.link(e, "g/z", "g/1"); j.remove(e, "g/2") }},
}

// TestEveryRuleIsNeeded takes each rule away in turn: LAWS 2, 3, 4.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	tried := map[rule]bool{}
	for _, c := range lawCases {
		for _, r := range c.blind {
			tried[r] = true
		}
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			ops := strings.Split(c.ops, "; ")
			give := giveToWalks
			if slices.Contains(c.blind, ruleGiven) {
				give = giveAlways
			}
			j := newJudge(t, give)
			from := j.lawTree()
			e := from.Edit()
			c.edit(j, e)
			to := e.Tree()
			if j.matches(j.run(from, ops), from, to) {
				t.Errorf("with every rule: the change is not seen")
			}
			j.b, j.blind = New(Options{blind: c.blind, give: give}), true
			defer func() {
				if err := j.b.Close(); err != nil {
					t.Error(err)
				}
			}()
			if c.forget != nil {
				j.forget = c.forget
			}
			o := j.run(from, ops)
			switch {
			case !j.matches(o, from, to):
				t.Errorf("without %s: the change is seen all the same: %s", c.name, asked(o.res.Questions))
			case j.fault(o, to, ops) == "":
				t.Errorf("without %s: the result is right all the same", c.name)
			}
		})
	}
	for r := range rules {
		if !tried[r] {
			t.Errorf("rule %d is never taken away", r)
		}
	}
}

// TestTracesAreComplete: random programs, random changes of what they ran on; where every question has the same answer the result must
// be the same. -seeds N for more of them, -blind R to see what a rule is worth to random programs.
func TestTracesAreComplete(t *testing.T) {
	t.Parallel()
	var blind []rule
	if *blindRule >= 0 {
		blind = []rule{rule(*blindRule)}
	}
	judges := []*judge{newJudge(t, worldGive(), blind...), newJudge(t, giveAlways, blind...)}
	reused, caught := 0, 0
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds); seed++ {
		j := judges[seed%2]
		g := generator{j: j, r: rand.New(rand.NewPCG(seed, 7))}
		from := g.tree()
		ops := g.program()
		o := j.run(from, ops)
		for range 16 {
			to := g.edited(from)
			if !j.matches(o, from, to) {
				continue
			}
			reused++
			why := j.fault(o, to, ops)
			switch {
			case why == "":
			case blind != nil:
				caught++
			default:
				t.Fatalf("seed %d: %s\nprogram %q\nasked %s\nsaw %s\nlayer\n%sfrom (-) to (+)\n%s", seed, why, ops, asked(o.res.Questions), strings.Join(o.seen, "\n"),
					tree.Format(o.res.Changes), cmp.Diff(strings.Split(j.flat(from), "\n"), strings.Split(j.flat(to), "\n")))
			}
		}
	}
	t.Logf("%d results used again, %d wrong ones", reused, caught)
	if reused < *seeds/2 {
		t.Errorf("results used again: got %d of %d programs, want more: the test says nothing", reused, *seeds)
	}
	if blind != nil && caught == 0 {
		t.Errorf("without rule %d: no wrong result", *blindRule)
	}
}

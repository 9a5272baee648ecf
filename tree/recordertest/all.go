package recordertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// law is one operation and what must come of it.
type law struct {
	name  string
	stubs []recorder.Stub
	// do is what the command does, with the root as its root and directory.
	do func()
	// daemon runs beside do, which starts when daemon calls ready, and lives
	// until it is killed when do has ended.
	daemon func(ready func())
	// want is tree.Format of the changes: "T" stands for the parent's time, "now"
	// for any time since the step began.
	want string
	// contents are the bytes of changed files.
	contents map[string]string
	// dense bounds the bytes of files that may lie in packs: the rest are holes.
	dense map[string]int64
	// notes are words that the notes must hold; without any there must be none.
	notes []string
	// fails is what do must fail with, under an Exception.
	fails string
}

// All runs every law against the backends that newBackend makes, one for each law. A
// backend for which there are exceptions must do what these say and nothing else.
func All(t *testing.T, newBackend func(t *testing.T) recorder.Backend, exceptions ...Exception) {
	for _, l := range laws() {
		l.except(exceptions)
		t.Run(strings.ReplaceAll(l.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			backend := open(t, newBackend)
			parent, layers := b.parent()
			start := time.Now()
			res := b.run(backend, b.spec(layers, l.stubs), l.fails, "law", l.name)
			if diff := cmp.Diff(l.want, text(res.Changes, start)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			b.checkResult(&l, &res)
			b.roundTrip(backend, parent, layers, l.stubs, res.Changes)
		})
	}
	t.Run("view_of_the_parent", func(t *testing.T) {
		b := newBench(t)
		parent, layers := b.parent()
		b.roundTrip(open(t, newBackend), parent, layers, nil, nil)
	})
	t.Run("name_of_a_whiteout", func(t *testing.T) { testWhiteoutName(t, newBackend) })
	t.Run("abort", func(t *testing.T) { testAbort(t, newBackend) })
	t.Run("two_steps_at_once", func(t *testing.T) { testTwoSteps(t, newBackend) })
	t.Run("stub_in_the_way", func(t *testing.T) { testStubInTheWay(t, newBackend) })
}

func open(t *testing.T, newBackend func(t *testing.T) recorder.Backend) recorder.Backend {
	t.Helper()
	backend := newBackend(t)
	t.Cleanup(func() {
		if err := backend.Close(); err != nil {
			t.Errorf("close backend: %v", err)
		}
	})
	return backend
}

// run does one step: a process of its own does what args say, and fails with the words
// FAILS, or not at all.
func (b *bench) run(backend recorder.Backend, spec recorder.Spec, fails string, args ...string) recorder.Result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), testenv.Patience)
	defer cancel()
	root, err := backend.Mount(ctx, spec)
	if err != nil {
		b.t.Fatalf("mount: %v", err)
	}
	out, err := command(ctx, root, args...)
	if (err != nil) != (fails != "") || !strings.Contains(out, fails) {
		b.t.Errorf("command %q: got %v, want one with %q\n%s", args, err, fails, out)
	}
	res, err := backend.Finish(ctx, spec.ID)
	if err != nil {
		b.t.Fatalf("finish: %v", err)
	}
	return res
}

// checkResult checks all of a result but the text of its changes.
func (b *bench) checkResult(l *law, res *recorder.Result) {
	b.t.Helper()
	got := map[string]*tree.Node{}
	for _, c := range res.Changes {
		if c.Node == nil {
			continue
		}
		got[c.Path] = c.Node
		if c.Node.Mtime.Nsec != 0 {
			b.t.Errorf("time of %q: got %d nanoseconds, want whole seconds (LAWS 13)", c.Path, c.Node.Mtime.Nsec)
		}
	}
	for p, want := range l.contents {
		if got[p] == nil {
			b.t.Errorf("contents of %q: no such change", p)
			continue
		}
		if s := b.read(got[p]); s != want {
			b.t.Errorf("contents of %q: got %s, want %s", p, short(s), short(want))
		}
	}
	for p, most := range l.dense {
		if n := got[p]; n == nil || dense(n) > most {
			b.t.Errorf("bytes of %q in packs: want at most %d, got %+v (LAWS 16)", p, most, n)
		}
	}
	notes := strings.Join(res.Notes, "\n")
	for _, want := range l.notes {
		if !strings.Contains(notes, want) {
			b.t.Errorf("notes: got %q, want one with %q", notes, want)
		}
	}
	if len(l.notes) == 0 && notes != "" {
		b.t.Errorf("notes: got %q, want none", notes)
	}
}

func dense(n *tree.Node) (sum int64) {
	for _, x := range n.Extents {
		if x.Pack != "" {
			sum += x.Len
		}
	}
	return sum
}

// read returns the bytes of a node.
func (b *bench) read(n *tree.Node) string {
	b.t.Helper()
	buf := make([]byte, n.Size)
	if n.Size > 0 {
		if k, err := b.packs.ReadAt(n, buf, 0); int64(k) != n.Size {
			b.t.Fatalf("read contents: got %d bytes, %v, want %d", k, err, n.Size)
		}
	}
	return string(buf)
}

func short(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q... (%d bytes)", s[:80], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// roundTrip stacks the changes on the parent, as the next step does, and checks
// that a command sees that tree and that looking at it changes nothing.
func (b *bench) roundTrip(backend recorder.Backend, parent tree.Tree, layers []string, stubs []recorder.Stub, cs tree.Changes) {
	b.t.Helper()
	after, err := parent.Apply(cs)
	if err != nil {
		b.t.Fatalf("apply changes: %v", err)
	}
	again, err := tree.Diff(parent, after, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if diff := cmp.Diff(tree.Format(cs), tree.Format(again)); diff != "" {
		b.t.Errorf("changes are not in normal form (-got +want):\n%s", diff)
	}
	decoded, err := tree.Decode(tree.Encode(cs))
	if err != nil {
		b.t.Fatalf("decode changes: %v", err)
	}
	reread, err := parent.Apply(decoded)
	if err != nil {
		b.t.Fatal(err)
	}
	whole := b.whole(after)
	if diff := cmp.Diff(tree.Format(whole), tree.Format(b.whole(reread))); diff != "" {
		b.t.Errorf("tree from the encoded layer differs (-memory +disk):\n%s", diff)
	}
	expect := b.layer("expect", whole)
	res := b.run(backend, b.spec(append(slices.Clip(layers), b.layer("step", cs)), stubs), "", "look", expect, b.packDir)
	if len(res.Changes) > 0 || res.Pack != "" || len(res.Notes) > 0 {
		b.t.Errorf("second step that only looks: got %s, pack %q, notes %q, want nothing", tree.Format(res.Changes), res.Pack, res.Notes)
	}
}

func (b *bench) whole(t tree.Tree) tree.Changes {
	b.t.Helper()
	cs, err := tree.Diff(tree.Empty(), t, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return cs
}

// text is tree.Format with times made comparable.
func text(cs tree.Changes, start time.Time) string {
	const nowMark = 4102444800
	out := make(tree.Changes, len(cs))
	copies := map[*tree.Node]*tree.Node{}
	for i, c := range cs {
		if n := c.Node; n != nil {
			if copies[n] == nil {
				k := n.Attrs()
				// The coarse clock may be behind the one that start was read from.
				if k.Mtime.Sec >= start.Add(-time.Minute).Unix() && k.Mtime.Sec <= time.Now().Unix() {
					k.Mtime.Sec = nowMark
				}
				copies[n] = &k
			}
			c.Node = copies[n]
		}
		out[i] = c
	}
	s := strings.ReplaceAll(tree.Format(out), fmt.Sprint(" ", nowMark), " now")
	return strings.ReplaceAll(s, fmt.Sprint(" ", epoch), " T")
}

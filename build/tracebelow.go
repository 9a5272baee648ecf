package build

import (
	"slices"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// changedBelow returns what is below a hit now and was not when its step ran, or was
// and is not: what the step did not look at, for the report. It compares the layers
// that are not the same, by their indexes.
func (t *tracer) changedBelow(hit *traceHit) (diffs []trace.Difference, total int) {
	for _, l := range t.below.layers() {
		t.b.digests.learn(l)
	}
	now := chainOf(t.below)
	was := t.b.merged(minus(hit.Parents, now))
	is := t.b.merged(minus(now, hit.Parents))
	var paths []string
	for _, m := range []map[string]*tree.Node{was, is} {
		for p := range m {
			paths = append(paths, p)
		}
	}
	slices.SortFunc(paths, tree.Compare)
	for _, p := range slices.Compact(paths) {
		a, b := was[p], t.roots[0].Lookup(p)
		if b != nil && b.Kind == tree.File {
			b = t.b.withDigest(b)
		}
		if a != nil && b != nil && (sameFile(a, b) || a.Kind == tree.Dir && b.Kind == tree.Dir) {
			continue
		}
		total++
		q := trace.Question{Path: p, Kind: trace.Entry}
		if a != nil && b != nil && sameButTime(a, b) {
			q.Kind = trace.Content
		}
		if len(diffs) < maxDifferences {
			diffs = append(diffs, trace.Difference{Question: q, Was: inWords(a, q), Is: inWords(b, q)})
		}
	}
	return diffs, total
}

// withDigest gives a file the digest that sealing found out.
func (b *builder) withDigest(n *tree.Node) *tree.Node {
	d, ok := b.digests.find(n)
	if n.Digest != "" || !ok {
		return n
	}
	c := n.Attrs()
	c.Digest = d
	return &c
}

// inWords is an answer for a report.
func inWords(n *tree.Node, q trace.Question) string {
	text, err := trace.AnswerOf(n, q, trace.AnswerOptions{})
	if err != nil {
		return "not known"
	}
	return text
}

// minus returns those of list that are not in other.
func minus(list, other []tree.Digest) []tree.Digest {
	return slices.DeleteFunc(slices.Clone(list), func(d tree.Digest) bool { return slices.Contains(other, d) })
}

// merged are the entries of layers, of several with one path the highest's. A layer
// whose index is not here has none.
func (b *builder) merged(layers []tree.Digest) map[string]*tree.Node {
	out := map[string]*tree.Node{}
	for _, d := range layers {
		cs, err := b.store.Layer(d)
		if err != nil {
			continue
		}
		for i := range cs {
			if cs[i].Node != nil {
				out[cs[i].Path] = cs[i].Node
			} else {
				delete(out, cs[i].Path)
			}
		}
	}
	return out
}

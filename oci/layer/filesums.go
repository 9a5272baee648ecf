package layer

import (
	"slices"
	"sync"

	"github.com/fbuild/fbuild/tree"
)

// fileSums hashes the files of a tar that is being written, on the goroutine that
// calls take, as the bytes come by. Those with a digest are passed over.
type fileSums struct {
	sum contentSum
	at  int64 // of the tar, how far take has come
	of  map[*tree.Node]tree.Digest

	cur   *pendingFile
	inner int64 // of cur, how far take has come: offset in the file

	mu   sync.Mutex
	next []pendingFile // in the order of the tar
}

// pendingFile is a file whose bytes have not all come by.
type pendingFile struct {
	at    int64 // where its data start in the tar
	node  *tree.Node
	spans []span // of the file, one behind the other in the tar
	done  func(tree.Digest)
}

func newFileSums() *fileSums { return &fileSums{of: map[*tree.Node]tree.Digest{}} }

// expect says that the data of n start at offset at. It comes before they do.
// done, if not nil, is called with the digest.
func (f *fileSums) expect(at int64, n *tree.Node, spans []span, done func(tree.Digest)) {
	if n.Digest != "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = append(f.next, pendingFile{at, n, slices.Clone(spans), done})
}

// take gets the tar, run by run.
func (f *fileSums) take(b []byte) error {
	for {
		for f.cur != nil {
			if len(f.cur.spans) == 0 {
				f.finish()
				break
			}
			if len(b) == 0 {
				return nil
			}
			b = b[f.data(b):]
		}
		if !f.start(b) {
			f.at += int64(len(b))
			return nil
		}
		skip := f.cur.at - f.at
		b, f.at = b[skip:], f.at+skip
	}
}

// start makes the next file the current one if its data begin inside of b.
func (f *fileSums) start(b []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.next) > 0 && f.next[0].at <= f.at+int64(len(b)) {
		p := f.next[0]
		f.next = f.next[1:]
		holes := p.node.Size
		for _, s := range p.spans {
			holes -= s.n
		}
		if f.sum.begin(holes) {
			f.cur, f.inner = &p, 0
			return true
		}
	}
	return false
}

// data hashes what b holds of the current span and returns how much that is.
func (f *fileSums) data(b []byte) int {
	s := &f.cur.spans[0]
	f.sum.zeros(s.off - f.inner)
	n := int(min(s.n, int64(len(b))))
	f.sum.write(b[:n])
	f.at += int64(n)
	f.inner = s.off + int64(n)
	*s = span{f.inner, s.n - int64(n)}
	if s.n == 0 {
		f.cur.spans = f.cur.spans[1:]
	}
	return n
}

func (f *fileSums) finish() {
	f.sum.zeros(f.cur.node.Size - f.inner)
	d := f.sum.end()
	f.of[f.cur.node] = d
	if f.cur.done != nil {
		f.cur.done(d)
	}
	f.cur = nil
}

// changes returns cs with the digests, once all of the tar has come by.
func (f *fileSums) changes(cs tree.Changes) tree.Changes {
	if len(f.of) == 0 {
		return cs
	}
	copies := make(map[*tree.Node]*tree.Node, len(f.of))
	out := make(tree.Changes, len(cs))
	for i, c := range cs {
		if d, ok := f.of[c.Node]; ok {
			if copies[c.Node] == nil {
				n := c.Node.Attrs()
				n.Digest = d
				copies[c.Node] = &n
			}
			c.Node = copies[c.Node]
		}
		out[i] = c
	}
	return out
}

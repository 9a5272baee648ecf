package build

import (
	"encoding/binary"
	"sync"

	"github.com/fbuild/fbuild/tree"
)

// digests remembers the digests of contents by where they lie, so that a build reads
// no content twice. The zero value is empty.
type digests struct {
	mu      sync.Mutex
	known   map[string]tree.Digest
	learned map[*fsLayer]bool
}

// place names the bytes of a file by its extents.
func contentPlace(n *tree.Node) string {
	b := make([]byte, 0, 64)
	for i := range n.Extents {
		x := &n.Extents[i]
		b = binary.AppendUvarint(b, uint64(len(x.Pack)))
		b = append(b, x.Pack...)
		b = binary.AppendUvarint(b, uint64(x.Off))
		b = binary.AppendUvarint(b, uint64(x.Len))
	}
	return string(b)
}

func (d *digests) find(n *tree.Node) (tree.Digest, bool) {
	if len(n.Extents) == 0 {
		return "", false
	}
	place := contentPlace(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	sum, ok := d.known[place]
	return sum, ok
}

func (d *digests) add(n *tree.Node, sum tree.Digest) {
	if len(n.Extents) == 0 || sum == "" {
		return
	}
	place := contentPlace(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = map[string]tree.Digest{}
	}
	d.known[place] = sum
}

// learn takes over what the sealing of a layer found out.
func (d *digests) learn(l *fsLayer) {
	select {
	case <-l.done:
	default:
		return
	}
	d.mu.Lock()
	again := d.learned[l]
	if d.learned == nil {
		d.learned = map[*fsLayer]bool{}
	}
	d.learned[l] = true
	d.mu.Unlock()
	if again {
		return
	}
	for i := range l.sealed {
		if n := l.sealed[i].Node; n != nil {
			d.add(n, n.Digest)
		}
	}
}

// digest returns the digest of a file's bytes, reading them where nobody knows it.
func (b *builder) digest(n *tree.Node) (tree.Digest, error) {
	if n.Digest != "" {
		return n.Digest, nil
	}
	if d, ok := b.digests.find(n); ok {
		return d, nil
	}
	if n.Size > 0 && len(n.Extents) == 0 {
		return "", errElsewhereBytes
	}
	d, err := digestFile(n, b.store.Packs())
	if err == nil {
		b.digests.add(n, d)
	}
	return d, err
}

package tree_test

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// lying is an index of size bytes, most of them zeros: a few kilobytes where it is
// compressed.
func lying(size int, head ...uint64) []byte {
	b := []byte("fbtree1\n")
	for _, v := range head {
		b = binary.AppendUvarint(b, v)
	}
	b = append(b, make([]byte, size)...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// LAWS 10: an index that lies about its lengths costs no more memory than a multiple of
// its size.
func TestDecodeTakesNoMoreThanItSays(t *testing.T) {
	const size = 8 << 20
	for name, data := range map[string][]byte{
		"changes": lying(size, 0, size),
		// One change, a file: path "a", flags, kind, mode, ids, time, size, no digest.
		"extents": lying(size, 0, 1, 0, 1, 'a', 1, uint64(tree.File), 0, 0, 0, 0, 0, 0, 0, size),
		"xattrs":  lying(size, 0, 1, 0, 1, 'a', 1, uint64(tree.Fifo), 0, 0, 0, 0, 0, 0, size),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := tree.Decode(data); err == nil {
			t.Errorf("%s: decoded", name)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 10*size {
			t.Errorf("%s: %d MiB for an index of %d", name, got>>20, size>>20)
		}
	}
}

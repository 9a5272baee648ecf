package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/dgraph-io/badger/v4"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// On-disk format of an entry of the index: the count of extents, then for each
// the pack (length-prefixed; "" for a hole), offset and length as varints; then
// the first 8 bytes of the SHA-256 of digest and entry, so that a damaged index
// is noticed before it says where wrong bytes are.
const entrySum = 8

// maxEntry bounds an entry; a content in more pieces is stored again instead.
const maxEntry = 64 << 10

func contentKey(d tree.Digest) []byte {
	raw, _ := hex.DecodeString(d.Hex()) // checkDigest came first
	return append([]byte{'c'}, raw...)
}

func encodeEntry(d tree.Digest, ex []tree.Extent) []byte {
	b := binary.AppendUvarint(nil, uint64(len(ex)))
	for _, x := range ex {
		b = appendString(b, string(x.Pack))
		b = binary.AppendUvarint(b, uint64(x.Off))
		b = binary.AppendUvarint(b, uint64(x.Len))
	}
	sum := sha256.Sum256(append(contentKey(d), b...))
	return append(b, sum[:entrySum]...)
}

func decodeEntry(d tree.Digest, b []byte) ([]tree.Extent, error) {
	end := len(b) - entrySum
	if end < 0 {
		return nil, errCorrupt
	}
	if sum := sha256.Sum256(append(contentKey(d), b[:end]...)); !bytes.Equal(sum[:entrySum], b[end:]) {
		return nil, errCorrupt
	}
	r := fieldReader{b: b[:end]}
	n := r.uint()
	if n > uint64(len(r.b)) {
		return nil, errCorrupt
	}
	out := make([]tree.Extent, n)
	for i := range out {
		x := tree.Extent{Pack: tree.PackID(r.bytes()), Off: int64(r.uint()), Len: int64(r.uint())}
		if r.bad || x.Off < 0 || x.Len <= 0 || x.Pack != "" && !pack.Valid(x.Pack) {
			return nil, errCorrupt
		}
		out[i] = x
	}
	return out, nil
}

// rebuild reads every layer index of the store into a new index. It is done when
// the mark is written; until then the next process starts it again.
func (x *contentIndex) rebuild(db *badger.DB) {
	if _, err := readValue(db, []byte(builtKey)); err == nil {
		return
	}
	for name := range x.s.recordFiles(kindLayer) {
		if x.stopped() {
			return
		}
		if cs, err := readLayer(name); err == nil {
			x.write(db, layerEntries(cs))
		}
	}
	if x.stopped() {
		return
	}
	err := db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(builtKey), []byte{'1'}) })
	if err != nil {
		x.fail(true)
	}
}

func (x *contentIndex) stopped() bool {
	select {
	case <-x.stop:
		return true
	default:
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.off
}

// layerEntries are the contents of a layer whose digests stand in its index.
func layerEntries(cs tree.Changes) map[tree.Digest][]byte {
	out := map[tree.Digest][]byte{}
	for i := range cs {
		n := cs[i].Node
		if n == nil || checkDigest(n.Digest) != nil || len(n.Extents) == 0 {
			continue
		}
		if data := encodeEntry(n.Digest, n.Extents); len(data) <= maxEntry {
			out[n.Digest] = data
		}
	}
	return out
}

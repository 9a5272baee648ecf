package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

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

// withSum adds to an entry what withoutSum checks.
func withSum(key string, b []byte) []byte {
	sum := sha256.Sum256(append([]byte(key), b...))
	return append(b, sum[:entrySum]...)
}

// withoutSum returns what withSum was given, if this is what it made of it.
func withoutSum(key string, b []byte) ([]byte, error) {
	end := len(b) - entrySum
	if end < 0 {
		return nil, errCorrupt
	}
	if sum := sha256.Sum256(append([]byte(key), b[:end]...)); !bytes.Equal(sum[:entrySum], b[end:]) {
		return nil, errCorrupt
	}
	return b[:end], nil
}

func contentKey(d tree.Digest) string {
	raw, _ := hex.DecodeString(d.Hex()) // checkDigest came first
	return "c" + string(raw)
}

func encodeEntry(d tree.Digest, ex []tree.Extent) []byte {
	b := binary.AppendUvarint(nil, uint64(len(ex)))
	for _, x := range ex {
		b = appendString(b, string(x.Pack))
		b = binary.AppendUvarint(b, uint64(x.Off))
		b = binary.AppendUvarint(b, uint64(x.Len))
	}
	return withSum(contentKey(d), b)
}

func decodeEntry(d tree.Digest, b []byte) ([]tree.Extent, error) {
	b, err := withoutSum(contentKey(d), b)
	if err != nil {
		return nil, err
	}
	r := fieldReader{b: b}
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

// layerEntries are the contents of a layer whose digests stand in its index.
func layerEntries(cs tree.Changes) map[string][]byte {
	out := map[string][]byte{}
	for i := range cs {
		n := cs[i].Node
		if n == nil || checkDigest(n.Digest) != nil || len(n.Extents) == 0 {
			continue
		}
		if data := encodeEntry(n.Digest, n.Extents); len(data) <= maxEntry {
			out[contentKey(n.Digest)] = data
		}
	}
	return out
}

package layer

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"github.com/fbuild/fbuild/tree"
)

// contentSum makes the digests of files, one after the other, out of bytes that
// pass anyway.
type contentSum struct {
	h    hash.Hash
	done int64 // zeros of holes that were hashed so far
}

// begin starts a file with that many bytes in holes. It reports false where they
// are too many to be hashed.
func (s *contentSum) begin(holes int64) bool {
	if holes > maxHashedZeros-s.done {
		return false
	}
	s.done += holes
	if s.h == nil {
		s.h = sha256.New()
	}
	s.h.Reset()
	return true
}

func (s *contentSum) write(p []byte) { s.h.Write(p) }

func (s *contentSum) zeros(n int64) {
	for ; n > 0; n -= min(n, int64(len(zeros))) {
		s.h.Write(zeros[:min(n, int64(len(zeros)))])
	}
}

func (s *contentSum) end() tree.Digest {
	var raw [sha256.Size]byte
	return digestOf(s.h.Sum(raw[:0]))
}

// digestOf is the digest with the given bytes.
func digestOf(raw []byte) tree.Digest {
	const scheme = "sha256:"
	var text [len(scheme) + 2*sha256.Size]byte
	copy(text[:], scheme)
	hex.Encode(text[len(scheme):], raw)
	return tree.Digest(text[:])
}

package layer

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"github.com/fbuild/fbuild/tree"
)

// A frame is a run of compressed bytes that means something on its own: raw
// DEFLATE closed by a full flush, or a zstd frame. The tar is cut into runs that
// each become one frame (cutter); what comes out of a run depends on nothing but
// its bytes and what stands in its FrameKey, so frames can be made on all cores,
// and one that an earlier layer holds is copied.

// framingVersion is counted up when the same run would give other bytes for a
// reason that no other part of a FrameKey tells.
const framingVersion = 1

// FrameKey names a frame: a SHA-256 of framing version, codec, codec version,
// level, whether the run is a part of a file or of what lies between large files,
// the digest of the file or run, and the number of the part.
type FrameKey [sha256.Size]byte

// Frame is a frame of a blob.
type Frame struct {
	Key  FrameKey
	Off  int64  // in the blob
	Len  int64  // bytes of the blob
	Size int64  // uncompressed bytes
	CRC  uint32 // CRC-32 of them
	Sum  uint64 // frameSum of the bytes in the blob
	// Ahead says that no layer has it yet: it was made for this one (Ahead.File).
	Ahead bool
}

// Frames are the frames of earlier layers.
type Frames interface {
	// Frame returns the frame of a key and its bytes, appended to buf. Not to have
	// it and not to be sure are the same. Whether the bytes are those that Sum
	// tells is the caller's to check. Any number of goroutines may call.
	Frame(key FrameKey, buf []byte) (Frame, []byte, bool)
}

// frameSum is what tells that the bytes of a frame are the ones that were
// written: two CRCs of different polynomials.
func frameSum(b []byte) uint64 {
	return uint64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))<<32 | uint64(crc32.ChecksumIEEE(b))
}

// Runs that a key tells apart: the same bytes are cut in other places.
const (
	runFile  = "file"  // the block of a file
	runGroup = "group" // what lies between large files
)

// frameKey makes the key of a run.
func (c *frameCodec) frameKey(kind string, of tree.Digest, block int64) FrameKey {
	var b []byte
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	str("fbuild frame")
	b = binary.AppendUvarint(b, framingVersion)
	str(c.name)
	str(c.version)
	b = binary.AppendVarint(b, int64(c.level))
	b = binary.AppendVarint(b, c.block)
	str(kind)
	str(string(of))
	b = binary.AppendVarint(b, block)
	return sha256.Sum256(b)
}

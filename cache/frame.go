package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/fbuild/fbuild/tree"
)

// FrameKey names a piece of compressed bytes by what it was made of; package
// oci/layer makes it.
type FrameKey [32]byte

// Frame is where such a piece lies, and what its maker says of it.
type Frame struct {
	Blob     tree.Digest
	Off, Len int64  // in the blob
	Size     int64  // uncompressed
	CRC      uint32 // of the uncompressed bytes
	Sum      uint64 // of the compressed ones
}

// On-disk format of a frame in the index: the blob's digest, offset, length and
// size as varints, CRC and sum in little endian; then, as with contents, the first
// 8 bytes of the SHA-256 of key and entry.

func (k FrameKey) key() string { return "f" + string(k[:]) }

func encodeFrame(k FrameKey, f Frame) []byte {
	b, _ := hex.DecodeString(f.Blob.Hex()) // checkDigest came first
	b = binary.AppendUvarint(b, uint64(f.Off))
	b = binary.AppendUvarint(b, uint64(f.Len))
	b = binary.AppendUvarint(b, uint64(f.Size))
	b = binary.LittleEndian.AppendUint32(b, f.CRC)
	b = binary.LittleEndian.AppendUint64(b, f.Sum)
	return withSum(k.key(), b)
}

func decodeFrame(k FrameKey, b []byte) (Frame, error) {
	b, err := withoutSum(k.key(), b)
	if err != nil {
		return Frame{}, err
	}
	if len(b) < sha256.Size {
		return Frame{}, errCorrupt
	}
	r := fieldReader{b: b[sha256.Size:]}
	f := Frame{
		Blob: tree.Digest("sha256:" + hex.EncodeToString(b[:sha256.Size])),
		Off:  int64(r.uint()), Len: int64(r.uint()), Size: int64(r.uint()),
	}
	if r.bad || len(r.b) != 12 || f.Off < 0 || f.Len < 0 || f.Size < 0 {
		return Frame{}, errCorrupt
	}
	f.CRC, f.Sum = binary.LittleEndian.Uint32(r.b), binary.LittleEndian.Uint64(r.b[4:])
	return f, nil
}

// FindFrame returns where the frame of a key was put last. The blob may be gone,
// or hold something else. Not to have an index and not to find anything are the
// same.
func (s *Store) FindFrame(k FrameKey) (Frame, bool) {
	data, ok := s.index.find(k.key())
	if !ok {
		return Frame{}, false
	}
	f, err := decodeFrame(k, data)
	if err != nil {
		s.index.fail(true)
		return Frame{}, false
	}
	return f, true
}

// AddFrames tells the index where frames are. It is only a help: when the index is
// lost, they are not found again.
func (s *Store) AddFrames(frames map[FrameKey]Frame) {
	for k, f := range frames {
		if checkDigest(f.Blob) == nil {
			s.index.set(k.key(), encodeFrame(k, f))
		}
	}
}

// DropFrame takes a frame that is not where it was said to be out of the index.
func (s *Store) DropFrame(k FrameKey) { s.index.set(k.key(), nil) }

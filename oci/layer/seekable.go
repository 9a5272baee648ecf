package layer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/fbuild/fbuild/tree"
)

// Annotations of the descriptor of a seekable layer.
const (
	stargzTOCDigest        = "containerd.io/snapshot/stargz/toc.digest"
	stargzUncompressedSize = "io.containers.estargz.uncompressed-size"
	chunkedChecksum        = "io.github.containers.zstd-chunked.manifest-checksum"
	chunkedPosition        = "io.github.containers.zstd-chunked.manifest-position"
	chunkedSplit           = "io.github.containers.zstd-chunked.tarsplit-position"
	// Of podman before 4.6, which knows no tar-split.
	oldChunkedChecksum = "io.containers.zstd-chunked.manifest-checksum"
	oldChunkedPosition = "io.containers.zstd-chunked.manifest-position"
)

// newStargzCodec gives eStargz: a gzip member for each frame. The frames themselves
// are those of gzip.
func newStargzCodec(level int) (*frameCodec, error) {
	c, err := newGzipCodec(level)
	if err != nil {
		return nil, err
	}
	head, tail := c.head, c.tail
	c.head, c.tail = nil, func(uint32, int64) []byte { return nil }
	c.large = 1
	c.wrap = func(crc uint32, size int64) (before, after []byte) { return head, tail(crc, size) }
	c.finish = finishStargz
	return c, nil
}

// newChunkedCodec gives zstd:chunked.
func newChunkedCodec(level int) (*frameCodec, error) {
	c, err := newZstdCodec(level)
	if err != nil {
		return nil, err
	}
	c.large, c.block, c.least = 1, 1<<20, 256<<10
	c.finish, c.zstd = finishChunked, true
	return c, nil
}

// finishStargz writes the table as the last file of the tar, in a member of its
// own, and the footer that says where it starts.
func finishStargz(s *sealing, enc encoder) error {
	table, err := json.Marshal(struct {
		Version int         `json:"version"`
		Entries []*tocEntry `json:"entries"`
	}{1, s.toc.list()})
	if err != nil {
		return fmt.Errorf("write table of contents: %w", err)
	}
	h := header{name: "stargz.index.json", typ: typeFile, size: int64(len(table))}
	b, err := h.encode()
	if err != nil {
		return err
	}
	b = append(b, table...)
	b = append(b, zeroBlock[:-len(table)&(blockSize-1)]...)
	b = append(b, make([]byte, 2*blockSize)...)
	s.tarSum.Write(b)
	s.tarSize += int64(len(b))
	frame, err := enc.frame(nil, b)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	at := s.out.size
	before, after := s.codec.wrap(crc32.ChecksumIEEE(b), int64(len(b)))
	for _, p := range [][]byte{before, frame, after, stargzFooter(at)} {
		if _, err := s.out.Write(p); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(table)
	s.annotations = map[string]string{
		stargzTOCDigest:        string(digestOf(sum[:])),
		stargzUncompressedSize: strconv.FormatInt(s.tarSize, 10),
	}
	return nil
}

// stargzFooter is an empty gzip member with an extra field that holds the offset of
// the table.
func stargzFooter(at int64) []byte {
	const field = byte(16 + len("STARGZ"))
	b := []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 4 + field, 0, 'S', 'G', field, 0}
	b = fmt.Appendf(b, "%016xSTARGZ", at)
	b = append(b, 1, 0, 0, 0xff, 0xff) // an empty last block, stored
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// finishChunked writes the table, the metadata of the tar and a footer in frames
// that readers of zstd skip.
func finishChunked(s *sealing, enc encoder) error {
	split, err := s.toc.split.done()
	if err != nil {
		return err
	}
	packedSplit, err := enc.frame(nil, split)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	sum := sha256.Sum256(packedSplit)
	table, err := json.Marshal(struct {
		Version        int         `json:"version"`
		Entries        []*tocEntry `json:"entries"`
		TarSplitDigest tree.Digest `json:"tarSplitDigest"`
	}{1, s.toc.list(), digestOf(sum[:])})
	if err != nil {
		return fmt.Errorf("write table of contents: %w", err)
	}
	packed, err := enc.frame(nil, table)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	const skipHead = 8
	at := s.out.size + skipHead
	splitAt := at + int64(len(packed)) + skipHead
	var footer []byte
	for _, v := range []int64{at, int64(len(packed)), int64(len(table)), 1, splitAt, int64(len(packedSplit)), int64(len(split))} {
		footer = binary.LittleEndian.AppendUint64(footer, uint64(v))
	}
	footer = append(footer, "GNUlInUx"...)
	for _, b := range [][]byte{packed, packedSplit, footer} {
		head := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(b)))
		if _, err := s.out.Write(append(head, b...)); err != nil {
			return err
		}
	}
	sum = sha256.Sum256(packed)
	checksum, position := string(digestOf(sum[:])), fmt.Sprintf("%d:%d:%d:1", at, len(packed), len(table))
	s.annotations = map[string]string{
		chunkedChecksum: checksum, oldChunkedChecksum: checksum,
		chunkedPosition: position, oldChunkedPosition: position,
		chunkedSplit: fmt.Sprintf("%d:%d:%d", splitAt, len(packedSplit), len(split)),
	}
	return nil
}

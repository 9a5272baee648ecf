// Package layer turns differences of trees into the blobs that an image holds,
// and such blobs, or the archive of an ADD, into packs and differences.
//
// Owns: what a tar means (LAWS 15), what fbuild writes (LAWS 13, 21, 28), and
// the compression of both.
//
// Invariants:
//   - Read puts the uncompressed tar into the pack byte for byte as it came, so
//     that the sha256 of the pack is the layer's DiffID; a file's extents point
//     into it.
//   - Seal gives the same bytes for the same input, whatever the number of
//     cores and the Go release: headers are written here, not by archive/tar.
//   - Read(Seal(cs)) equals cs but for the attributes of the root directory,
//     which docker and containerd ignore in a layer.
//   - Nothing is allocated because a number in the input says so: sizes are
//     bounded before they are believed (Limits and the constants of limits.go).
//
// On-disk format: see write.go for the tar; gzip is one member (LAWS 28).
//
// Concurrency: every function may be called from any number of goroutines; each
// call uses a few goroutines of its own and waits for them.
//
// Fails when: ErrCorrupt, ErrTooLarge and ErrNotArchive say that the input is at
// fault; every other error comes from a reader or writer that the caller gave.
package layer

import (
	"errors"
	"io"

	"github.com/fbuild/fbuild/tree"
)

// ErrCorrupt is returned for a stream that is cut short, damaged, or that says
// what no file system can hold.
var ErrCorrupt = errors.New("corrupt archive")

// ErrTooLarge is returned for a stream that exceeds its Limits.
var ErrTooLarge = errors.New("archive exceeds the limits")

// ErrNotArchive is returned by Extract for a file that is no tar in any known
// compression, and by nothing else.
var ErrNotArchive = errors.New("not a tar archive")

// ErrNotSeekable is returned by Seal for what the table of contents of a seekable
// layer cannot say.
var ErrNotSeekable = errors.New("cannot stand in the table of contents of a seekable layer")

// Contents gives the bytes of file nodes.
type Contents interface {
	// Open returns the bytes of n from its start; the caller closes it. It is
	// also asked for copies of a node that hold only its extents that are no
	// holes.
	Open(n *tree.Node) (io.ReadCloser, error)
}

// Limits bound what a stream may ask of this machine. Zero fields mean the
// defaults: 1 GiB, 200 and 10,000,000.
type Limits struct {
	// MaxSize is the uncompressed size that any stream may have. A larger one
	// may have at most MaxRatio times the compressed bytes read so far.
	MaxSize  int64
	MaxRatio int64
	// MaxEntries is the highest number of entries.
	MaxEntries int64
}

// Info says what Read and Extract read.
type Info struct {
	DiffID  tree.Digest // of the uncompressed stream
	TarSize int64       // uncompressed bytes
	Size    int64       // compressed bytes
	Notes   []string    // what was left out or changed, for people
}

// Options say how Seal and WriteTar write.
type Options struct {
	// Compression is "gzip" (also ""), "zstd", "uncompressed", or one of the
	// seekable forms "estargz" and "zstd:chunked". The tar of an eStargz layer, and
	// so its DiffID, is not that of the others: it holds a table of contents.
	Compression string
	// Level is the codec's own; 0 means gzip's 6 and zstd's 3, LevelNone gzip
	// without compression.
	Level int
	// Workers compress; nil means some of this call's own.
	Workers *Workers
	// Frames, where set, are those of earlier layers. What is sealed does not
	// depend on them (LAWS 27).
	Frames Frames
	// ClampMtime, where set, is the latest time that an entry may have
	// (rewrite-timestamp with SOURCE_DATE_EPOCH).
	ClampMtime *tree.Time
}

// Sealed says what Seal wrote.
type Sealed struct {
	DiffID    tree.Digest // of the tar
	Digest    tree.Digest // of the blob
	Size      int64       // bytes of the blob
	TarSize   int64       // bytes of the tar
	MediaType string
	Notes     []string // what was left out, for people
	// Annotations are the descriptor's, of a seekable layer.
	Annotations map[string]string
	Frames      []Frame // that others may look for in the blob
	Stats       Stats
	// Changes are what was sealed, every file with the digest of its bytes; nodes
	// that had none are copies. A file with more than 1 GiB of holes may have none.
	Changes tree.Changes
}

// Stats say how a layer was compressed.
type Stats struct {
	Bytes       int64 `json:"bytes"`       // uncompressed
	Frames      int   `json:"frames"`      // in all
	Small       int   `json:"small"`       // of them too small to be looked for in earlier layers
	Reused      int   `json:"reused"`      // copied from earlier layers
	ReusedBytes int64 `json:"reusedBytes"` // uncompressed
	Ahead       int   `json:"ahead"`       // made while the command still ran
	AheadBytes  int64 `json:"aheadBytes"`  // uncompressed
}

// Add counts what o says as well.
func (s *Stats) Add(o Stats) {
	s.Bytes, s.Frames, s.Small = s.Bytes+o.Bytes, s.Frames+o.Frames, s.Small+o.Small
	s.Reused, s.ReusedBytes = s.Reused+o.Reused, s.ReusedBytes+o.ReusedBytes
	s.Ahead, s.AheadBytes = s.Ahead+o.Ahead, s.AheadBytes+o.AheadBytes
}

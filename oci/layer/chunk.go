package layer

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/fbuild/fbuild/tree"
)

// Chunk is a run of a file's bytes in a seekable layer.
type Chunk struct {
	Off, Size int64 // in the pack
	Blob, End int64 // where what it is decompressed from begins in the blob, and ends at the latest
	Inner     int64 // bytes of other chunks that come out before it
	Digest    tree.Digest
}

// Read decompresses the chunk out of r, which stands at its beginning in the blob, and
// puts it into w. ErrCorrupt is returned where its bytes are not those that the digest
// promises: what w got is worth nothing then.
func (c *Chunk) Read(r io.Reader, w io.Writer) error {
	var n notes
	d, err := newDecompressor(bufio.NewReaderSize(io.LimitReader(r, c.End-c.Blob), 16<<10), &n, false)
	if err != nil {
		return c.corrupt(err)
	}
	defer d.close()
	if _, err := io.CopyN(io.Discard, d, c.Inner); err != nil {
		return c.corrupt(err)
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(h, &outside{w: w}), d, c.Size); err != nil {
		if oe, ok := errors.AsType[*outsideError](err); ok {
			return oe.err
		}
		return c.corrupt(err)
	}
	if got := digest(h); got != c.Digest {
		return fmt.Errorf("%w: a chunk is %s, the table of contents promises %s", ErrCorrupt, got, c.Digest)
	}
	return nil
}

// Check reports whether r has the chunk's bytes.
func (c *Chunk) Check(r io.Reader) error {
	h := sha256.New()
	if _, err := io.CopyN(h, r, c.Size); err != nil {
		return err
	}
	if got := digest(h); got != c.Digest {
		return fmt.Errorf("%w: a chunk is %s, not %s", ErrCorrupt, got, c.Digest)
	}
	return nil
}

func (c *Chunk) corrupt(err error) error {
	return fmt.Errorf("%w: chunk at %d: %s", ErrCorrupt, c.Blob, describe(err))
}

// outside marks errors of a writer that the caller gave.
type outside struct{ w io.Writer }

type outsideError struct{ err error }

func (e *outsideError) Error() string { return e.err.Error() }

func (o *outside) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		err = &outsideError{err}
	}
	return n, err
}

// On-disk form of chunks: for each its size, and, as differences, where it begins in the
// pack (from the end of the one before) and in the blob (from where that began); its
// length there, the bytes before it; its digest, 32 bytes. All numbers are varints.

// EncodeChunks gives chunks a form for the disk.
func EncodeChunks(list []Chunk) ([]byte, error) {
	b := make([]byte, 0, 48*len(list))
	var off, blob int64
	for i := range list {
		c := &list[i]
		b = binary.AppendUvarint(b, uint64(c.Size))
		b = binary.AppendUvarint(b, uint64(c.Off-off))
		b = binary.AppendVarint(b, c.Blob-blob)
		b = binary.AppendUvarint(b, uint64(c.End-c.Blob))
		b = binary.AppendUvarint(b, uint64(c.Inner))
		sum, err := hex.DecodeString(c.Digest.Hex())
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("encode chunks: digest %q", c.Digest)
		}
		b = append(b, sum...)
		off, blob = c.Off+c.Size, c.Blob
	}
	return b, nil
}

// DecodeChunks reads what EncodeChunks wrote.
func DecodeChunks(b []byte) ([]Chunk, error) {
	out := make([]Chunk, 0, len(b)/44+1)
	var off, blob int64
	failed := false
	next := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || int64(v) < 0 {
			failed = true
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	for len(b) > 0 {
		c := Chunk{Size: next(), Off: off + next()}
		step, n := binary.Varint(b)
		if n <= 0 {
			return nil, fmt.Errorf("%w: chunks cut short", ErrCorrupt)
		}
		b = b[n:]
		c.Blob = blob + step
		c.End = c.Blob + next()
		c.Inner = next()
		if failed || len(b) < sha256.Size || c.Off < off || c.Blob < 0 || c.End < c.Blob || c.Off+c.Size < c.Off {
			return nil, fmt.Errorf("%w: chunks that cannot be", ErrCorrupt)
		}
		c.Digest = digestOf(b[:sha256.Size])
		b = b[sha256.Size:]
		off, blob = c.Off+c.Size, c.Blob
		out = append(out, c)
	}
	return out, nil
}

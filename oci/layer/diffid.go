package layer

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/fbuild/fbuild/tree"
)

// DiffID reads a layer blob to its end and returns the digest of its tar, which it
// does not look into.
//
// ErrCorrupt and ErrTooLarge are returned for what the blob is to blame for.
func DiffID(ctx context.Context, blob io.Reader, lim Limits) (tree.Digest, error) {
	in := &counted{r: blob}
	src := bufio.NewReaderSize(in, inChunk)
	d, err := newDecompressor(src, &notes{}, false)
	if err != nil {
		return "", fmt.Errorf("read layer: %w", err)
	}
	defer d.close()
	h := sha256.New()
	plain := &bounded{r: d, in: in, lim: lim.withDefaults()}
	buf := make([]byte, outChunk)
	for {
		n, err := plain.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF { //nolint:errorlint // one that is wrapped is a fault of the blob
			return digest(h), nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return "", fmt.Errorf("read layer: %w", err)
		}
	}
}

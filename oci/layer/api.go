package layer

import (
	"context"
	"errors"
	"io"

	"github.com/fbuild/fbuild/tree"
)

var errLater = errors.New("layer: being written")

// Read turns one layer blob into a pack and changes.
func Read(ctx context.Context, blob io.Reader, packID tree.PackID, pack io.Writer, lim Limits) (tree.Changes, Info, error) {
	return nil, Info{}, errLater
}

// Extract reads an archive for ADD.
func Extract(ctx context.Context, r io.Reader, packID tree.PackID, pack io.Writer, lim Limits) (tree.Changes, Info, error) {
	return nil, Info{}, errLater
}

// Seal writes cs as a deterministic tar, compressed, to blob.
func Seal(ctx context.Context, blob io.Writer, cs tree.Changes, c Contents, o Options) (Sealed, error) {
	return Sealed{}, errLater
}

// WriteTar writes cs as a deterministic tar.
func WriteTar(ctx context.Context, w io.Writer, cs tree.Changes, c Contents, o Options) error {
	return errLater
}

package build

import (
	"context"
	"errors"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// parallelSeals is how many layers are sealed at once. What takes memory, the
// compression, they share.
const parallelSeals = 4

type blobWriter = cache.BlobWriter

// sealBlob writes changes as a layer blob into the store. The blob does not depend
// on what the store holds, only the time it takes does (LAWS 27). written, if not nil, is
// told when all of it is in a file, which takes its name in the store when it is durable.
func (b *builder) sealBlob(ctx context.Context, cs tree.Changes, o layer.Options, written func(s layer.Sealed, file string)) (layer.Sealed, error) {
	return b.throughWorkers(ctx, o, func(w *blobWriter, o layer.Options) (layer.Sealed, error) {
		sealed, err := layer.Seal(ctx, w, cs, b.store.Packs(), o)
		if err == nil && written != nil {
			written(sealed, w.Name())
		}
		return sealed, err
	})
}

// throughWorkers makes a blob with fn, within the build's memory and with the frames
// that the store has; once more without these where they do not fit.
func (b *builder) throughWorkers(ctx context.Context, o layer.Options, fn func(*blobWriter, layer.Options) (layer.Sealed, error)) (layer.Sealed, error) {
	select {
	case b.sealing <- struct{}{}:
		defer func() { <-b.sealing }()
	case <-ctx.Done():
		return layer.Sealed{}, context.Cause(ctx)
	}
	o.Workers = b.workers
	if b.frames != nil {
		o.Frames = b.frames
	}
	sealed, err := b.writeBlob(o, fn)
	if errors.Is(err, layer.ErrFrames) {
		b.warn("cache: a frame of an earlier layer is not what it was, or a content: compressing everything anew")
		o.Frames = nil
		sealed, err = b.writeBlob(o, fn)
	}
	if err == nil && b.frames != nil {
		b.frames.add(sealed)
	}
	return sealed, err
}

func (b *builder) writeBlob(o layer.Options, fn func(*blobWriter, layer.Options) (layer.Sealed, error)) (layer.Sealed, error) {
	w, err := b.store.CreateBlob()
	if err != nil {
		return layer.Sealed{}, err
	}
	defer w.Abort()
	sealed, err := fn(w, o)
	if err != nil {
		return layer.Sealed{}, err
	}
	if _, _, err := w.Commit(sealed.Digest); err != nil {
		return layer.Sealed{}, err
	}
	return sealed, nil
}

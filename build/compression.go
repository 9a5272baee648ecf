package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// Compression says how the layers of an output are compressed. The zero value is
// gzip at its usual level, with layers of the base as they came.
type Compression struct {
	Type  string // one of Compressions; "" is gzip
	Level *int   // the codec's own; nil for its usual one
	Force bool   // layers of the base as well
}

// Compressions are the values of Compression.Type, with the highest level of each
// (0 where there are none).
var Compressions = map[string]int{"gzip": 9, "zstd": 22, "estargz": 9, "zstd:chunked": 22, "uncompressed": 0}

// Check says what is wrong with c in words for people.
func (c Compression) Check() error {
	highest, ok := Compressions[c.kind()]
	switch {
	case !ok:
		return fmt.Errorf("unknown compression %q", c.Type)
	case c.Level == nil:
		return nil
	case highest == 0:
		return errors.New("compression=uncompressed has no level")
	case *c.Level < 0 || *c.Level > highest:
		return fmt.Errorf("%s has levels 0 to %d, not %d", c.kind(), highest, *c.Level)
	}
	return nil
}

func (c Compression) kind() string {
	if c.Type == "" {
		return "gzip"
	}
	return c.Type
}

// seekable reports whether the layers have a table of contents.
func (c Compression) seekable() bool { return c.Type == "estargz" || c.Type == "zstd:chunked" }

// word names the compression in records: "" for the usual one.
func (c Compression) word() string {
	switch {
	case c.Level != nil:
		return c.kind() + "-" + strconv.Itoa(*c.Level)
	case c.kind() == "gzip":
		return ""
	}
	return c.kind()
}

func (c Compression) options() layer.Options {
	o := layer.Options{Compression: c.kind()}
	if c.Level != nil {
		o.Level = *c.Level
		if o.Level == 0 && (c.kind() == "gzip" || c.kind() == "estargz") {
			o.Level = layer.LevelNone
		}
	}
	return o
}

// stepCompression is how the layers of steps are compressed when they are made: as
// all images of the build want them, else with gzip. An eStargz layer is made at the
// end, because its table is a file of the tar, which no step made, out of the frames
// of gzip where it can be.
func stepCompression(outs []Output) Compression {
	var all []Compression
	for _, o := range outs {
		if o.Type.IsImage() {
			all = append(all, o.Compression)
		}
	}
	differs := func(c Compression) bool { return c.word() != all[0].word() }
	if len(all) == 0 || all[0].Type == "estargz" || slices.ContainsFunc(all, differs) {
		return Compression{}
	}
	return all[0]
}

// kindOf tells the compression of a layer that somebody else made.
func kindOf(desc v1.Descriptor) string {
	if _, ok := desc.Annotations["io.github.containers.zstd-chunked.manifest-checksum"]; ok {
		return "zstd:chunked"
	}
	if _, ok := desc.Annotations["containerd.io/snapshot/stargz/toc.digest"]; ok {
		return "estargz"
	}
	switch desc.MediaType {
	case types.OCIUncompressedLayer, types.DockerUncompressedLayer:
		return "uncompressed"
	case types.OCILayerZStd, "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return "zstd"
	default:
		return "gzip"
	}
}

// variant says what of a layer has to be another in an output: its times, and its
// compression.
type variant struct {
	clamp    *tree.Time
	compress bool
	to       Compression
}

// variantOf returns nil for a layer that goes out as it is.
func (b *builder) variantOf(l *fsLayer, o Output) *variant {
	v := variant{to: o.Compression}
	if l.src != nil && !l.shared { // of the base
		v.compress = o.Compression.Force && kindOf(l.desc) != o.Compression.kind()
		if !v.compress {
			return nil
		}
		return &v
	}
	if o.RewriteTimestamp && b.opts.Epoch != nil {
		clamp := tree.TimeOf(*b.opts.Epoch)
		v.clamp = &clamp
	}
	if l.src == nil {
		v.compress = l.how != o.Compression.word()
	} else { // nobody knows the level
		v.compress = kindOf(l.desc) != o.Compression.kind() || o.Compression.Level != nil
	}
	if v.clamp == nil && !v.compress {
		return nil
	}
	return &v
}

func (v *variant) key(l *fsLayer) Key {
	k := newKey("variant").str(string(l.diffID)).str(v.to.word())
	if v.clamp != nil {
		k = k.num(uint64(v.clamp.Sec))
	}
	if l.src != nil && !l.shared {
		k = k.str(l.desc.Digest.String())
	}
	return k.sum()
}

// made returns the layer that stands for l in an output (LAWS 13: the layer itself
// stays as it is).
func (b *builder) made(ctx context.Context, l *fsLayer, v *variant) (oci.Layer, error) {
	key, none := v.key(l), &fsState{}
	if res, ok := b.recorded(ctx, key, none); ok && res.layer != nil {
		b.offer(key, none, res)
		return oci.Layer{Desc: res.layer.desc, DiffID: res.layer.diffID}, nil
	}
	if !v.to.seekable() { // whose annotations no shared cache keeps
		if res, ok := b.adopt(ctx, key, none); ok && res.layer != nil {
			copied := res.layer
			return oci.Layer{Desc: copied.desc, DiffID: copied.diffID, Repo: copied.src.Repo, Open: b.layerOpener(copied, copied.desc)}, nil
		}
	}
	sealed, err := b.makeVariant(ctx, l, v)
	if err != nil {
		return oci.Layer{}, err
	}
	desc, err := sealedDescriptor(sealed)
	if err != nil {
		return oci.Layer{}, err
	}
	below, err := none.chainID(ctx)
	if err != nil {
		return oci.Layer{}, err
	}
	rec := stepRecord{
		Created: time.Now(), Below: below, DiffID: sealed.DiffID, Digest: desc.Digest.String(), Size: desc.Size,
		MediaType: string(desc.MediaType), Compression: v.to.word(), Annotations: sealed.Annotations,
	}
	err = b.putJSON(kindStep, string(key), rec, []tree.Digest{sealed.Digest}, nil)
	if !v.to.seekable() {
		b.share(key, none, result{layer: knownLayer(sealed.DiffID, desc, nil), created: rec.Created})
	}
	return oci.Layer{Desc: desc, DiffID: sealed.DiffID}, err
}

// makeVariant seals it: out of the changes, but a layer of the base byte for byte
// out of its tar, which need not be as we would write it.
func (b *builder) makeVariant(ctx context.Context, l *fsLayer, v *variant) (layer.Sealed, error) {
	o := v.to.options()
	o.ClampMtime = v.clamp
	if l.src != nil && !l.shared && !v.to.seekable() {
		return b.recompress(ctx, l, o)
	}
	cs, err := l.open(ctx, b)
	if err != nil {
		return layer.Sealed{}, err
	}
	sealed, err := b.sealBlob(ctx, cs, o, nil)
	if err != nil {
		return layer.Sealed{}, fmt.Errorf("make layer %s again with %s: %w", l.diffID, v.to.kind(), err)
	}
	return sealed, nil
}

// recompress makes a layer of the base again, with the same tar.
func (b *builder) recompress(ctx context.Context, l *fsLayer, o layer.Options) (_ layer.Sealed, err error) {
	if err := l.ensureBlob(ctx, b); err != nil {
		return layer.Sealed{}, err
	}
	f, err := b.store.OpenBlob(tree.Digest(l.desc.Digest.String()))
	if err != nil {
		return layer.Sealed{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sealed, err := b.throughWorkers(ctx, o, func(w *blobWriter, o layer.Options) (layer.Sealed, error) {
		if _, err := f.Seek(0, 0); err != nil {
			return layer.Sealed{}, fmt.Errorf("read blob: %w", err)
		}
		return layer.Recompress(ctx, w, f, layer.Limits{}, o)
	})
	if err == nil && sealed.DiffID != l.diffID {
		err = fmt.Errorf("recompress layer %s: %w: its tar is %s", l.diffID, oci.ErrDigest, sealed.DiffID)
	}
	return sealed, err
}

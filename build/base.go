package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// base is an image that a stage or a COPY --from starts from.
type base struct {
	fs            *fsState
	key           Key
	cfg           v1.ConfigFile
	startInterval time.Duration
}

// base resolves what the stage's FROM names.
func (r *stageRun) base(ctx context.Context, p v1.Platform) (*base, error) {
	b, name := r.b, r.stage.BaseName
	if r.stage.Context != "" {
		name = r.stage.Context
	}
	if dir, ok := b.contextDir(name); ok {
		return b.dirBase(ctx, name, dir, p, b.opts.Progress.Step(r.title(nil, "FROM "+name)))
	}
	bs, err := b.base(ctx, name, p)
	if err != nil {
		return nil, err
	}
	step := b.opts.Progress.Step(r.title(nil, "FROM "+name))
	r.pull = &pull{step: step, left: len(bs.fs.layers())}
	for _, l := range bs.fs.layers() {
		l.shows(r.pull)
	}
	return bs, nil
}

// base resolves an image by name: a named context that stands for it, or a
// reference. Only manifest and config are read.
func (b *builder) base(ctx context.Context, name string, p v1.Platform) (*base, error) {
	return once(ctx, &b.mu, b.bases, name+" "+p.String(), func() (*base, error) {
		img, err := b.resolve(ctx, name, p)
		if err != nil {
			return nil, err
		}
		if m := img.Mismatch; m != nil && b.opts.titles != "" { // an index says what is in it
			return nil, m
		} else if m != nil {
			b.warn("base image %s: %v", name, m)
		}
		fs := &fsState{}
		for i := range img.Layers {
			l := &img.Layers[i]
			fs = fs.push(knownLayer(l.DiffID, l.Desc, l))
			if seek, ok := b.seekable(l.Desc); ok {
				fs.layer.seek = &seek
			}
		}
		cfg := *img.Config
		cfg.RootFS = v1.RootFS{Type: "layers"}
		key := b.imageKey(img)
		return &base{fs: fs, key: key, cfg: cfg, startInterval: img.StartInterval}, nil
	})
}

// seekable finds the table of contents by which a layer is read, if the build reads so: with
// LazyOff layers are what their diffIDs say, and so is all that is made on them.
func (b *builder) seekable(d v1.Descriptor) (layer.Seekable, bool) {
	if b.opts.Lazy == LazyOff {
		return layer.Seekable{}, false
	}
	return layer.FindSeekable(d.Annotations)
}

// imageKey is that of a FROM: the image's config, and the tables of contents of its layers
// where these are read: what they say nobody compares with the config's diffIDs.
func (b *builder) imageKey(img *oci.Image) Key {
	k := newKey("image").str(img.Manifest.Config.Digest.String())
	for i := range img.Layers {
		if seek, ok := b.seekable(img.Layers[i].Desc); ok {
			k.num(uint64(i)).str(seek.Name())
		}
	}
	return k.sum()
}

// resolve finds an image where its name says.
func (b *builder) resolve(ctx context.Context, name string, p v1.Platform) (*oci.Image, error) {
	where, ok := b.context(name)
	if !ok {
		where = "docker-image://" + name
	}
	at := "[internal] "
	if b.opts.titles != "" {
		at = "[" + p.String() + " internal] "
	}
	step := b.opts.Progress.Step(at + "load metadata for " + displayName(where))
	step.Start()
	img, err := b.resolveAt(ctx, where, p)
	step.Done(err)
	return img, err
}

func displayName(where string) string {
	name, isRef := strings.CutPrefix(where, "docker-image://")
	if !isRef {
		return where
	}
	if ref, err := oci.ParseRef(name); err == nil {
		return oci.FullName(ref)
	}
	return name
}

func (b *builder) resolveAt(ctx context.Context, where string, p v1.Platform) (*oci.Image, error) {
	if l, ok, err := oci.ParseLayoutRef(where); err != nil {
		return nil, err
	} else if ok {
		return l.Open(ctx, p)
	}
	ref, err := oci.ParseRef(strings.TrimPrefix(where, "docker-image://"))
	if err != nil {
		return nil, err
	}
	full := oci.FullName(ref)
	if !b.opts.Pull {
		if img, ok := b.named(ctx, full, p); ok {
			return img, nil
		}
	}
	root, err := b.oneAge(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	key := refKey(full, p)
	if !b.opts.Pull || root != "" {
		if img, ok := b.known(ctx, key, full, root, p); ok {
			return img, nil
		}
	}
	if b.planning() {
		return nil, &unknownError{fmt.Sprintf("base image %s is not in the store", full)}
	}
	at := full
	if root != "" {
		at = ref.Context().Name() + "@" + root
	}
	img, err := b.opts.Remote.Resolve(ctx, at, p)
	if err != nil {
		return nil, err
	}
	img.Ref = full
	return img, b.learn(key, full, root, img)
}

func refKey(full string, p v1.Platform) Key { return newKey("ref").str(full).str(p.String()).sum() }

// oneAge is the digest that a tag means to all platforms of a build for several: what those
// that remember one agree on, else what the registry says now, asked once; "" where each
// may take what it finds.
func (b *builder) oneAge(ctx context.Context, ref name.Reference, p v1.Platform) (string, error) {
	f, full := b.family, oci.FullName(ref)
	if _, pinned := ref.(name.Digest); pinned || len(f.platforms) < 2 || b.planning() {
		return "", nil
	}
	return once(ctx, &f.mu, f.ages, full, func() (string, error) {
		roots := map[string]bool{}
		for _, p := range append([]v1.Platform{p}, f.platforms...) {
			var rec refRecord
			if b.getJSON(kindRef, string(refKey(full, p)), &rec) {
				roots[rec.Root] = true
			}
		}
		if !b.opts.Pull && len(roots) == 1 && !roots[""] {
			return slices.Collect(maps.Keys(roots))[0], nil
		}
		d, err := b.opts.Remote.Head(ctx, full)
		if err != nil {
			if ctx.Err() == nil { // a mirror may have it all the same
				b.warn("base image %s: its platforms may be of different ages: %v", full, err)
			}
			return "", ctx.Err()
		}
		return string(d), nil
	})
}

// named returns the image of the store that has a name: one that was built, pulled,
// loaded or tagged here, as docker prefers its own images. Those of the store are
// whole.
func (b *builder) named(ctx context.Context, name string, p v1.Platform) (*oci.Image, bool) {
	list, err := b.store.Images()
	if err != nil {
		b.warn("%v", err)
		return nil, false
	}
	i := slices.IndexFunc(list, func(i cache.Image) bool { return i.Name == name })
	if i < 0 {
		return nil, false
	}
	img, err := oci.OpenLayout(ctx, b.store.Dir(), list[i].Desc.Digest.String(), p)
	if err != nil || img.Mismatch != nil {
		return nil, false
	}
	for _, l := range img.Layers {
		if !b.store.HasBlob(tree.Digest(l.Desc.Digest.String())) {
			return nil, false
		}
	}
	return img, true
}

// refRecord is what a reference meant when it was last asked for.
type refRecord struct {
	Repo string        `json:"repo"`
	Desc v1.Descriptor `json:"desc"`
	// Fits is set where an index chose the image for the platform, or it is of that:
	// its manifest alone does not tell that linux/386 was chosen for linux/amd64.
	Fits bool `json:"fits,omitempty"`
	// Root is what the reference meant, an index most often, where a build for several
	// platforms asked.
	Root string `json:"root,omitempty"`
}

// learn stores manifest and config of an image under its reference, so that the
// next build needs no network.
func (b *builder) learn(key Key, name, root string, img *oci.Image) error {
	rec := refRecord{Desc: img.Desc, Fits: img.Mismatch == nil, Root: root}
	if len(img.Layers) > 0 {
		rec.Repo = img.Layers[0].Repo
	}
	var blobs []tree.Digest
	for _, raw := range [][]byte{img.RawManifest, img.RawConfig} {
		d, err := b.store.PutBlob(bytes.NewReader(raw), "")
		if err != nil {
			return fmt.Errorf("store %s: %w", name, err)
		}
		blobs = append(blobs, d)
	}
	var diffIDs []tree.Digest
	for _, l := range img.Layers {
		blobs = append(blobs, tree.Digest(l.Desc.Digest.String()))
		diffIDs = append(diffIDs, l.DiffID)
		if seek, ok := layer.FindSeekable(l.Desc.Annotations); ok {
			diffIDs = append(diffIDs, seekName(l.DiffID, seek))
		}
	}
	return b.putJSON(kindRef, string(key), rec, blobs, diffIDs)
}

// known returns the image that a reference meant before, when it meant root, from the store
// alone; "" is whatever it meant.
// Layers that the store lacks are asked of the registry when somebody needs them.
func (b *builder) known(ctx context.Context, key Key, name, root string, p v1.Platform) (*oci.Image, bool) {
	var rec refRecord
	if !b.getJSON(kindRef, string(key), &rec) || root != "" && rec.Root != root {
		return nil, false
	}
	img, err := oci.OpenLayout(ctx, b.store.Dir(), rec.Desc.Digest.String(), p)
	if err != nil {
		return nil, false
	}
	at := name
	if !strings.Contains(name, "@") {
		if ref, err := oci.ParseRef(name); err == nil {
			at = ref.Context().Name() + "@" + rec.Desc.Digest.String()
		}
	}
	again := &lazyImage{resolve: func(ctx context.Context) (*oci.Image, error) { return b.opts.Remote.Resolve(ctx, at, p) }}
	img.Ref = name
	if rec.Fits {
		img.Mismatch = nil
	}
	for i := range img.Layers {
		img.Layers[i].Repo = rec.Repo
		img.Layers[i].Open = func(ctx context.Context) (io.ReadCloser, error) {
			img, err := again.get(ctx)
			if err != nil {
				return nil, err
			}
			if i >= len(img.Layers) {
				return nil, fmt.Errorf("%s: layer %d is missing", at, i+1)
			}
			return img.Layers[i].Open(ctx)
		}
		img.Layers[i].Range = func(ctx context.Context, off, n int64) (io.ReadCloser, error) {
			img, err := again.get(ctx)
			if err != nil {
				return nil, err
			}
			if i >= len(img.Layers) || img.Layers[i].Range == nil {
				return nil, oci.ErrNoRanges
			}
			return img.Layers[i].Range(ctx, off, n)
		}
	}
	return img, true
}

// lazyImage asks a registry once more for an image that the store remembers. Only
// an answer is kept: a failure or an interruption is that of its caller.
type lazyImage struct {
	resolve func(context.Context) (*oci.Image, error)
	mu      sync.Mutex
	img     *oci.Image
}

func (l *lazyImage) get(ctx context.Context) (*oci.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.img != nil {
		return l.img, nil
	}
	img, err := l.resolve(ctx)
	if err == nil {
		l.img = img
	}
	return img, err
}

// dirBase is a named context that is a directory, used as a base: its files on an
// empty image.
func (b *builder) dirBase(ctx context.Context, name, dir string, p v1.Platform, step *progress.Step) (*base, error) {
	l, err := b.localContext(ctx, name, dir, nil)
	if err != nil {
		step.Done(err)
		return nil, err
	}
	parent := &state{fs: &fsState{}, key: scratchKey(), cfg: emptyConfig(p)}
	c := &copyRun{
		b: b, below: parent.fs, belowKey: parent.key, tr: &dockerfile.Transfer{Sources: []string{"."}, Target: "/"},
		src: &copySource{local: l}, step: step,
	}
	defer c.close()
	res, _, err := c.do(ctx)
	step.Done(err)
	if err != nil {
		return nil, fmt.Errorf("build context %s: %w", name, err)
	}
	cfg := parent.cfg
	if res.layer != nil {
		addHistory(&cfg, "COPY . / # "+name, &res.created, false)
	}
	return &base{fs: parent.fs.push(res.layer), key: c.key, cfg: cfg}, nil
}

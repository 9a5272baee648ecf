package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/tail"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// Cache mounts travel where --cache-to says mounts=true: each is a tar of its files
// under the mount's id. It is what a new cache mount starts from. What stands in one
// is in no key, as on one machine.

const (
	maxSharedMount  = 4 << 30  // bytes of a cache mount as it is sent
	maxMountSize    = 16 << 30 // and unpacked
	maxMountEntries = 4 << 20
	// mountPatience is how long a cache mount may be in use by others before it is left
	// out.
	mountPatience = 10 * time.Second
)

// usedMount is a cache mount that a command of this build had.
type usedMount struct {
	key string // of the store
	id  string // as the Dockerfile has it
}

// sharedMountKey names a cache mount for all machines: cacheKey, but for the ids of
// this one.
func (b *builder) sharedMountKey(m *runMount) string {
	k := newKey("shared cache mount").str(m.ID).str(m.sum)
	for _, id := range []*uint32{m.Mode, m.UID, m.GID} {
		k.num(flag(id != nil)).num(uint64(orZero(id)))
	}
	if ids, err := reexec.HostMap(false); err == nil {
		k.str(string(ids.Class))
	}
	return string(k.sum())
}

// keepMount collects a cache mount for --cache-to.
func (b *builder) keepMount(m *runMount, key string) {
	if b.shared == nil || b.shared.to == nil || !b.shared.mounts {
		return
	}
	x := b.shared.to
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mounts[b.sharedMountKey(m)] = usedMount{key, m.ID}
}

// mountItems packs the cache mounts that were used. One that somebody else uses, or
// that is too large, is left out with a word.
func (b *builder) mountItems(ctx context.Context) []sharedItem {
	x := b.shared.to
	x.mu.Lock()
	used := maps.Clone(x.mounts)
	x.mu.Unlock()
	var items []sharedItem
	for key, m := range used {
		it := sharedItem{sharedEntry: sharedEntry{Kind: kindCache, Key: key}}
		d, err := b.packMount(ctx, m)
		if err != nil {
			if ctx.Err() == nil {
				b.warn("cache mount %s is not stored: %v", m.id, err)
			}
			continue
		}
		it.Blob = &d
		it.blob = &oci.Blob{Desc: d, Open: func(context.Context) (io.ReadCloser, error) { return b.store.OpenBlob(tree.Digest(d.Digest.String())) }}
		b.shared.key.sign(&it.sharedEntry)
		items = append(items, it)
	}
	return items
}

// packMount writes a cache mount into a blob of the store.
func (b *builder) packMount(ctx context.Context, m usedMount) (v1.Descriptor, error) {
	var none v1.Descriptor
	box, err := b.run.sandbox(ctx)
	if err != nil {
		return none, err
	}
	patient, cancel := context.WithTimeout(ctx, mountPatience)
	dir, release, err := b.store.CacheMount(patient, m.key, cache.LockedMount, cache.MountInfo{ID: m.id}, nil)
	cancel()
	if err != nil {
		return none, fmt.Errorf("it is in use: %w", err)
	}
	defer release()
	w, err := b.store.CreateBlob()
	if err != nil {
		return none, err
	}
	defer w.Abort()
	if err := packInto(ctx, box, dir, w); err != nil {
		return none, err
	}
	digest, size, err := w.Commit("")
	if err == nil && size > maxSharedMount {
		err = fmt.Errorf("it has %d bytes, at most %d are read", size, int64(maxSharedMount))
	}
	if err != nil {
		return none, err
	}
	h, err := v1.NewHash(string(digest))
	return v1.Descriptor{MediaType: typeSharedMount, Size: size, Digest: h}, err
}

// packInto has a child write the tar of a directory and compresses it.
func packInto(ctx context.Context, box *exec.Sandbox, dir string, w io.Writer) error {
	input, err := json.Marshal(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("pack: %w", err), inR.Close(), inW.Close())
	}
	defer func() { _ = outR.Close() }() // only read
	said := &tail.Buffer{}
	p, err := box.Start(ctx, packChild, []*os.File{inR, outW}, said)
	if err := errors.Join(err, inR.Close(), outW.Close()); err != nil {
		return errors.Join(err, inW.Close())
	}
	_, err = inW.Write(input)
	err = errors.Join(err, inW.Close())
	z, zerr := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err = errors.Join(err, zerr); err == nil {
		_, err = io.Copy(z, io.LimitReader(outR, maxMountSize))
		err = errors.Join(err, z.Close())
	}
	_ = outR.Close() // a child that has more to say ends
	if werr := p.Wait(); werr != nil {
		err = errors.Join(err, errors.New(werr.Error()+": "+said.String()))
	}
	return err
}

// startShared fills a new cache mount with what a shared cache has of it; false where
// none has.
func (v *served) startShared(ctx context.Context, m *runMount, dir string) (bool, error) {
	b := v.set.b
	if b.shared == nil {
		return false, nil
	}
	for _, c := range b.shared.from {
		e, ok := c.entry(ctx, b.opts.Progress, entryName{kindCache, b.sharedMountKey(m)})
		if !ok || e.Blob == nil {
			continue
		}
		f, drop, err := b.unpackMount(ctx, c, *e.Blob)
		if err != nil {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			b.warn("cache %s: cache mount %s is not used: %v", c.place, m.ID, err)
			continue
		}
		f.Path = dir
		err = furnish(ctx, v.box, f)
		drop()
		return true, err
	}
	return false, nil
}

// unpackMount reads the files of a cache mount, all of which are verified, into a pack
// and an index.
func (b *builder) unpackMount(ctx context.Context, c *cacheSource, d v1.Descriptor) (f furniture, drop func(), err error) {
	if d.Size > maxSharedMount {
		return f, nil, fmt.Errorf("it has %d bytes, at most %d are read", d.Size, int64(maxSharedMount))
	}
	r, err := c.openBlob(ctx, b, d)
	if err != nil {
		return f, nil, err
	}
	pack, err := b.store.CreateTarPack()
	if err != nil {
		return f, nil, errors.Join(err, r.Close())
	}
	defer pack.Abort()
	cs, _, err := layer.Read(ctx, r, pack.ID(), pack, layer.Limits{MaxSize: maxMountSize, MaxRatio: 1, MaxEntries: maxMountEntries})
	if err := errors.Join(err, r.Close()); err != nil {
		return f, nil, err
	}
	if err := pack.Commit(); err != nil {
		return f, nil, err
	}
	root, cs := harmless(cs)
	f = furniture{Mode: root.Mode, UID: root.UID, GID: root.GID, PackDir: b.store.Packs().Dir()}
	index, err := b.writeIndex(cs)
	f.Layers = []string{index}
	return f, func() { b.dropPack(pack.ID()) }, err
}

// harmless returns the directory and its entries. It leaves out what no program's cache
// needs and what would be dangerous in a directory of the host: devices, setuid bits
// and attributes.
func harmless(cs tree.Changes) (root tree.Node, out tree.Changes) {
	root = tree.Node{Kind: tree.Dir, Mode: 0o755}
	nodes := map[*tree.Node]*tree.Node{}
	for _, ch := range cs {
		n := ch.Node
		if n == nil || n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice {
			continue
		}
		if nodes[n] == nil {
			plain := n.Attrs()
			plain.Xattrs = nil
			if plain.Kind != tree.Dir {
				plain.Mode &= 0o777
			}
			nodes[n] = &plain
		}
		if ch.Path == mountRoot && n.Kind == tree.Dir {
			root = *nodes[n]
		}
		if p, ok := strings.CutPrefix(ch.Path, mountRoot+"/"); ok {
			out = append(out, tree.Change{Path: p, Node: nodes[n]})
		}
	}
	return root, out
}

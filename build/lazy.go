package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/oci"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// A base layer with a table of contents (eStargz, zstd:chunked) whose digest the manifest
// holds is not fetched: its index is made of the table, its bytes come from the registry
// as somebody reads them, each verified (lazyfetch.go), into a lazy pack that outlives the
// build. Nobody compares the table with the diffID, so nothing that follows from it may be
// found under the names of layers that somebody did: such a layer has a name of its own
// in keys, chains and the store (fsLayer.name).

// kindLazy is the record of a lazy pack, under the layer's name.
const kindLazy = cache.KindLazy

// The values of Options.Lazy.
const (
	LazyOn  = "on"  // contents of seekable layers are fetched as they are read
	LazyAll = "all" // and the others meanwhile, as long as steps run
	LazyOff = "off" // layers are fetched as wholes
)

// lazyRecord goes before the chunks in the record.
type lazyRecord struct {
	Pack  tree.PackID `json:"pack"`
	Notes []string    `json:"notes,omitempty"`
}

// name is what the layer is called where it is about what it holds: the diffID, but of a
// layer with a table that one, too.
func (l *fsLayer) name() tree.Digest {
	if l.seek == nil {
		return l.diffID
	}
	return seekName(l.diffID, *l.seek)
}

func seekName(diffID tree.Digest, s layer.Seekable) tree.Digest {
	return tree.Digest("sha256:" + string(newKey("seekable layer").str(string(diffID)).str(s.Name()).sum()))
}

// lazies are the layers of a build whose contents may be elsewhere.
type lazies struct {
	mu   sync.Mutex
	list []*lazyLayer
	step *progress.Step // shows what is fetched; nil until something is
	err  error          // the first failure

	ahead sync.WaitGroup // fetching that nobody waits for
	stops []func()       // ends it
	over  bool           // the steps are
}

// openLazy makes the changes of a seekable layer known without fetching it. Whatever
// speaks against that is a reason to fetch the layer.
func (l *fsLayer) openLazy(ctx context.Context, b *builder) bool {
	if l.seek == nil || l.src == nil || l.src.Range == nil ||
		b.store.HasBlob(tree.Digest(l.desc.Digest.String())) {
		return false
	}
	z := &lazyLayer{b: b, l: l, coming: map[int]chan struct{}{}}
	if cs, ok := z.stored(ctx); ok {
		l.changes = cs
	} else if cs, err := z.makeAnywhere(ctx); err == nil {
		l.changes = cs
	} else {
		if ctx.Err() == nil {
			b.warn("layer %s is fetched as a whole: %v", shortID(l.desc.Digest), err)
		}
		return false
	}
	l.index, _ = b.store.LayerFile(l.name()) // a miss is written anew
	z.forget = b.store.Packs().AddFiller(z.id, z.fill)
	b.lazies.mu.Lock()
	defer b.lazies.mu.Unlock()
	b.lazies.list = append(b.lazies.list, z)
	if b.opts.Lazy == LazyAll {
		z.behind(z.all()) //nolint:contextcheck // it outlives the step, not the build
	}
	return true
}

// stored takes the layer up from an earlier build.
func (z *lazyLayer) stored(ctx context.Context) (tree.Changes, bool) {
	name, store := z.l.name(), z.b.store
	rec, err := store.Record(kindLazy, string(name))
	if err != nil {
		return nil, false
	}
	var head lazyRecord
	text, chunks, _ := strings.Cut(string(rec.Value), "\n")
	if json.Unmarshal([]byte(text), &head) != nil {
		return nil, false
	}
	cs, ok := z.b.storedChanges(name)
	if !ok || slices.ContainsFunc(packsOf(cs), func(id tree.PackID) bool { return id != head.Pack }) {
		return nil, false // or a build ended between the two
	}
	if z.chunks, err = layer.DecodeChunks([]byte(chunks)); err != nil {
		return nil, false
	}
	if z.file, err = pack.OpenLazy(store.Packs().Dir(), head.Pack); err != nil {
		return nil, false
	}
	if err := z.recheck(ctx); err != nil {
		z.b.warn("%v", errors.Join(err, z.file.Close()))
		return nil, false
	}
	z.id = head.Pack
	return cs, true
}

// recheck looks at what was marked under another boot of this machine: a power loss may
// have kept the mark and lost the bytes (LAWS 33).
func (z *lazyLayer) recheck(ctx context.Context) error {
	whole, err := z.file.Whole()
	if err != nil || whole {
		return err
	}
	was, err := z.file.Boot()
	if err != nil || was == bootID() && was != "" {
		return err
	}
	for i := range z.chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &z.chunks[i]
		here, err := z.file.Here(c.Off, c.Size)
		if err == nil && here && !z.right(c) {
			err = z.file.Forget(c.Off, c.Size)
		}
		if err != nil {
			return err
		}
	}
	return z.file.SetBoot(bootID())
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // every build checks then
	}
	return strings.TrimSpace(string(b))
}

// makeAnywhere is make, again where a mirror's table was of no use.
func (z *lazyLayer) makeAnywhere(ctx context.Context) (tree.Changes, error) {
	for {
		cs, err := z.make(ctx)
		if !oci.OtherCopy(err) {
			return cs, err
		}
		z.b.warn("layer %s: %v: its table of contents is fetched from elsewhere", shortID(z.l.desc.Digest), err)
	}
}

// make reads the layer's table and stores what it says.
func (z *lazyLayer) make(ctx context.Context) (tree.Changes, error) {
	l, store := z.l, z.b.store
	var w *pack.Writer
	defer func() {
		if w != nil {
			w.Abort() // nothing after a Commit
		}
	}()
	var body io.Reader // the last one
	open := func(ctx context.Context, off, n int64) (io.ReadCloser, error) {
		rc, err := l.src.Range(ctx, off, n)
		body = rc
		return rc, err
	}
	src := layer.TableSource{Size: l.desc.Size, Open: open, Block: pack.LazyBlock}
	src.Make = func(data int64) (tree.PackID, int64, error) {
		var err error
		if w, z.file, err = pack.CreateLazy(store.Packs().Dir(), data, bootID()); err != nil {
			return "", 0, err
		}
		return w.ID(), pack.LazyStart(data), nil
	}
	t, err := layer.ReadTable(ctx, *l.seek, src, layer.Limits{})
	if errors.Is(err, layer.ErrTable) || errors.Is(err, layer.ErrCorrupt) || errors.Is(err, layer.ErrTooLarge) {
		err = oci.Distrust(body, err)
	}
	if err != nil {
		return nil, err
	}
	for _, x := range t.Inline {
		if _, err := z.file.WriteAt(x.Data, x.Off); err != nil {
			return nil, err
		}
		if err := z.file.Mark(x.Off, int64(len(x.Data))); err != nil {
			return nil, err
		}
	}
	z.id, z.chunks = w.ID(), t.Chunks
	if err := w.Commit(); err != nil {
		return nil, err
	}
	if z.file, err = pack.OpenLazy(store.Packs().Dir(), z.id); err != nil {
		return nil, err
	}
	if err := z.keep(t); err != nil {
		return nil, errors.Join(err, z.file.Close())
	}
	for _, n := range t.Notes {
		z.b.warn("layer %s: %s", l.desc.Digest, n)
	}
	return t.Changes, nil
}

// keep stores index and chunks under the layer's name.
func (z *lazyLayer) keep(t *layer.Table) error {
	name := z.l.name()
	head, err := json.Marshal(lazyRecord{Pack: z.id})
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	chunks, err := layer.EncodeChunks(t.Chunks)
	if err != nil {
		return err
	}
	if err := z.b.store.PutLayer(name, t.Changes); err != nil {
		return err
	}
	value := slices.Concat(head, []byte("\n"), chunks)
	return z.b.store.PutRecord(kindLazy, string(name), cache.Record{Value: value, Layers: []tree.Digest{name}})
}

// completeLazies fetches all that is missing of the layers that were opened: for readers
// of packs that cannot ask for it, or that will read everything.
func (b *builder) completeLazies(ctx context.Context) error {
	b.lazies.mu.Lock()
	list := slices.Clone(b.lazies.list)
	b.lazies.mu.Unlock()
	for _, z := range list {
		if err := z.complete(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lazyFailure is why contents could not be had: whatever a step said about it.
func (b *builder) lazyFailure() error {
	b.lazies.mu.Lock()
	defer b.lazies.mu.Unlock()
	return b.lazies.err
}

// closeLazies ends the fetching. Nobody reads packs any more.
func (b *builder) closeLazies() error {
	var errs []error
	for _, z := range b.lazies.list {
		z.forget()
		if b.lazies.err == nil {
			errs = append(errs, z.finish())
		}
		errs = append(errs, z.file.Close())
	}
	if b.lazies.step != nil {
		b.lazies.step.Done(b.lazies.err)
	}
	return errors.Join(errs...)
}

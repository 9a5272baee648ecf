package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci"
)

// A cache repository holds results of steps as images, so that any registry can
// store them: the tag is the step's key, the one layer (none where the step
// changed nothing) is the step's, and the config carries the record under
// cacheLabel. An alias is an image without layers. Of two results under one key
// the later one stays.
//
// An entry is taken without reading its layer, which is fetched when a later step
// must see files, as a base image's is. Like a base image it is trusted to hold
// what it says (LAWS 34): digests are checked, its author is not.
const cacheLabel = "fbuild.cache.v1"

// cachePushes are the entries that are sent at once.
const cachePushes = 2

// shelf is where entries lie: a repository of a registry, or a layout.
type shelf interface {
	// get returns the image of a tag; one that is not there is oci.ErrNotFound.
	get(ctx context.Context, tag string, p v1.Platform) (*oci.Image, error)
	// has reports whether a tag is there.
	has(ctx context.Context, tag string) bool
	put(ctx context.Context, tag string, img *oci.Built) error
	String() string
}

// sharedRecord is what an entry says beside its layer.
type sharedRecord struct {
	Kind    string    `json:"kind"` // kindStep or kindAlias
	Key     Key       `json:"key"`
	Below   Key       `json:"below,omitempty"` // of a step, as in stepRecord
	Created time.Time `json:"created"`         // when the result was first made
	Ran     time.Time `json:"ran,omitzero"`    // when a RUN was last done
	Alias   Key       `json:"alias,omitempty"` // the key that an alias leads to
	Traced  *tracedBy `json:"traced,omitempty"`
}

// made is when the step was last done: storing its result later does not make that
// younger.
func (r *sharedRecord) made(stored time.Time) time.Time {
	at := r.Created
	if !r.Ran.IsZero() {
		at = r.Ran
	}
	if at.IsZero() || stored.Before(at) {
		return stored
	}
	return at
}

// cacheRepo is the cache repository of one build. A nil one holds nothing.
type cacheRepo struct {
	shelf    shelf
	ttl      time.Duration // 0 for ever
	readOnly bool
	pushing  chan struct{} // holds one token for each push under way
	// deaf and mute are set by the first failure to read and to write: an
	// unreachable registry costs one step its patience, not each.
	deaf, mute atomic.Bool
}

// CheckCacheRepo reports whether a text can be Options.CacheRepo.
func CheckCacheRepo(text string) error {
	if dir, ok := strings.CutPrefix(text, "oci:"); ok {
		if dir == "" {
			return fmt.Errorf("cache repository %q: no path", text)
		}
		return nil
	}
	_, err := oci.ParseRef(text + ":x") // a name with a tag fails
	if err != nil || strings.Contains(text, "@") {
		return fmt.Errorf("cache repository %q: want the name of a repository without a tag, or oci:PATH", text)
	}
	return nil
}

// openCacheRepo returns the cache repository that o names, nil for none.
func openCacheRepo(o *Options) (*cacheRepo, error) {
	if o.CacheRepo == "" {
		return nil, nil
	}
	if err := CheckCacheRepo(o.CacheRepo); err != nil {
		return nil, err
	}
	c := &cacheRepo{ttl: o.CacheTTL, readOnly: o.CacheReadOnly, pushing: make(chan struct{}, cachePushes)}
	if dir, ok := strings.CutPrefix(o.CacheRepo, "oci:"); ok {
		c.shelf = layoutShelf{dir}
		return c, nil
	}
	ref, err := oci.ParseRef(o.CacheRepo)
	if err != nil {
		return nil, err
	}
	c.shelf = registryShelf{strings.TrimSuffix(oci.FullName(ref), ":"+ref.Identifier()), o.Remote}
	return c, nil
}

// registryShelf is a repository of a registry.
type registryShelf struct {
	repo   string
	remote *oci.Remote
}

func (r registryShelf) String() string { return r.repo }

func (r registryShelf) get(ctx context.Context, tag string, p v1.Platform) (*oci.Image, error) {
	return r.remote.Resolve(ctx, r.repo+":"+tag, p)
}

func (r registryShelf) has(ctx context.Context, tag string) bool {
	_, err := r.remote.Head(ctx, r.repo+":"+tag)
	return err == nil
}

func (r registryShelf) put(ctx context.Context, tag string, img *oci.Built) error {
	_, err := r.remote.Push(ctx, []string{r.repo + ":" + tag}, img, nil)
	return err
}

// layoutShelf is an OCI layout, all entries in one.
type layoutShelf struct{ dir string }

func (l layoutShelf) String() string { return "oci:" + l.dir }

func (l layoutShelf) get(ctx context.Context, tag string, p v1.Platform) (*oci.Image, error) {
	return oci.OpenLayout(ctx, l.dir, tag, p)
}

func (l layoutShelf) has(ctx context.Context, tag string) bool {
	_, err := oci.OpenLayout(ctx, l.dir, tag, v1.Platform{})
	return err == nil
}

func (l layoutShelf) put(ctx context.Context, tag string, img *oci.Built) error {
	return oci.WriteLayout(ctx, l.dir, []string{"cache:" + tag}, img)
}

// find returns an entry that is what it should be. Whatever else there is, is a
// miss (LAWS 10); why is nil where there is simply none.
func (c *cacheRepo) find(ctx context.Context, kind string, key Key, p v1.Platform) (img *oci.Image, rec sharedRecord, why error) {
	img, err := c.shelf.get(ctx, string(key), p)
	if errors.Is(err, oci.ErrNotFound) {
		return nil, rec, nil
	}
	if err != nil {
		return nil, rec, err
	}
	if err := json.Unmarshal([]byte(img.Config.Config.Labels[cacheLabel]), &rec); err != nil {
		return nil, rec, fmt.Errorf("entry %s is not one of fbuild's", key)
	}
	switch {
	case rec.Kind != kind || rec.Key != key:
		return nil, rec, fmt.Errorf("entry %s is of %s %s", key, rec.Kind, rec.Key)
	case len(img.Layers) > 1 || kind == kindAlias && len(img.Layers) > 0:
		return nil, rec, fmt.Errorf("entry %s has %d layers", key, len(img.Layers))
	case kind == kindAlias && !validKey(rec.Alias), kind == kindStep && !validKey(rec.Below):
		return nil, rec, fmt.Errorf("entry %s names no key", key)
	case c.ttl > 0 && time.Since(rec.made(img.Config.Created.Time)) > c.ttl:
		return nil, rec, nil
	}
	return img, rec, nil
}

// name is the repository that has, or may have, our layers, so that a push to the
// same registry need not send them twice; "" for none.
func (c *cacheRepo) name() string {
	if c == nil || c.readOnly || c.mute.Load() {
		return ""
	}
	if r, ok := c.shelf.(registryShelf); ok {
		return r.repo
	}
	return ""
}

// validKey reports whether a text has the form of a Key.
func validKey(k Key) bool {
	return len(k) == 64 && strings.Trim(string(k), "0123456789abcdef") == ""
}

// ask asks the cache repository for an entry; every doubt is a miss, said once.
func (b *builder) ask(ctx context.Context, kind string, key Key) (*oci.Image, sharedRecord, bool) {
	c := b.repo()
	if c == nil || b.opts.NoCache || c.deaf.Load() {
		return nil, sharedRecord{}, false
	}
	img, rec, err := c.find(ctx, kind, key, b.opts.Platform)
	if err != nil && ctx.Err() == nil {
		b.warn("cache repository %s: %v: the step is done anew", c.shelf, err)
		var remote *oci.RemoteError
		if errors.As(err, &remote) && !errors.Is(err, oci.ErrInvalid) && !errors.Is(err, oci.ErrDigest) && !errors.Is(err, oci.ErrUnsupported) {
			c.deaf.Store(true)
		}
	}
	return img, rec, err == nil && img != nil
}

// repo is the cache repository, nil for none.
func (b *builder) repo() *cacheRepo {
	if b.shared == nil {
		return nil
	}
	return b.shared.repo
}

// repoAlias is alias for the cache repository.
func (b *builder) repoAlias(ctx context.Context, definition Key) (Key, bool) {
	_, rec, ok := b.ask(ctx, kindAlias, definition)
	return rec.Alias, ok
}

// repoStep is adopt for the cache repository.
func (b *builder) repoStep(ctx context.Context, key Key, below *fsState) (result, bool) {
	img, rec, ok := b.ask(ctx, kindStep, key)
	if !ok || !b.trusts(ctx, rec.Traced) {
		return result{}, false
	}
	if chain, err := below.chainID(ctx); err != nil || chain != rec.Below {
		return result{}, false
	}
	if len(img.Layers) == 0 {
		return result{created: rec.Created}, true
	}
	src := &img.Layers[0]
	l := knownLayer(src.DiffID, src.Desc, src)
	l.shared = true
	return result{layer: l, created: rec.Created}, true
}

// share sends the result of a step to the cache repository, behind the steps. A
// failure is a warning.
func (b *builder) share(key Key, below *fsState, res result) {
	b.keepStep(key, below, res)
	if l := res.layer; l != nil && l.shared {
		return // from there
	}
	b.sendShared(key, func(ctx context.Context) (sharedRecord, []oci.Layer, error) {
		rec := sharedRecord{Kind: kindStep, Key: key, Created: res.created.UTC(), Ran: res.record.Ran.UTC(), Traced: res.record.Traced}
		var err error
		if rec.Below, err = below.chainID(ctx); err != nil || res.layer == nil {
			return rec, nil, err
		}
		l := res.layer
		if err := l.wait(ctx); err != nil {
			return rec, nil, err
		}
		return rec, []oci.Layer{{Desc: l.desc, DiffID: l.diffID, Open: b.layerOpener(l, l.desc)}}, nil
	})
}

// offerAlias sends an alias to the cache repository unless it is there.
func (b *builder) offerAlias(definition, key Key) {
	b.keepRecord(kindAlias, string(definition))
	b.unlessThere(definition, func() {
		b.sendShared(definition, func(context.Context) (sharedRecord, []oci.Layer, error) {
			return sharedRecord{Kind: kindAlias, Key: definition, Alias: key, Created: time.Now().UTC()}, nil, nil
		})
	})
}

// sendShared puts an entry into the cache repository, once it is complete.
func (b *builder) sendShared(key Key, entry func(context.Context) (sharedRecord, []oci.Layer, error)) {
	c := b.repo()
	if c == nil || c.readOnly || c.mute.Load() {
		return
	}
	b.behind(func(ctx context.Context) error {
		rec, layers, err := entry(ctx)
		if err != nil {
			return nil // the layer itself reports it
		}
		select {
		case c.pushing <- struct{}{}:
			defer func() { <-c.pushing }()
		case <-ctx.Done():
			return nil
		}
		if c.mute.Load() {
			return nil
		}
		img, err := b.sharedImage(rec, layers)
		if err == nil {
			err = c.shelf.put(ctx, string(key), img)
		}
		if err != nil && ctx.Err() == nil && !c.mute.Swap(true) {
			b.warn("cache repository %s: nothing more is stored there: %v", c.shelf, err)
		}
		return nil
	})
}

// sharedImage makes the image of an entry.
func (b *builder) sharedImage(rec sharedRecord, layers []oci.Layer) (*oci.Built, error) {
	label, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode cache entry: %w", err)
	}
	now := v1.Time{Time: time.Now().UTC()} // not the epoch: it ages
	cfg := v1.ConfigFile{
		OS: b.opts.Platform.OS, Architecture: b.opts.Platform.Architecture, Variant: b.opts.Platform.Variant, Created: now,
		Config:  v1.Config{Labels: map[string]string{cacheLabel: string(label)}},
		History: []v1.History{{Created: now, CreatedBy: "fbuild", Comment: "a step's result in fbuild's cache", EmptyLayer: len(layers) == 0}},
	}
	return oci.Assemble(cfg, layers, oci.AssembleOptions{})
}

// offer sends a result that this store has to the cache repository unless it is
// there, so that another machine finds all of a build and not its last steps.
func (b *builder) offer(key Key, below *fsState, res result) {
	b.keepStep(key, below, res)
	if l := res.layer; l != nil && l.shared {
		return
	}
	b.unlessThere(key, func() { b.share(key, below, res) })
}

// unlessThere calls fn, behind the steps, if the cache repository lacks a key.
func (b *builder) unlessThere(key Key, fn func()) {
	c := b.repo()
	if c == nil || c.readOnly || c.mute.Load() {
		return
	}
	b.behind(func(ctx context.Context) error {
		if !c.shelf.has(ctx, string(key)) && ctx.Err() == nil {
			fn()
		}
		return nil
	})
}

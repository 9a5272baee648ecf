package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// PruneOptions say what may go. The zero value removes what is dangling: what
// neither a record nor an image of index.json leads to.
type PruneOptions struct {
	All   bool          // everything that no image of index.json needs
	Until time.Duration // results not used for so long; nothing used since goes
	// KeepBytes: results not used for longest, until the store takes no more than this
	// on the disk, or only what images and running processes need.
	KeepBytes int64
	// Types are the only types of things that may go, nil for all. They go whatever
	// leads to them, unless Until or KeepBytes say which.
	Types []PruneType
	// Mounts are the ids of the only cache mounts that may go, nil for all.
	Mounts []string
}

// PruneType is a type of things, as Prune tells them apart.
type PruneType string

// The types.
const (
	PruneResults  PruneType = "results"  // of steps: records, layers, blobs, packs
	PruneMounts   PruneType = "mounts"   // of RUN --mount=type=cache
	PruneContexts PruneType = "contexts" // what is known of the files of contexts
	PruneTrees    PruneType = "trees"    // directories made for recorders that need them
)

// typeOf says which type an object is of.
func typeOf(kind string) PruneType {
	switch kind {
	case objMount:
		return PruneMounts
	case objContext:
		return PruneContexts
	case objTree:
		return PruneTrees
	}
	return PruneResults
}

// may says whether the options let an object go at all.
func (p *pruning) may(key objectKey) bool {
	if p.o.Types != nil && !slices.Contains(p.o.Types, typeOf(key.kind)) {
		return false
	}
	return key.kind != objMount || p.o.Mounts == nil || slices.Contains(p.o.Mounts, mountID(p.objects[key].path))
}

// PruneReport says what went.
type PruneReport struct {
	Records, Layers, Blobs, Packs, Trees, Contexts, Mounts int

	Bytes int64 // that were given back to the disk
	Busy  int   // objects that stayed because somebody had them open
	// Leftovers are paths that this process may not remove: see Store.Leftovers.
	Leftovers []string
}

func (r *PruneReport) count(kind string, bytes int64) {
	r.Bytes += bytes
	switch kind {
	case objRecord:
		r.Records++
	case objLayer:
		r.Layers++
	case objBlob:
		r.Blobs++
	case objPack:
		r.Packs++
	case objTree:
		r.Trees++
	case objContext:
		r.Contexts++
	case objMount:
		r.Mounts++
	}
}

// Prune removes what the options allow. What a running process uses stays: all
// that is not older than the start of the oldest one and what that leads to.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	// The slow part, reading, needs no lock; under the gate only what changed
	// since is read.
	known, err := s.scan(ctx, nil)
	if err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	p := pruning{s: s, o: o}
	err = p.underGate(ctx, known)
	for _, name := range p.trash {
		err = errors.Join(err, os.Remove(name))
	}
	if err == nil {
		err = p.removeLater(ctx)
	}
	if o.All && err == nil {
		err = s.dropIndex()
	}
	p.report.Leftovers = append(p.report.Leftovers, s.sweep(ctx)...)
	layBallast(s.dir)
	if err != nil {
		return p.report, fmt.Errorf("prune: %w", err)
	}
	return p.report, nil
}

// pruning is one run of Prune.
type pruning struct {
	s       *Store
	o       PruneOptions
	trash   []string // blobs that have lost their names
	objects map[objectKey]*object
	keep    map[objectKey]bool
	kept    int64 // bytes of keep
	later   []objectKey
	report  PruneReport
}

// underGate decides what goes and takes the names by which others find things:
// records first, so that none leads to what is gone.
func (p *pruning) underGate(ctx context.Context, known map[objectKey]*object) error {
	unlock, err := p.s.gate(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if p.objects, err = p.s.scan(ctx, known); err != nil {
		return err
	}
	if err := p.mark(); err != nil {
		return err
	}
	for _, kind := range []string{objRecord, objLayer, objContext, objBlob} {
		for key, obj := range p.objects {
			if key.kind != kind || p.keep[key] {
				continue
			}
			if err := p.remove(key, obj); err != nil {
				return err
			}
		}
	}
	for key := range p.objects {
		if (key.kind == objPack || key.kind == objTree || key.kind == objMount) && !p.keep[key] {
			p.later = append(p.later, key)
		}
	}
	return nil
}

// mark fills keep.
func (p *pruning) mark() error {
	cutoff, err := p.s.oldestStart()
	if err != nil {
		return err
	}
	if until := time.Now().Add(-p.o.Until); p.o.Until > 0 && until.Before(cutoff) {
		cutoff = until
	}
	images, err := p.s.imageRefs()
	if err != nil {
		return err
	}
	p.keep = map[objectKey]bool{}
	for _, key := range images {
		p.reach(key)
	}
	var old []objectKey
	for key, obj := range p.objects {
		switch {
		case !obj.mtime.Before(cutoff), !p.may(key):
			p.reach(key)
		case key.kind == objTree, key.kind == objMount, key.kind == objContext, key.kind == objRecord && filepath.Dir(key.name) != kindTar:
			old = append(old, key)
		}
	}
	p.markOld(old)
	return nil
}

// markOld keeps of the results that nobody runs with as many as the options
// allow, those used last first.
func (p *pruning) markOld(old []objectKey) {
	limit := int64(math.MaxInt64)
	if p.o.All || p.o.Until > 0 || p.o.Types != nil {
		limit = 0
	}
	if p.o.KeepBytes > 0 {
		limit = max(0, p.o.KeepBytes-p.s.overhead())
	}
	slices.SortFunc(old, func(a, b objectKey) int {
		return cmp.Or(p.objects[b].mtime.Compare(p.objects[a].mtime), cmp.Compare(a.name, b.name))
	})
	for _, key := range old {
		if p.kept+p.cost(key, map[objectKey]bool{}) > limit {
			return
		}
		p.reach(key)
	}
}

// overhead is what the store takes beside its objects.
func (s *Store) overhead() int64 {
	sum := diskSize(s.path("index")) + diskSize(s.path("tmp"))
	for _, dir := range []string{"", "blobs", "blobs/sha256", "packs", "contexts", "trees", "mounts"} {
		if fi, err := lstat(s.path(dir)); err == nil {
			sum += fi.size
		}
	}
	_ = filepath.WalkDir(s.path("records"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if fi, err := lstat(path); err == nil {
				sum += fi.size
			}
		}
		return nil // what is gone takes no room
	})
	return sum
}

// reach keeps an object and what it leads to.
func (p *pruning) reach(key objectKey) {
	obj := p.objects[key]
	if obj == nil || p.keep[key] {
		return
	}
	p.keep[key] = true
	p.kept += p.size(key, obj)
	for _, ref := range obj.refs {
		p.reach(ref)
	}
}

// cost is what keeping an object would add to the bytes kept.
func (p *pruning) cost(key objectKey, seen map[objectKey]bool) int64 {
	obj := p.objects[key]
	if obj == nil || p.keep[key] || seen[key] {
		return 0
	}
	seen[key] = true
	sum := p.size(key, obj)
	for _, ref := range obj.refs {
		sum += p.cost(ref, seen)
	}
	return sum
}

func (p *pruning) size(key objectKey, obj *object) int64 {
	if (key.kind == objTree || key.kind == objMount) && obj.dir {
		return diskSize(obj.path)
	}
	return obj.size
}

// remove takes the name of a small object, or of a blob that nobody reads. What
// is large is only renamed here: its removal takes time.
func (p *pruning) remove(key objectKey, obj *object) error {
	if key.kind != objBlob {
		if err := ignoreNotExist(os.RemoveAll(obj.path)); err != nil {
			return err
		}
		p.report.count(key.kind, obj.size)
		return nil
	}
	f, err := lockObject(obj.path)
	if err != nil {
		return ignoreNotExist(err)
	}
	if f == nil {
		p.report.Busy++
		return nil
	}
	defer func() { _ = f.Close() }() // only held
	trash := filepath.Join(p.s.lease.dir, "trash-"+key.name)
	if err := os.Rename(obj.path, trash); err != nil {
		return err
	}
	p.trash = append(p.trash, trash)
	p.report.count(key.kind, obj.size)
	return nil
}

// removeLater removes packs and trees, which nobody finds any more but through
// their own lock: a pack by a lease on it, a tree by its flock.
func (p *pruning) removeLater(ctx context.Context) error {
	for _, key := range p.later {
		if err := ctx.Err(); err != nil {
			return err
		}
		obj := p.objects[key]
		size := p.size(key, obj)
		if key.kind != objPack {
			busy, err := p.removeDirectory(obj)
			if err != nil {
				return err
			}
			if busy {
				p.report.Busy++
			} else {
				p.report.count(key.kind, size)
			}
			continue
		}
		f, err := lockObject(obj.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case f == nil:
			p.report.Busy++
			continue
		}
		err = os.Remove(obj.path)
		_ = f.Close() // only held
		if err != nil {
			return err
		}
		p.report.count(key.kind, size)
	}
	return nil
}

// dropIndex removes the index where no process has it. The next one that needs
// it builds it again.
func (s *Store) dropIndex() error {
	unlock, err := lockFile(s.path("tmp", "locks", "index"), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(s.path("index"))
}

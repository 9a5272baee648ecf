package build

import (
	"errors"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/oci/layer"
)

// family is what the builders of one build share: there is one for each platform.
type family struct {
	workers *layer.Workers // of all layers
	sealing chan struct{}  // one entry for each layer that is being sealed

	platforms []v1.Platform // of a build for several

	mu       sync.Mutex
	contexts map[string]*future[*localContext]
	files    map[string]*future[*httpRecord] // of ADD
	gits     map[string]*future[*remoteGit]  // of ADD
	notes    map[string]bool
	ages     map[string]*future[string] // what a reference means to all platforms
	arriving map[v1.Hash]chan struct{}  // closed when a blob that was fetched has its name
	// claimed are the steps that one of several builders does, or did, although their
	// results may have been known: the others take its result. nil for a single builder.
	claimed map[Key]bool
}

func newFamily() *family {
	return &family{
		workers: layer.NewWorkers(), sealing: make(chan struct{}, parallelSeals),
		contexts: map[string]*future[*localContext]{}, files: map[string]*future[*httpRecord]{}, gits: map[string]*future[*remoteGit]{},
		notes: map[string]bool{}, arriving: map[v1.Hash]chan struct{}{}, ages: map[string]*future[string]{},
	}
}

// first says whether nobody noted the text before.
func (f *family) first(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.notes[text]
	f.notes[text] = true
	return !seen
}

// claim says whether a step was done by another builder of this build. The caller holds
// the step's lock, and does the step where it was not.
func (f *family) claim(key Key) bool {
	if f.claimed == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	done := f.claimed[key]
	f.claimed[key] = true
	return done
}

// close writes the stat caches of the contexts. Without them the next build hashes the
// files again.
func (f *family) close(b *builder) {
	f.mu.Lock()
	var errs []error
	for _, c := range f.contexts {
		select {
		case <-c.done:
			if c.err == nil && c.val != nil {
				errs = append(errs, c.val.ctx.Close())
			}
		default:
		}
	}
	f.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		b.warn("stat cache: %v", err)
	}
}

package fusefs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// layers decodes parent trees and keeps every prefix of a layer list, since the
// next step's parent is mostly this one's with a layer more.
type layers struct {
	mu    sync.Mutex
	trees map[string]loaded
}

// loaded is a tree and the packs that its layers name.
type loaded struct {
	tree  tree.Tree
	packs []tree.PackID
}

func newLayers() *layers { return &layers{trees: map[string]loaded{}} }

// load returns the tree of the layers in files, bottom first, with its packs, which it
// leases before the first extent can be read (LAWS 18).
func (l *layers) load(ctx context.Context, files []string, set *pack.Set) (loaded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, known := loaded{tree: tree.Empty()}, 0
	for i := len(files); i > 0; i-- {
		if t, ok := l.trees[strings.Join(files[:i], "\x00")]; ok {
			have, known = t, i
			break
		}
	}
	for i := known; i < len(files); i++ {
		if err := ctx.Err(); err != nil {
			return loaded{}, err
		}
		next, err := have.add(files[i])
		if err != nil {
			return loaded{}, fmt.Errorf("load layer %d: %w", i+1, err)
		}
		have = next
		l.trees[strings.Join(files[:i+1], "\x00")] = have
	}
	for _, id := range have.packs {
		if err := set.Lease(id); err != nil {
			return loaded{}, err
		}
	}
	return have, nil
}

func (l loaded) add(file string) (loaded, error) {
	t, named, err := recorder.StackLayer(l.tree, file)
	if err != nil {
		return loaded{}, err
	}
	packs := slices.Clone(l.packs)
	for _, id := range named {
		if !slices.Contains(packs, id) {
			packs = append(packs, id)
		}
	}
	return loaded{t, packs}, nil
}

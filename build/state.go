package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fbuild/fbuild/tree"
)

// fsState is the file system after a step: the one before it and one layer. Its
// tree is made when somebody looks at it, so that a build whose steps are all
// known never reads an index.
type fsState struct {
	parent *fsState // nil for the empty file system
	layer  *fsLayer

	mu     sync.Mutex
	made   bool
	tree   tree.Tree
	shaped bool
	shape  tree.Tree // as tree, but contents may be elsewhere
}

// push puts a layer on top of f. A nil layer changes nothing.
func (f *fsState) push(l *fsLayer) *fsState {
	if l == nil {
		return f
	}
	return &fsState{parent: f, layer: l}
}

// layers returns the layers, bottom first.
func (f *fsState) layers() []*fsLayer {
	var out []*fsLayer
	for ; f != nil && f.layer != nil; f = f.parent {
		out = append(out, f.layer)
	}
	slices.Reverse(out)
	return out
}

// wait returns when all layers are sealed, or with the first one that can't be.
func (f *fsState) wait(ctx context.Context) error {
	for _, l := range f.layers() {
		if err := l.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// chainID names the file system by its layers. It waits until they are sealed.
func (f *fsState) chainID(ctx context.Context) (Key, error) {
	k := newKey("chain")
	for _, l := range f.layers() {
		if err := l.wait(ctx); err != nil {
			return "", err
		}
		k.str(string(l.name()))
	}
	return k.sum(), nil
}

// sealed reports whether chainID would not have to wait.
func (f *fsState) sealed() bool {
	for _, l := range f.layers() {
		select {
		case <-l.done:
		default:
			return false
		}
	}
	return true
}

// Tree returns the file system as a value. Layers that are not here yet are
// fetched, several at once.
func (f *fsState) Tree(ctx context.Context, b *builder) (tree.Tree, error) {
	f.mu.Lock()
	made := f.made
	f.mu.Unlock()
	if !made {
		if err := b.openLayers(ctx, f.layers()); err != nil {
			return tree.Tree{}, err
		}
	}
	return f.stack(ctx, b)
}

// stack puts the layers, which are open, on top of each other.
func (f *fsState) stack(ctx context.Context, b *builder) (tree.Tree, error) {
	if f.layer == nil {
		return tree.Empty(), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made {
		return f.tree, nil
	}
	below, err := f.parent.stack(ctx, b)
	if err != nil {
		return tree.Tree{}, err
	}
	cs, err := f.layer.open(ctx, b)
	if err != nil {
		return tree.Tree{}, err
	}
	if l := f.layer; l.after != (tree.Tree{}) && l.on == below {
		f.tree = l.after
	} else if f.tree, err = below.Apply(cs); err != nil {
		return tree.Tree{}, fmt.Errorf("stack layer %s: %w", f.layer.diffID, err)
	}
	f.made = true
	return f.tree, nil
}

// Shape returns the file system for questions only: contents may be elsewhere, and
// nodes then have no extents. Only layers of which nothing is known here are fetched.
func (f *fsState) Shape(ctx context.Context, b *builder) (tree.Tree, error) {
	f.mu.Lock()
	known, t := f.made || f.shaped, f.shape
	if f.made {
		t = f.tree
	}
	f.mu.Unlock()
	if known {
		return t, nil
	}
	var missing []*fsLayer
	for _, l := range f.layers() {
		if _, ok := l.known(ctx, b); !ok {
			missing = append(missing, l)
		}
	}
	if err := b.openLayers(ctx, missing); err != nil {
		return tree.Tree{}, err
	}
	return f.outline(ctx, b)
}

// outline puts the layers, of each of which something is known, on top of each other.
func (f *fsState) outline(ctx context.Context, b *builder) (tree.Tree, error) {
	if f.layer == nil {
		return tree.Empty(), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.made:
		return f.tree, nil
	case f.shaped:
		return f.shape, nil
	}
	below, err := f.parent.outline(ctx, b)
	if err != nil {
		return tree.Tree{}, err
	}
	cs, err := f.layer.shape(ctx, b)
	if err != nil {
		return tree.Tree{}, err
	}
	if f.shape, err = below.Apply(cs); err != nil {
		return tree.Tree{}, fmt.Errorf("stack layer %s: %w", f.layer.diffID, err)
	}
	f.shaped = true
	return f.shape, nil
}

// borrowed reports whether a layer is in f of which only a shared cache says what it
// holds, or said so before the layer was read: what is found out on it is not stored
// here (LAWS 11).
func (f *fsState) borrowed() bool {
	for _, l := range f.layers() {
		l.mu.Lock()
		borrowed := l.shared && !l.loaded || l.lent
		l.mu.Unlock()
		if borrowed {
			return true
		}
	}
	return false
}

// files returns the layers as files of tree.Encode, for a recorder process.
func (f *fsState) files(ctx context.Context, b *builder) ([]string, error) {
	var out []string
	for _, l := range f.layers() {
		name, err := l.indexFile(ctx, b)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, nil
}

// writeIndex puts changes into a file of their own in the build's temporary
// directory.
func (b *builder) writeIndex(cs tree.Changes) (string, error) {
	f, err := os.CreateTemp(b.temp, "index-")
	if err != nil {
		return "", fmt.Errorf("write layer index: %w", err)
	}
	_, err = f.Write(tree.Encode(cs))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("write layer index %s: %w", filepath.Base(f.Name()), err)
	}
	return f.Name(), nil
}

package recorder

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// StackLayer is AddLayer for who wants the tree, and the packs that the layer names:
// what of it nobody looks at is not made.
func StackLayer(t tree.Tree, file string) (tree.Tree, []tree.PackID, error) {
	data, err := readString(file)
	if err != nil {
		return t, nil, fmt.Errorf("read layer index: %w", err)
	}
	next, packs, err := t.ApplyIndex(data)
	if err != nil {
		return t, nil, fmt.Errorf("read layer index %q: %w", file, err)
	}
	return next, packs, nil
}

// readString reads a file that may be large without a second copy of it.
func readString(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Grow(int(st.Size()))
	_, err = io.Copy(&b, f)
	return b.String(), err
}

// AddLayer puts a layer of Spec.Layers, a file of tree.Encode, on t, and returns what
// it changed as well.
func AddLayer(t tree.Tree, file string) (tree.Tree, tree.Changes, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return t, nil, fmt.Errorf("read layer index: %w", err)
	}
	cs, err := tree.Decode(data)
	if err == nil {
		t, err = t.Apply(cs)
	}
	if err != nil {
		return t, nil, fmt.Errorf("read layer index %q: %w", file, err)
	}
	return t, cs, nil
}

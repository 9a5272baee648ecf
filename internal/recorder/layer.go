package recorder

import (
	"fmt"
	"os"

	"github.com/fbuild/fbuild/tree"
)

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

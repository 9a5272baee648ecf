package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/snapshot"
	"github.com/fbuild/fbuild/tree"
)

const furnishChild = "furnish"

// furniture is what a directory or socket of the host gets, with the ids that exist
// inside the sandbox only.
type furniture struct {
	Path     string
	Mode     uint32
	UID, GID uint32
	Layers   []string // files of tree.Encode: the contents of a directory
	PackDir  string
}

// furnish does it from inside the sandbox.
func furnish(ctx context.Context, box *exec.Sandbox, f furniture) error {
	input, err := json.Marshal(f)
	if err == nil {
		err = runChild(ctx, box, furnishChild, input)
	}
	if err != nil {
		return fmt.Errorf("furnish %s: %w", filepath.Base(f.Path), err)
	}
	return nil
}

// furnishMain is the child: descriptor 3 says what to do.
func furnishMain() int {
	var f furniture
	err := json.NewDecoder(os.NewFile(3, "furniture")).Decode(&f)
	if err == nil {
		err = f.apply(context.Background()) //nolint:forbidigo // this is the main of a child
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (f *furniture) apply(ctx context.Context) error {
	if len(f.Layers) > 0 {
		t := tree.Empty()
		for _, name := range f.Layers {
			var err error
			if t, _, err = recorder.StackLayer(t, name); err != nil {
				return err
			}
		}
		packs := pack.NewSet(f.PackDir)
		if err := errors.Join(snapshot.Materialize(ctx, t, packs, f.Path, snapshot.MaterializeOptions{}), packs.Close()); err != nil {
			return err
		}
	}
	if err := os.Lchown(f.Path, int(f.UID), int(f.GID)); err != nil {
		return fmt.Errorf("give to %d:%d: %w", f.UID, f.GID, err)
	}
	if err := unix.Chmod(f.Path, f.Mode); err != nil {
		return fmt.Errorf("change mode: %w", err)
	}
	return nil
}

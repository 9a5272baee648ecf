package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/fusefs"
	"github.com/fbuild/fbuild/internal/tail"
	"github.com/fbuild/fbuild/snapshot"
)

const sweepChild = "sweep"

// Children are the re-exec entries of a build: of the sandbox, of the recorders,
// and of this package.
func Children() map[string]func() int {
	all := map[string]func() int{sweepChild: sweepMain, furnishChild: furnishMain, packChild: packMain, aheadChild: aheadMain}
	maps.Copy(all, exec.Children())
	maps.Copy(all, fusefs.Children())
	maps.Copy(all, snapshot.Children())
	return all
}

// Sweep removes directories that hold files of subordinate ids, which only
// somebody inside their mapping may remove: what a killed build left.
func Sweep(ctx context.Context, paths []string) error {
	box, err := exec.Open(ctx, exec.Config{})
	if err != nil {
		return err
	}
	return errors.Join(sweep(ctx, box, paths), box.Close())
}

// sweep removes paths from inside the sandbox.
func sweep(ctx context.Context, box *exec.Sandbox, paths []string) error {
	if err := runChild(ctx, box, sweepChild, []byte(strings.Join(paths, "\x00"))); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// runChild runs a re-exec entry in the sandbox, to its end, with INPUT on descriptor
// 3. What it printed is part of its error.
func runChild(ctx context.Context, box *exec.Sandbox, name string, input []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	said := &tail.Buffer{}
	p, err := box.Start(ctx, name, []*os.File{r}, said)
	if err := errors.Join(err, r.Close()); err != nil {
		return errors.Join(err, w.Close())
	}
	_, err = w.Write(input)
	err = errors.Join(err, w.Close())
	if werr := p.Wait(); werr != nil {
		// Its status is not that of a RUN's command, for which an *exec.ExitError is taken.
		err = errors.Join(err, errors.New(werr.Error()+": "+said.String()))
	}
	return err
}

// sweepMain is the child: descriptor 3 lists what to remove, apart by NUL.
func sweepMain() int {
	list, err := io.ReadAll(os.NewFile(3, "paths"))
	for p := range strings.SplitSeq(string(list), "\x00") {
		if p != "" {
			err = errors.Join(err, snapshot.RemoveAll(p))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

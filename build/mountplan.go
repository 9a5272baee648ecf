package build

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// place is something to mount, and where.
type place struct {
	target string // as written, clean, without the first slash
	dir    bool
	// quiet is a mount of our own, which is left out where the image has something
	// else on purpose.
	quiet bool
	view  *mountView // what is in it, where that is known
	mount exec.Mount // its Target comes from the plan

	at    string // where target leads, symlinks resolved
	stubs []recorder.Stub
}

// kernelDirs are where a RUN has file systems of its own.
var kernelDirs = []string{"proc", "sys", "dev"}

// errElsewhere says that the image has another kind of file at a target.
var errElsewhere = errors.New("the image has another kind of file there")

// plan resolves the targets inside the tree, parents before what lies below them,
// and returns the mounts in their order and what the tree lacks (LAWS 25). What a
// bound tree lacks is in the stubs of its place.
func plan(t tree.Tree, places []*place) (mounts []*place, stubs []recorder.Stub, err error) {
	places = slices.Clone(places)
	slices.SortStableFunc(places, func(a, b *place) int { return strings.Count(a.target, "/") - strings.Count(b.target, "/") })
	for _, pl := range places {
		over, err := pl.resolve(t, mounts)
		stub := false
		if err == nil {
			stub, err = pl.check(t, over)
		}
		if err != nil {
			if pl.quiet && errors.Is(err, errElsewhere) {
				continue
			}
			return nil, nil, &MountError{fmt.Errorf("mount /%s: %w", pl.target, err), "choose another target, or change what the image has there"}
		}
		switch {
		case stub && over == nil:
			stubs = append(stubs, recorder.Stub{Path: pl.at, Dir: pl.dir})
		case stub:
			over.stubs = append(over.stubs, recorder.Stub{Path: pl.inside(over), Dir: pl.dir})
		}
		pl.mount.Target = "/" + pl.at
		mounts = append(mounts, pl)
	}
	return mounts, stubs, nil
}

// resolve follows the symlinks of the image in the target, inside the root. It
// returns the mount that the target lies below, or nil.
func (p *place) resolve(t tree.Tree, done []*place) (over *place, err error) {
	p.at = ""
	for name := range strings.SplitSeq(p.target, "/") {
		p.at = tree.Join(p.at, name)
		if innermost(done, p.at) != nil || inKernelDir(p.at) {
			continue // the image does not show here
		}
		if p.at, _, err = t.Resolve(p.at); err != nil {
			return nil, err
		}
	}
	return innermost(done, p.at), nil
}

// innermost returns the mount that p lies below.
func innermost(done []*place, p string) *place {
	var best *place
	for _, d := range done {
		if strings.HasPrefix(p, d.at+"/") && (best == nil || len(d.at) >= len(best.at)) {
			best = d
		}
	}
	return best
}

func inKernelDir(p string) bool {
	first, _, below := strings.Cut(p, "/")
	return below && slices.Contains(kernelDirs, first)
}

// inside is the path of p in the tree of the mount that it lies below.
func (p *place) inside(over *place) string {
	return tree.Join(over.view.at, strings.TrimPrefix(p.at, over.at+"/"))
}

// check refuses targets that cannot be, and tells whether a mount point must be
// shown for p. Below mounts whose contents are not known here the sandbox makes it.
func (p *place) check(t tree.Tree, over *place) (stub bool, err error) {
	first, _, below := strings.Cut(p.at, "/")
	switch {
	case p.at == "":
		return false, fmt.Errorf("it leads to the root: %w", errElsewhere)
	case slices.Contains(kernelDirs, first) && (first != "dev" || !below):
		return false, fmt.Errorf("a RUN has a file system of its own at /%s: %w", first, errElsewhere)
	case first == "dev":
		return false, nil
	case over != nil && !over.dir:
		return false, fmt.Errorf("it lies below a file, the mount /%s", over.target)
	case over != nil && over.view == nil:
		return false, nil
	}
	at := p.at
	if over != nil {
		t, at = over.view.tree, p.inside(over)
	}
	for dir, _ := tree.Split(at); dir != ""; dir, _ = tree.Split(dir) {
		n := t.Lookup(dir)
		if n != nil && n.Kind == tree.Symlink {
			return false, fmt.Errorf("it leads through a symlink of the mount /%s", over.target)
		}
		if n != nil && n.Kind != tree.Dir {
			return false, fmt.Errorf("/%s is no directory: %w", dir, errElsewhere)
		}
	}
	n := t.Lookup(at)
	switch {
	case n == nil:
		return true, nil
	case n.Kind == tree.Symlink: // of a mount: the image's were followed
		return false, fmt.Errorf("it is a symlink of the mount /%s", over.target)
	case p.dir != (n.Kind == tree.Dir):
		want := tree.File
		if p.dir {
			want = tree.Dir
		}
		return false, fmt.Errorf("it is a %s, and what is mounted a %s: %w", kindNames[n.Kind], kindNames[want], errElsewhere)
	}
	return false, nil
}

// kindNames are kinds in words.
var kindNames = map[tree.Kind]string{
	tree.Dir: "directory", tree.File: "file", tree.Symlink: "symlink", tree.Fifo: "pipe", tree.CharDevice: "device", tree.BlockDevice: "device",
}

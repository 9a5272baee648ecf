package layer

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
	maxLinks = 40 // symlinks followed for one path, the kernel's own bound
)

// place is one path that a layer has said something about.
type place struct {
	kids   map[string]*place
	node   *tree.Node // nil for an ancestor that has no entry of its own
	linkTo string     // another name of an entry below this layer
	// hidden: the entry of the layers below is gone (a whiteout, or something
	// that is no directory stood here). opaque: what is in it is gone.
	hidden, opaque bool
}

// isDir reports whether entries can stand below p.
func (p *place) isDir() bool {
	return p.linkTo == "" && (p.node == nil || p.node.Kind == tree.Dir)
}

// index plays the entries of a tar in their order, as an unpacker would, on a
// tree that knows this layer only: the last entry for a path wins, a hard link
// takes what its target is then, and a path leads through the symlinks that the
// layer has made so far. Symlinks of lower layers are left to tree.Apply.
type index struct {
	root   place
	notes  *notes
	adding bool  // the archive of an ADD: it has no layers below and no whiteouts
	left   int64 // entries that may still come
	budget int64 // bytes of memory that the result may still take, about
	steps  int64 // names that paths may still lead through

	// The directory of the entry before, and what it was called.
	lastName string
	lastDir  *place
}

func newIndex(n *notes, lim Limits, adding bool) *index {
	return &index{notes: n, left: lim.MaxEntries, adding: adding, budget: maxIndex, steps: maxSteps}
}

// add plays one entry.
func (ix *index) add(e *entry) error {
	if ix.left--; ix.left < 0 {
		return fmt.Errorf("%w: too many entries", ErrTooLarge)
	}
	p := tree.Clean(e.name)
	skip, err := ix.checkName(p)
	if skip || err != nil {
		return err
	}
	dirName, name := tree.Split(p)
	if name == whOpaque || strings.HasPrefix(name, whPrefix) && !strings.HasPrefix(name, whMeta) {
		return ix.whiteout(p, dirName, name)
	}
	n, err := ix.node(e, p)
	if err != nil {
		return err
	}
	if n == nil && e.typ != typeLink {
		return nil
	}
	if p == "" {
		return ix.rootEntry(n)
	}
	dir, err := ix.dir(p, dirName)
	if err != nil {
		return err
	}
	if e.typ == typeLink {
		return ix.link(dir, name, p, e.link)
	}
	return ix.put(dir, name, n, "")
}

// checkName refuses names that no file system takes, and says whether the entry
// is one to leave out.
func (ix *index) checkName(p string) (skip bool, err error) {
	if len(p) > maxPath || strings.IndexByte(p, 0) >= 0 {
		return false, fmt.Errorf("%w: path of %d bytes, %.60q, is too long or has a NUL", ErrCorrupt, len(p), p)
	}
	if !strings.Contains(p, whPrefix) && len(p) <= maxName {
		return false, ix.charge(len(p) + nodeCost)
	}
	for rest, part, last := p, "", false; !last; {
		part, rest, last = cutPart(rest)
		if len(part) > maxName {
			return false, fmt.Errorf("%w: name of %d bytes, %.60q", ErrCorrupt, len(part), part)
		}
		if !strings.HasPrefix(part, whPrefix) {
			continue
		}
		if ix.adding {
			return false, fmt.Errorf("%w: %q: names that start with %q mean deletions in an image", ErrCorrupt, p, whPrefix)
		}
		if !last && !strings.HasPrefix(part, whMeta) {
			ix.notes.add("%q is left out: it stands below the name of a whiteout", p)
			return true, nil
		}
	}
	return false, ix.charge(len(p) + nodeCost)
}

func cutPart(s string) (part, rest string, last bool) {
	part, rest, found := strings.Cut(s, "/")
	return part, rest, !found
}

// charge takes n bytes off the memory that the result may take.
func (ix *index) charge(n int) error {
	if ix.budget -= int64(n); ix.budget < 0 {
		return fmt.Errorf("%w: names and attributes take more memory than %d bytes", ErrTooLarge, int64(maxIndex))
	}
	return nil
}

// rootEntry takes "./". docker and containerd pass over it, so an image whose
// tar was made of a 0700 directory still works; here as there.
func (ix *index) rootEntry(n *tree.Node) error {
	if n == nil || n.Kind != tree.Dir {
		return fmt.Errorf("%w: the root is not a directory", ErrCorrupt)
	}
	if n.Mode != 0o755 || n.UID != 0 || n.GID != 0 || n.Xattrs != nil {
		ix.notes.add("attributes of the root directory (%04o %d:%d) are ignored, as docker does", n.Mode, n.UID, n.GID)
	}
	return nil
}

// whiteout plays .wh.NAME and .wh..wh..opq: they act on lower layers only,
// wherever they stand.
func (ix *index) whiteout(p, dirName, name string) error {
	dir, _, err := ix.resolve(p, dirName, true)
	if err != nil || dir == nil {
		return err // below a file of this layer nothing is left to hide
	}
	if name == whOpaque {
		dir.opaque = true
		return nil
	}
	name = name[len(whPrefix):]
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: whiteout %q names nothing", ErrCorrupt, p)
	}
	ix.kid(dir, name).hidden = true
	return nil
}

// kid returns the place called name in p, made if need be. What it costs is
// found out at the next charge.
func (ix *index) kid(p *place, name string) *place {
	k := p.kids[name]
	if k == nil {
		k = &place{}
		if p.kids == nil {
			p.kids = map[string]*place{}
			ix.budget -= mapCost
		}
		ix.budget -= placeCost
		p.kids[name] = k
	}
	return k
}

// dir returns the place of the directory dirName, in which an entry comes.
func (ix *index) dir(p, dirName string) (*place, error) {
	if ix.lastDir != nil && ix.lastName == dirName {
		return ix.lastDir, nil
	}
	dir, _, err := ix.resolve(p, dirName, true)
	if err != nil {
		return nil, err
	}
	if dir == nil {
		return nil, fmt.Errorf("%w: %q stands below something that is no directory", ErrCorrupt, p)
	}
	ix.lastName, ix.lastDir = dirName, dir
	return dir, nil
}

// resolve follows dirName through what this layer has so far and returns its
// place and real path. Without create, a directory that the layer does not know
// gives a nil place and the path that lower layers have to resolve; something
// that is no directory gives nil and "" in both cases.
func (ix *index) resolve(p, dirName string, create bool) (*place, string, error) {
	if dirName == "" {
		return &ix.root, "", nil
	}
	places, names := []*place{&ix.root}, []string{}
	rest, follows, length := strings.Split(dirName, "/"), 0, 0
	for len(rest) > 0 {
		if ix.steps--; ix.steps < 0 {
			return nil, "", fmt.Errorf("%w: its paths lead through too many symlinks", ErrTooLarge)
		}
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if k := len(names); k > 0 {
				length -= len(names[k-1]) + 1
				places, names = places[:k], names[:k-1]
			}
			continue
		}
		cur := places[len(places)-1]
		var next *place
		if cur != nil && create {
			next = ix.kid(cur, name)
		} else if cur != nil {
			next = cur.kids[name]
		}
		if next != nil && next.node != nil && next.node.Kind == tree.Symlink {
			if follows++; follows > maxLinks {
				return nil, "", fmt.Errorf("%w: %q: too many levels of symbolic links", ErrCorrupt, p)
			}
			if strings.HasPrefix(next.node.Target, "/") {
				places, names, length = places[:1], names[:0], 0
			}
			rest = slices.Concat(strings.Split(next.node.Target, "/"), rest)
			ix.steps -= int64(len(rest))
			continue
		}
		if next != nil && !next.isDir() {
			return nil, "", nil
		}
		if length += len(name) + 1; length > maxPath {
			return nil, "", fmt.Errorf("%w: %q leads to a path that is too long", ErrCorrupt, p)
		}
		places, names = append(places, next), append(names, name)
	}
	return places[len(places)-1], strings.Join(names, "/"), nil
}

// link plays a hard link: name in dir becomes what target is now.
func (ix *index) link(dir *place, name, p, target string) error {
	clean := tree.Clean(target)
	if clean == "" {
		return fmt.Errorf("%w: %q is a hard link to no file", ErrCorrupt, p)
	}
	tdirName, tname := tree.Split(clean)
	tdir, tpath, err := ix.resolve(p, tdirName, false)
	if err != nil {
		return err
	}
	if tdir == nil && tpath == "" {
		return fmt.Errorf("%w: %q is a hard link to %q, which is below something that is no directory", ErrCorrupt, p, target)
	}
	var t *place
	if tdir != nil {
		t = tdir.kids[tname]
	}
	switch {
	case t != nil && t == dir.kids[name]:
		return nil // to itself
	case t != nil && t.node != nil && t.node.Kind == tree.Dir:
		return fmt.Errorf("%w: %q is a hard link to the directory %q", ErrCorrupt, p, target)
	case t != nil && t.node != nil:
		return ix.put(dir, name, t.node, "")
	case t != nil && t.linkTo != "":
		return ix.put(dir, name, nil, t.linkTo)
	case ix.adding:
		return fmt.Errorf("%w: %q is a hard link to %q, which is not in the archive before it", ErrCorrupt, p, target)
	case len(tpath)+1+len(tname) > maxPath:
		return fmt.Errorf("%w: %q is a hard link to a path that is too long", ErrCorrupt, p)
	}
	if err := ix.charge(len(tpath) + len(tname)); err != nil {
		return err
	}
	return ix.put(dir, name, nil, tree.Join(tpath, tname))
}

// put sets the entry called name in dir.
func (ix *index) put(dir *place, name string, n *tree.Node, linkTo string) error {
	k := dir.kids[name]
	if k == nil {
		k = ix.kid(dir, name)
	} else {
		ix.lastDir = nil // the way to it may have led through k
	}
	if n == nil || n.Kind != tree.Dir {
		k.kids, k.hidden, k.opaque = nil, true, false
	}
	k.node, k.linkTo = n, linkTo
	return nil
}

// readAll plays a whole archive to the end of its stream.
func (ix *index) readAll(a *archive) error {
	for {
		e, err := a.nextEntry()
		if err == io.EOF {
			return a.drain()
		}
		if err != nil {
			return err
		}
		if err := ix.add(e); err != nil {
			return fmt.Errorf("entry at %d of the tar: %w", e.at, err)
		}
	}
}

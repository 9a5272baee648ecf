package build

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// ErrNoSource says that a source of COPY or ADD names nothing.
var ErrNoSource = errors.New("not found")

// owner gives copied entries their owner; nil keeps the source's.
type owner struct{ uid, gid uint32 }

// copySpec is one COPY, or the local part of an ADD, ready to be applied.
type copySpec struct {
	Target string // absolute; a trailing "/" or "/." means a directory
	Owner  *owner
	// Mode changes the mode of what is copied; nil keeps it.
	Mode func(mode uint32, dir bool) uint32
	// DirMode and Now are the mode and time of directories that come into being.
	DirMode uint32
	Now     tree.Time
	// Earlier gives what is copied to a path the time that the same had there before;
	// nil for none.
	Earlier func(to string, n *tree.Node)
}

// copier applies copySpecs to a tree under edit.
type copier struct {
	spec   copySpec
	dst    watchedEditor
	copied map[*tree.Node]string         // the first copy of a hard-linked node
	placed func(n *tree.Node, to string) // told of each that is no directory; nil for none
}

func newCopier(dst *tree.Editor, spec copySpec) *copier {
	return &copier{spec: spec, dst: watchedEditor{Editor: dst}, copied: map[*tree.Node]string{}}
}

// watchedEditor is an editor that notes what an edit looks at in its parent.
type watchedEditor struct {
	*tree.Editor
	edits *trace.Edits // nil where nobody wants to know
}

func (w watchedEditor) Lookup(p string) *tree.Node {
	w.saw(p)
	return w.Editor.Lookup(p)
}

func (w watchedEditor) Put(p string, n tree.Node) error {
	w.saw(p)
	return w.Editor.Put(p, n)
}

func (w watchedEditor) Link(p, target string) error {
	w.saw(p)
	w.saw(target)
	return w.Editor.Link(p, target)
}

func (w watchedEditor) Resolve(p string) (string, *tree.Node, error) {
	w.went(p)
	return w.Editor.Resolve(p)
}

func (w watchedEditor) ResolveParent(p string) (string, *tree.Node, error) {
	w.went(p)
	return w.Editor.ResolveParent(p)
}

func (w watchedEditor) saw(p string) {
	if w.edits != nil {
		w.edits.Put(p)
	}
}

// went notes the way to p, through symlinks that the edit made as well.
func (w watchedEditor) went(p string) {
	if w.edits != nil {
		w.edits.Ask(trace.Way(w.Editor.Lookup, p)...)
	}
}

// targetIsDir says whether the text of the target demands a directory.
func (c *copier) targetIsDir() bool {
	return strings.HasSuffix(c.spec.Target, "/") || strings.HasSuffix(c.spec.Target, "/.") || c.spec.Target == "."
}

// target resolves where the copy goes, following symlinks inside the root.
func (c *copier) target() (string, *tree.Node, error) {
	return c.dst.Resolve(tree.Clean(c.spec.Target))
}

// copy puts one match into the target: the entries of a directory, or a file
// under its own name where the target is a directory.
func (c *copier) copy(src tree.Tree, m match) error {
	n := src.Lookup(m.Path)
	if n == nil {
		return fmt.Errorf("%q: %w", "/"+m.Path, ErrNoSource)
	}
	clear(c.copied) // links between sources are not kept, as in docker
	to, at, err := c.target()
	if err != nil {
		return err
	}
	if n.Kind == tree.Dir {
		if at != nil && at.Kind != tree.Dir {
			return fmt.Errorf("cannot copy to non-directory: %q", "/"+to)
		}
		// Only the entries are copied: a new directory is 0755 and the copy's.
		if m.Own && at == nil && !c.targetIsDir() {
			err = c.put(to, n.Attrs())
		} else {
			err = c.mkdirAll(to)
		}
		if err != nil {
			return err
		}
		return errors.Join(c.entries(to, n, "", m.Implied), c.setTime(to, n.Mtime))
	}
	if c.targetIsDir() || at != nil && at.Kind == tree.Dir {
		if at != nil && at.Kind != tree.Dir {
			return fmt.Errorf("cannot copy to non-directory: %q", "/"+to)
		}
		to = tree.Join(to, m.Name)
	}
	return c.file(to, n)
}

// entries copies what is in directory n into the directory at to. The entries' paths
// in the source start with rel; see match.Implied.
func (c *copier) entries(to string, n *tree.Node, rel string, implied map[string]bool) error {
	for _, name := range n.Names() {
		child, p, rel := n.Child(name), tree.Join(to, name), tree.Join(rel, name)
		if child.Kind != tree.Dir {
			if err := c.file(p, child); err != nil {
				return err
			}
			continue
		}
		at := c.dst.Lookup(p)
		if at != nil && at.Kind != tree.Dir {
			return fmt.Errorf("cannot copy to non-directory: %q", "/"+p)
		}
		var err error
		if at != nil && implied[rel] { // BuildKit gives it the source's mode, and no more
			attrs := at.Attrs()
			attrs.Mode = child.Mode
			err = c.dst.Put(p, attrs)
		} else {
			err = c.put(p, child.Attrs())
		}
		if err := errors.Join(err, c.entries(p, child, rel, implied)); err != nil {
			return err
		}
		if implied[rel] {
			continue
		}
		if err := c.setTime(p, child.Mtime); err != nil {
			return err
		}
	}
	return nil
}

// file copies anything that is no directory to exactly the path to.
func (c *copier) file(to string, n *tree.Node) error {
	if at := c.dst.Lookup(to); at != nil && at.Kind == tree.Dir {
		return fmt.Errorf("cannot overwrite directory %q with a file", "/"+to)
	}
	if c.placed != nil {
		c.placed(n, to)
	}
	if len(n.Links()) > 1 {
		if first, ok := c.copied[n]; ok && first != to {
			return c.dst.Link(to, first)
		}
		c.copied[n] = to
	}
	return c.put(to, n.Attrs())
}

// put enters one node with owner and mode changed as asked, and the directories
// above it that are missing. Where the name is new its directory's time moves on.
func (c *copier) put(to string, n tree.Node) error {
	n.Mtime = n.Mtime.Truncate()
	if c.spec.Owner != nil {
		n.UID, n.GID = c.spec.Owner.uid, c.spec.Owner.gid
	}
	if c.spec.Mode != nil && n.Kind != tree.Symlink {
		n.Mode = c.spec.Mode(n.Mode, n.Kind == tree.Dir)
	}
	if c.spec.Earlier != nil && n.Kind != tree.Dir {
		c.spec.Earlier(to, &n)
	}
	dir, _ := tree.Split(to)
	if err := c.mkdirAll(dir); err != nil {
		return err
	}
	isNew := c.dst.Lookup(to) == nil
	if err := c.dst.Put(to, n); err != nil {
		return err
	}
	if isNew {
		return c.touch(dir)
	}
	return nil
}

// mkdirAll makes the directories of p that are missing, owned as the copy.
func (c *copier) mkdirAll(p string) error {
	if p == "" || c.dst.Lookup(p) != nil {
		return nil
	}
	n := tree.Node{Kind: tree.Dir, Mode: c.spec.DirMode, Mtime: c.spec.Now}
	if c.spec.Owner != nil {
		n.UID, n.GID = c.spec.Owner.uid, c.spec.Owner.gid
	}
	dir, _ := tree.Split(p)
	if err := c.mkdirAll(dir); err != nil {
		return err
	}
	if err := c.dst.Put(p, n); err != nil {
		return err
	}
	return c.touch(dir)
}

// touch sets the time of a directory in which a name came into being.
func (c *copier) touch(dir string) error {
	if n := c.dst.Lookup(dir); n == nil || !n.Mtime.Before(c.spec.Now) {
		return nil
	}
	return c.setTime(dir, c.spec.Now)
}

// setTime gives a directory its time, when all names are in it: what is copied as a
// whole has the source's.
func (c *copier) setTime(dir string, t tree.Time) error {
	n := c.dst.Lookup(dir)
	if dir == "" || n == nil {
		return nil
	}
	attrs := n.Attrs()
	attrs.Mtime = t.Truncate()
	return c.dst.Put(dir, attrs)
}

// unpack puts the entries of an archive below the target, with their own modes, and
// their own owners unless the copy has one.
func (c *copier) unpack(cs tree.Changes) error {
	plain := *c
	plain.spec.Mode, plain.spec.DirMode = nil, 0o755
	c = &plain
	to, at, err := c.target()
	if err != nil {
		return err
	}
	if at != nil && at.Kind != tree.Dir {
		return fmt.Errorf("cannot unpack into non-directory %q", "/"+to)
	}
	if err := c.mkdirAll(to); err != nil {
		return err
	}
	times := map[string]tree.Time{} // of directories
	for i := range cs {
		if cs[i].Node == nil {
			return fmt.Errorf("unpack %q: not an entry", cs[i].Path)
		}
		if cs[i].Path == "" {
			continue
		}
		p, _, err := c.dst.ResolveParent(tree.Join(to, cs[i].Path))
		if err == nil {
			err = c.unpackEntry(p, &cs[i])
		}
		if err != nil {
			return err
		}
		if cs[i].Node.Kind == tree.Dir {
			times[p] = cs[i].Node.Mtime
		}
	}
	for p, t := range times {
		if err := c.setTime(p, t); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) unpackEntry(p string, ch *tree.Change) error {
	if at := c.dst.Lookup(p); at != nil && at.Kind == tree.Dir && ch.Node.Kind != tree.Dir {
		return fmt.Errorf("cannot overwrite directory %q with a file", "/"+p)
	}
	if ch.Node.Kind != tree.Dir {
		if first, ok := c.copied[ch.Node]; ok && first != p {
			return c.dst.Link(p, first)
		}
		c.copied[ch.Node] = p
	}
	return c.put(p, *ch.Node)
}

package buildctx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// maxFollows bounds the symlinks in one source, as the kernel does for a path.
const maxFollows = 40

// directory is a directory on the way of a scan. One that is ignored enters the tree only with the first of its entries
// that an exception takes back in.
type directory struct {
	path   string
	parent *directory // nil for the root
	node   tree.Node
	info   patternmatcher.MatchInfo
	placed bool
	top    *directory              // what the source names, above it or itself
	skip   func(below string) bool // the source's
}

// Source is something that is wanted of a context.
type Source struct {
	// Path is a name or a pattern, relative to the root.
	Path string
	// Skip says that an entry, with all that is below it, need not be looked at: by its path below the directory that Path
	// names. nil skips nothing. It is called from several goroutines.
	Skip func(below string) bool
}

// component is one part of a source; those of symlink targets are never patterns.
type component struct {
	name    string
	pattern bool
}

// Tree scans what SOURCES can match: files, directories with all that is below them, and the symlinks on the way with what
// they point to inside the root. Ignored files are absent, owners are 0:0, contents and digests are not there yet.
func (c *Context) Tree(ctx context.Context, sources []string) (tree.Tree, error) {
	list := make([]Source, len(sources))
	for i, s := range sources {
		list[i].Path = s
	}
	return c.TreeOf(ctx, list)
}

// TreeOf is Tree of sources that leave out what they need not.
func (c *Context) TreeOf(ctx context.Context, sources []Source) (tree.Tree, error) {
	s := &scan{c: c, editor: tree.Empty().Edit()}
	root, err := c.statAt(c.root, ".", "")
	if err != nil {
		return tree.Tree{}, fmt.Errorf("scan build context: %w", err)
	}
	s.root = &directory{node: root, placed: true}
	if err := s.editor.Put("", root); err != nil {
		return tree.Tree{}, fmt.Errorf("scan build context: %w", err)
	}
	for _, src := range sources {
		s.skip = src.Skip
		if err := s.want(ctx, s.root, components(src.Path), 0); err != nil {
			return tree.Tree{}, err
		}
	}
	if err := s.scanAll(ctx); err != nil {
		return tree.Tree{}, err
	}
	return s.editor.Tree(), nil
}

// components splits a source. ".." above the root stays at the root.
func components(src string) []component {
	var out []component
	for name := range strings.SplitSeq(tree.Clean(src), "/") {
		out = append(out, component{name, true})
	}
	return out
}

// want finds what REST means below DIR, puts what stands on the way into the tree and remembers whole directories.
func (s *scan) want(ctx context.Context, dir *directory, rest []component, follows int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(rest) == 0 {
		top := *dir // another source may want the same directory in another way
		top.top, top.skip = &top, s.skip
		s.whole = append(s.whole, &top)
		return nil
	}
	first, rest := rest[0], rest[1:]
	switch first.name {
	case "", ".":
		return s.want(ctx, dir, rest, follows)
	case "..":
		if dir.parent != nil {
			dir = dir.parent
		}
		return s.want(ctx, dir, rest, follows)
	}
	d, err := openBeneath(s.c.root, dir.path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return pathError("scan", dir.path, changed(err))
	}
	defer func() { _ = d.Close() }() // only read
	if !first.pattern || !hasWildcards(first.name) {
		return s.wantNamed(ctx, d, dir, first, rest, follows)
	}
	names, err := s.readNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		ok, err := path.Match(first.name, name)
		if err != nil {
			return fmt.Errorf("match source pattern %q: %w", first.name, err)
		}
		if !ok {
			continue
		}
		if err := s.entry(ctx, d, dir, name, rest, follows, true); err != nil {
			return err
		}
	}
	return nil
}

// wantNamed is want for a name. A backslash in it may be part of the name or an escape: both are looked at, the caller's
// matching decides.
func (s *scan) wantNamed(ctx context.Context, d *os.File, dir *directory, first component, rest []component, follows int) error {
	if err := s.entry(ctx, d, dir, first.name, rest, follows, false); err != nil {
		return err
	}
	if plain := unescape(first.name); first.pattern && plain != first.name {
		return s.entry(ctx, d, dir, plain, rest, follows, false)
	}
	return nil
}

// entry handles the entry NAME of DIR, below which REST is wanted.
func (s *scan) entry(ctx context.Context, d *os.File, dir *directory, name string, rest []component, follows int, matched bool) error {
	p := tree.Join(dir.path, name)
	v, err := s.c.ignore.check(p, dir.info)
	if err != nil {
		return err
	}
	if v.ignored && !v.descend {
		return nil
	}
	n, err := s.stat(d, name, p, v.ignored)
	if errors.Is(err, errSkip) {
		return nil
	}
	if err != nil {
		return err
	}
	if n.Kind == tree.Dir {
		child := &directory{path: p, parent: dir, node: n, info: v.info}
		if !v.ignored {
			if err := s.place(child); err != nil {
				return err
			}
		}
		return s.want(ctx, child, rest, follows)
	}
	if v.ignored || matched && len(rest) > 0 {
		return nil // a pattern does not reach through a symlinked directory, as in docker
	}
	if err := s.put(dir, p, n); err != nil {
		return err
	}
	if n.Kind != tree.Symlink || follows >= maxFollows {
		return nil
	}
	if strings.HasPrefix(n.Target, "/") {
		dir = s.root
	}
	var way []component
	for name := range strings.SplitSeq(n.Target, "/") {
		way = append(way, component{name: name})
	}
	return s.want(ctx, dir, append(way, rest...), follows+1)
}

// stat is statAt, where an entry that is ignored counts only as a directory: what else it is does not matter.
func (s *scan) stat(d *os.File, name, p string, ignored bool) (tree.Node, error) {
	if ignored {
		var st unix.Stat_t
		err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || strings.HasPrefix(name, ".wh.") {
			return tree.Node{}, errSkip
		}
	}
	return s.c.statAt(d, name, p)
}

// readNames lists a directory in order.
func (s *scan) readNames(dir *directory) ([]string, error) {
	d, err := openBeneath(s.c.root, dir.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, pathError("read directory", dir.path, changed(err))
	}
	defer func() { _ = d.Close() }() // only read
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, pathError("read directory", dir.path, err)
	}
	slices.Sort(names)
	return names, nil
}

// changed turns the errors that a swapped directory gives into ErrChanged.
func changed(err error) error {
	for _, e := range []error{unix.ELOOP, unix.ENOTDIR, unix.ENOENT, unix.EXDEV} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w (%w)", ErrChanged, err)
		}
	}
	return err
}

// hasWildcards reports whether a component of a source is a pattern.
func hasWildcards(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// unescape removes the backslashes of a component that is no pattern.
func unescape(name string) string {
	if !strings.Contains(name, `\`) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+1 < len(name) {
			i++
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

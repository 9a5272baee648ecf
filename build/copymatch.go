package build

import (
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"

	"github.com/fbuild/fbuild/tree"
)

// match is one entry that a source names.
type match struct {
	Path string // where it stands, symlinks resolved
	Name string // the last name as the source spelled it
	// Implied are the directories, relative to Path, that are copied only because
	// of what is below them: where there is such a directory, it stays its owner's.
	Implied map[string]bool
	// Own says that a directory is copied with its own attributes where the target
	// is new, and not only its entries.
	Own bool
}

// matchSource finds what a source names in src. Symlinks that it names are
// followed inside the root, as docker does. A pattern may match nothing; a plain
// name that is missing is ErrNoSource.
func matchSource(src tree.Tree, s string) ([]match, error) {
	if hasWildcard(s) {
		return matchPattern(src, s)
	}
	at, n, err := src.Resolve(tree.Clean(s))
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("%q: %w", "/"+tree.Clean(s), ErrNoSource)
	}
	return []match{{Path: at, Name: path.Base("/" + tree.Clean(s))}}, nil
}

// matchPattern matches each component of s for itself: "*" never crosses a slash.
// What stands before the first wildcard must be there, as in BuildKit.
func matchPattern(src tree.Tree, s string) ([]match, error) {
	parts, fixed := strings.Split(tree.Clean(s), "/"), ""
	for len(parts) > 1 && !hasWildcard(parts[0]) {
		fixed, parts = tree.Join(fixed, parts[0]), parts[1:]
	}
	at, n, err := src.Resolve(fixed)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("%q: %w", "/"+fixed, ErrNoSource)
	}
	found := []match{{Path: at}}
	for _, part := range parts {
		var next []match
		for _, m := range found {
			dirPath, dir, err := src.Resolve(m.Path)
			if err != nil {
				return nil, err
			}
			if dir == nil || dir.Kind != tree.Dir {
				continue
			}
			for _, name := range dir.Names() {
				ok, err := path.Match(part, name)
				if err != nil {
					return nil, fmt.Errorf("pattern %q: %w", s, err)
				}
				if ok {
					next = append(next, match{Path: tree.Join(dirPath, name), Name: name})
				}
			}
		}
		found = next
	}
	for i := range found {
		at, n, err := src.Resolve(found[i].Path)
		if err != nil {
			return nil, err
		}
		if n != nil {
			found[i].Path = at
		}
	}
	return found, nil
}

// hasWildcard says whether s is a pattern of path.Match.
func hasWildcard(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// splitPivot cuts a source of COPY --parents in two: the directory where to look,
// and the pattern of what to take there, which keeps its directories. "/./" parts
// them; without one everything keeps its place.
func splitPivot(src string) (dir, pattern string) {
	dir, pattern, ok := strings.Cut(src, "/./")
	if !ok {
		dir, pattern = "", src
	}
	return tree.Clean(dir), tree.Clean(pattern)
}

// scanSource is a source for buildctx that covers one of COPY --parents: its
// components up to the first that may stand for several.
func scanSource(src string) string {
	dir, pattern := splitPivot(src)
	for part := range strings.SplitSeq(pattern, "/") {
		if strings.Contains(part, "**") || strings.ContainsAny(part, `\!`) {
			break
		}
		dir = path.Join(dir, part)
	}
	return "/" + dir
}

// filter chooses among the entries below a directory, by their paths in it, with
// the patterns of .dockerignore.
type filter struct {
	include, exclude *patternmatcher.PatternMatcher
}

// newFilter makes a filter of what is to be taken ("" is everything) and left out.
func newFilter(include string, exclude []string) (f filter, err error) {
	if include != "" {
		if f.include, err = patternmatcher.New([]string{include}); err != nil {
			return f, fmt.Errorf("pattern %q: %w", include, err)
		}
	}
	if len(exclude) > 0 {
		if f.exclude, err = patternmatcher.New(exclude); err != nil {
			return f, fmt.Errorf("--exclude %q: %w", exclude, err)
		}
	}
	return f, nil
}

// excludes says whether a file that a source names itself is left out.
func (f filter) excludes(name string) (bool, error) {
	if f.exclude == nil {
		return false, nil
	}
	out, err := f.exclude.MatchesOrParentMatches(name)
	if err != nil {
		return false, fmt.Errorf("--exclude: %w", err)
	}
	return out, nil
}

// skipExcluded is a buildctx.Source's Skip: what is left out is not even listed. It is
// nil where patterns may take something back.
func skipExcluded(patterns []string) (func(below string) bool, error) {
	f, err := newFilter("", patterns)
	if err != nil || f.exclude == nil || f.exclude.Exclusions() {
		return nil, err
	}
	var mu sync.Mutex // the matcher compiles patterns when it first needs them
	return func(below string) bool {
		mu.Lock()
		defer mu.Unlock()
		out, err := f.excludes(below)
		return out && err == nil // an error comes again, to where it is told
	}, nil
}

// below are the patterns' answers for a directory, which go on for its entries.
type below struct{ include, exclude patternmatcher.MatchInfo }

// wants decides about one path, whose directory had the answers up.
func (f filter) wants(rel string, up below) (in, out bool, now below, err error) {
	in = f.include == nil
	if f.include != nil {
		if in, now.include, err = f.include.MatchesUsingParentResults(rel, up.include); err != nil {
			return false, false, now, fmt.Errorf("match %q: %w", rel, err)
		}
	}
	if f.exclude != nil {
		if out, now.exclude, err = f.exclude.MatchesUsingParentResults(rel, up.exclude); err != nil {
			return false, false, now, fmt.Errorf("--exclude: match %q: %w", rel, err)
		}
	}
	return in && !out, out, now, nil
}

// apply returns t with only those entries of the directory at root that the filter
// wants, and the directories on the way to them.
func (f filter) apply(t tree.Tree, root string) (tree.Tree, map[string]bool, error) {
	implied := map[string]bool{}
	_, drops, err := f.dir(t.Lookup(root), "", below{}, implied)
	if err != nil || len(drops) == 0 {
		return t, implied, err
	}
	e := t.Edit()
	for _, rel := range drops {
		if err := e.Remove(path.Join(root, rel)); err != nil {
			return t, nil, err
		}
	}
	return e.Tree(), implied, nil
}

// dir says whether anything in directory n is wanted, and what is not.
func (f filter) dir(n *tree.Node, rel string, up below, implied map[string]bool) (kept bool, drops []string, err error) {
	for _, name := range n.Names() {
		child, p := n.Child(name), tree.Join(rel, name)
		wanted, excluded, now, err := f.wants(p, up)
		if err != nil {
			return false, nil, err
		}
		// Nothing below an excluded directory comes back but by a "!" pattern.
		if child.Kind == tree.Dir && (!excluded || f.exclude.Exclusions()) {
			inside, more, err := f.dir(child, p, now, implied)
			if err != nil {
				return false, nil, err
			}
			if inside && !wanted {
				implied[p], wanted = true, true
			}
			if wanted {
				drops = append(drops, more...)
			}
		}
		if wanted {
			kept = true
		} else {
			drops = append(drops, p)
		}
	}
	return kept, drops, nil
}

package build

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// PathChange is what became of one path between two file systems, in words.
type PathChange struct {
	Mount int    // 0 is the stage's file system, n the n-th bind mount of the step
	Path  string // without a leading slash; "" is the root
	What  string // "new", "gone", "content", "size 12 -> 13, mode 644 -> 755", ...
}

// Where shows the place as people write it.
func (c PathChange) Where() string { return QuestionPath(trace.Question{Root: c.Mount, Path: c.Path}) }

// Changed are a step's differences, one for each path, and how many there are where
// only the first were kept.
func (s *StepReport) Changed() (out []PathChange, total int) {
	for i := 0; i < len(s.Differences); {
		j := i + 1
		for j < len(s.Differences) && s.Differences[j].Root == s.Differences[i].Root && s.Differences[j].Path == s.Differences[i].Path {
			j++
		}
		d := s.Differences[i]
		out = append(out, PathChange{d.Root, d.Path, differenceWords(s.Differences[i:j])})
		i = j
	}
	return out, len(out) + max(0, s.Total-len(s.Differences))
}

// Headline is the change to name where there is room for one: of a file, rather than of
// the directory that lists it.
func Headline(list []PathChange) PathChange {
	best, rank := PathChange{}, 3
	for _, c := range list {
		r := 2
		switch {
		case strings.HasPrefix(c.What, "content"):
			r = 0
		case !strings.HasPrefix(c.What, "names in it"):
			r = 1
		}
		if r < rank {
			best, rank = c, r
		}
	}
	return best
}

// differenceWords says in words what the answers about one path say.
func differenceWords(list []trace.Difference) string {
	var words []string
	for _, d := range list {
		switch {
		case d.Was == answerAbsent:
			return "new"
		case d.Is == answerAbsent:
			return "gone"
		case d.Kind == trace.Entry:
			words = append(words, entryWords(d.Was, d.Is)...)
		case d.Kind == trace.List:
			words = append(words, countWords(d.Was, d.Is, "names in it"))
		case d.Kind == trace.Content:
			words = append(words, "content")
		case d.Kind == trace.Link:
			words = append(words, fmt.Sprintf("target %s -> %s", strings.TrimPrefix(d.Was, "-> "), strings.TrimPrefix(d.Is, "-> ")))
		case d.Kind == trace.Xattr:
			words = append(words, "extended attributes")
		case d.Kind == trace.Names:
			words = append(words, countWords(d.Was, d.Is, "hard links"))
		}
	}
	slices.Sort(words) // content comes first
	return strings.Join(slices.Compact(words), ", ")
}

// answerAbsent is trace.Answer's for what is not there.
const answerAbsent = "absent"

// countWords reads answers of the form "COUNT DIGEST".
func countWords(was, is, what string) string {
	was, _, _ = strings.Cut(was, " ")
	is, _, _ = strings.Cut(is, " ")
	if was == is {
		return what
	}
	return fmt.Sprintf("%s %s -> %s", what, was, is)
}

// entryWords compares two answers of the form "KIND MODE UID:GID LINKS SIZE ...", whose
// last two directories lack.
func entryWords(was, is string) []string {
	a, b := strings.Fields(was), strings.Fields(is)
	names := []string{"kind", "mode", "owner", "hard links", "size"}
	var out []string
	for i, name := range names {
		if i >= len(a) || i >= len(b) {
			break
		}
		if a[i] == b[i] {
			continue
		}
		if name == "kind" { // the other fields have other meanings
			return []string{fmt.Sprintf("kind %s -> %s", kindWords[a[i]], kindWords[b[i]])}
		}
		out = append(out, fmt.Sprintf("%s %s -> %s", name, a[i], b[i]))
	}
	if len(out) == 0 {
		out = append(out, "entry")
	}
	return out
}

// layerChanges says what the layer now holds otherwise than the one before, of the same
// step: what a COPY copies that it did not, or that had other contents.
func layerChanges(before, now tree.Changes) []PathChange {
	var out []PathChange
	for old, c := range pairs(before, now) {
		switch {
		case c == nil && old.Node != nil:
			out = append(out, PathChange{Path: old.Path, What: "gone"})
		case c == nil:
		default:
			if what := changeWords(old, c); what != "" {
				out = append(out, PathChange{Path: c.Path, What: what})
			}
		}
	}
	return out
}

func changeWords(old, c *tree.Change) string {
	switch {
	case c.Node == nil:
		if old == nil || old.Node != nil {
			return "gone"
		}
		return ""
	case old == nil || old.Node == nil:
		return "new"
	}
	a, b := old.Node, c.Node
	var words []string
	if a.Kind != b.Kind {
		return fmt.Sprintf("kind %s -> %s", KindWord(a.Kind), KindWord(b.Kind))
	}
	if a.Kind == tree.File && (a.Size != b.Size || a.Digest != b.Digest) {
		words = append(words, "content")
	}
	if a.Size != b.Size && a.Kind == tree.File {
		words = append(words, fmt.Sprintf("size %d -> %d", a.Size, b.Size))
	}
	if a.Mode != b.Mode {
		words = append(words, fmt.Sprintf("mode %o -> %o", a.Mode, b.Mode))
	}
	if a.UID != b.UID || a.GID != b.GID {
		words = append(words, fmt.Sprintf("owner %d:%d -> %d:%d", a.UID, a.GID, b.UID, b.GID))
	}
	if a.Target != b.Target {
		words = append(words, fmt.Sprintf("target %s -> %s", a.Target, b.Target))
	}
	return strings.Join(words, ", ")
}

// KindWord says what an entry is.
func KindWord(k tree.Kind) string { return kindWords[k.String()] }

// kindWords are the words for the letters of tree.Kind.
var kindWords = map[string]string{
	"d": "directory", "-": "file", "l": "symlink", "p": "fifo", "c": "device", "b": "device", "?": "nothing",
}

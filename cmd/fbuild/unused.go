package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/cache"
)

// listedUnused is how many lines --unused prints without --all.
const listedUnused = 30

// explainUnused does `fbuild explain --unused`.
func (a *app) explainUnused(ctx context.Context, s *cache.Store, f *explainFlags, last *build.Report) error {
	platform, err := onePlatform(nil)
	if err != nil {
		return err
	}
	u, err := build.FindUnused(ctx, s, last, platform)
	if errors.Is(err, build.ErrStale) {
		return &hintError{err, "build it first: fbuild build " + last.Setup.Context}
	}
	if err != nil {
		return err
	}
	if f.format == "json" {
		return writeIndented(a.stdout, unusedJSON(last, u))
	}
	_, err = fmt.Fprint(a.stdout, printable(unusedText(last, u, f.all)))
	return err
}

// sumOf counts the files of one kind.
func sumOf(u *build.Unused, how ...string) (n int, bytes int64) {
	for _, f := range u.Files {
		for _, h := range how {
			if f.How == h {
				n++
				bytes += f.Size
			}
		}
	}
	return n, bytes
}

func unusedText(last *build.Report, u *build.Unused, all bool) string {
	var b strings.Builder
	n, bytes := sumOf(u, build.UnusedNotCopied, build.UnusedNotRead)
	fmt.Fprintf(&b, "%s: %s, %s in the context; %s, %s of them no step looked at and no image has\n",
		last.Setup.Context, counted(len(u.All), "file", "files"), bytesOf(u.Bytes), counted(n, "file", "files"), bytesOf(bytes))
	list := u.Patterns()
	if all {
		list = nil
		for _, f := range u.Files {
			if f.How != build.UnusedShipped {
				list = append(list, f)
			}
		}
	}
	cut := list
	if !all {
		cut = list[:min(len(list), listedUnused)]
	}
	for i, f := range cut {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%10s  %-40s  %s\n", bytesOf(f.Size), f.Path, f.How)
	}
	if more := len(list) - len(cut); more > 0 {
		fmt.Fprintf(&b, "            and %d more (--all lists every file)\n", more)
	}
	if len(list) > 0 {
		fmt.Fprintf(&b, "\nThe names can be lines of a .dockerignore.\n")
	}
	if n, bytes := sumOf(u, build.UnusedShipped); n > 0 {
		fmt.Fprintf(&b, "\nIn the image, though no step looked at them: %s, %s", counted(n, "file", "files"), bytesOf(bytes))
		if !all {
			b.WriteString(" (--all lists them)")
		}
		b.WriteString("\n")
		for _, f := range u.Files {
			if all && f.How == build.UnusedShipped {
				fmt.Fprintf(&b, "%10s  %s\n", bytesOf(f.Size), f.Path)
			}
		}
	}
	for _, s := range u.Blind {
		fmt.Fprintf(&b, "\n%s has no trace: all that it could see counts as looked at\n", last.Label(s))
	}
	return b.String()
}

// jsonUnused is the JSON of `fbuild explain --unused`.
type jsonUnused struct {
	Context  string           `json:"context"`
	Files    int              `json:"files"`
	Bytes    int64            `json:"bytes"`
	Unused   []jsonUnusedFile `json:"unused"`
	Patterns []string         `json:"patterns"` // for a .dockerignore
	NoTrace  []string         `json:"noTrace,omitempty"`
}

type jsonUnusedFile struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	How   string `json:"how"` // not copied, not read, shipped
}

func unusedJSON(last *build.Report, u *build.Unused) jsonUnused {
	out := jsonUnused{Context: last.Setup.Context, Files: len(u.All), Bytes: u.Bytes, Unused: []jsonUnusedFile{}, Patterns: []string{}}
	for _, f := range u.Files {
		out.Unused = append(out.Unused, jsonUnusedFile{f.Path, f.Size, f.How})
	}
	for _, f := range u.Patterns() {
		out.Patterns = append(out.Patterns, f.Path)
	}
	for _, s := range u.Blind {
		out.NoTrace = append(out.NoTrace, last.Label(s))
	}
	return out
}

package buildctx

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// ignorer decides what .dockerignore leaves out, with docker's own matcher.
type ignorer struct {
	mu         sync.Mutex // the matcher compiles patterns when it first needs them
	matcher    *patternmatcher.PatternMatcher
	exceptions [][]string // the fixed leading components of every pattern with "!"
}

// verdict is what the ignore file says of one path.
type verdict struct {
	ignored bool
	descend bool                     // ignored, but something below may not be
	info    patternmatcher.MatchInfo // for the entries of a directory
}

// parseIgnore reads an ignore file and refuses patterns that would fail later.
func parseIgnore(name string, data []byte) (*ignorer, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	for _, p := range patterns {
		one, err := patternmatcher.New([]string{p})
		if err == nil && len(one.Patterns()) == 1 && one.Patterns()[0].Exclusion() {
			one, err = patternmatcher.New([]string{one.Patterns()[0].String()})
		}
		if err == nil {
			_, err = one.MatchesOrParentMatches("x")
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: pattern %q: %w", name, p, err)
		}
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	g := &ignorer{matcher: m}
	for _, p := range m.Patterns() {
		if p.Exclusion() {
			g.exceptions = append(g.exceptions, fixedComponents(p.String()))
		}
	}
	return g, nil
}

// fixedComponents returns the components of PATTERN before the first that is no plain name.
func fixedComponents(pattern string) []string {
	parts := strings.Split(pattern, "/")
	for i, p := range parts {
		if strings.ContainsAny(p, `*?[]\^`) {
			return parts[:i]
		}
	}
	return parts
}

// check asks about path P, whose parent directory gave PARENT.
func (g *ignorer) check(p string, parent patternmatcher.MatchInfo) (verdict, error) {
	if len(g.matcher.Patterns()) == 0 {
		return verdict{}, nil
	}
	g.mu.Lock()
	ignored, info, err := g.matcher.MatchesUsingParentResults(p, parent)
	g.mu.Unlock()
	if err != nil {
		return verdict{}, fmt.Errorf("match %q against the ignore file: %w", p, err)
	}
	return verdict{ignored: ignored, descend: ignored && g.mayReinclude(p), info: info}, nil
}

// mayReinclude reports whether an exception could match something below DIR.
func (g *ignorer) mayReinclude(dir string) bool {
	if len(g.exceptions) == 0 {
		return false
	}
	parts := strings.Split(dir, "/")
	for _, fixed := range g.exceptions {
		n := min(len(parts), len(fixed))
		if strings.Join(parts[:n], "/") == strings.Join(fixed[:n], "/") {
			return true
		}
	}
	return false
}

// Excluder returns what tells whether an ignore file leaves a path out of the context.
func Excluder(data []byte) (func(p string) (bool, error), error) {
	g, err := parseIgnore("ignore file", data)
	if err != nil {
		return nil, err
	}
	return func(p string) (bool, error) {
		if len(g.matcher.Patterns()) == 0 {
			return false, nil
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.matcher.MatchesOrParentMatches(p)
	}, nil
}

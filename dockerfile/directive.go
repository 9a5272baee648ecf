package dockerfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// A comment "# fbuild: ..." above an instruction is for fbuild; other builders see a comment.
const (
	directivePrefix = "fbuild:"
	// cacheExact, above a RUN, turns its trace off: the step is reused when nothing below it changed, and only then.
	cacheExact = "cache=exact"
)

// ruleDirective reports a directive that does nothing.
var ruleDirective = linter.LinterRule[func(directive, reason string) string]{
	Name:        "FbuildDirective",
	Description: "A comment that begins with fbuild: should be a directive of fbuild, above an instruction that it is for",
	Format: func(directive, reason string) string {
		return fmt.Sprintf("Directive '# %s %s' has no effect: %s", directivePrefix, directive, reason)
	},
}

// directives are those among the comments above an instruction.
func directives(comments []string) []string {
	var found []string
	for _, c := range comments {
		if d, ok := strings.CutPrefix(strings.TrimLeft(c, "# \t"), directivePrefix); ok {
			found = append(found, strings.TrimSpace(d))
		}
	}
	return found
}

func exact(comments []string) bool { return slices.Contains(directives(comments), cacheExact) }

// lintDirectives reports what nobody will heed.
func (f *File) lintDirectives(stages []instructions.Stage, l *lint) {
	visit := func(name string, m *meta) {
		for _, d := range directives(m.comments) {
			switch {
			case d != cacheExact:
				l.run(&ruleDirective, m, ruleDirective.Format(d, "the one that there is is "+cacheExact))
			case !strings.EqualFold(name, "RUN"):
				l.run(&ruleDirective, m, ruleDirective.Format(d, "it stands above a RUN, not above "+strings.ToUpper(name)))
			}
		}
	}
	for i := range stages {
		visit("FROM", &meta{loc: locationOf(stages[i].Location), comments: stages[i].Comments})
		for _, c := range stages[i].Commands {
			visit(c.Name(), &meta{loc: locationOf(c.Location()), comments: c.Comments()})
		}
	}
}

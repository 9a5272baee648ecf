package dockerfile

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Warning is something that docker's linter would say.
type Warning struct {
	Rule        string // "StageNameCasing"
	Text        string // about this place
	Description string // about the rule
	URL         string
	Line        int // 0 where it belongs to no line
}

// String is the line that docker prints: "Rule: text (line 3)".
func (w Warning) String() string { return linter.LintFormatShort(w.Rule, w.Text, w.Line) }

// lint collects warnings under the options of a check directive.
type lint struct {
	*linter.Linter
	warnings []Warning
}

func newLint(cfg linter.Config) *lint {
	l := &lint{}
	cfg.Warn = l.add
	l.Linter = linter.New(&cfg)
	return l
}

func (l *lint) add(rule, description, url, text string, at []parser.Range) {
	w := Warning{Rule: rule, Text: text, Description: description, URL: url}
	if len(at) > 0 {
		w.Line = at[0].Start.Line
	}
	l.warnings = append(l.warnings, w)
}

// run reports RULE at LOC unless the comments above the instruction switch it off.
func (l *lint) run(rule linter.LinterRuleI, m *meta, text string) {
	l.WithMergedConfigFromComments(m.comments).Run(rule, m.loc.ranges(), text)
}

func (l Location) ranges() []parser.Range {
	return []parser.Range{{Start: parser.Position{Line: l.Start}, End: parser.Position{Line: l.End}}}
}

func locationOf(ranges []parser.Range) Location {
	if len(ranges) == 0 {
		return Location{}
	}
	loc := Location{Start: ranges[0].Start.Line, End: ranges[0].End.Line}
	for _, r := range ranges[1:] {
		loc.Start = min(loc.Start, r.Start.Line)
		loc.End = max(loc.End, r.End.Line)
	}
	return loc
}

// Report joins the file's warnings with those of the scopes that were evaluated, by line. It is an error, a *ParseError,
// to have any where the file says "# check=error=true".
func (f *File) Report(scopes ...*Scope) ([]Warning, error) {
	all := slices.Clone(f.Warnings)
	for _, s := range scopes {
		all = append(all, s.lint.warnings...)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Line < all[j].Line })
	all = slices.Compact(all)
	if !f.check.ReturnAsError || len(all) == 0 {
		return all, nil
	}
	var rules []string
	for _, w := range all {
		if !slices.Contains(rules, w.Rule) {
			rules = append(rules, w.Rule)
		}
	}
	return all, &ParseError{
		Name: f.Name, Line: all[0].Line, EndLine: all[0].Line,
		Err:  fmt.Errorf("lint violation found for rules: %s", strings.Join(rules, ", ")),
		Hint: "the file asks for this with # check=error=true",
	}
}

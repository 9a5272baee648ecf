package dockerfile

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
)

func nearest(name string, options []string) string {
	if len(options) > 1000 {
		return "" // the search costs the product of all names
	}
	match, _ := suggest.Search(name, options, true)
	return match
}

func (m *meta) head() *meta { return m }

// once reports the earlier of two instructions of which only the last counts.
func (s *Scope) once(last **meta, m *meta) {
	if *last != nil {
		s.lint.run(&linter.RuleMultipleInstructionsDisallowed, *last, linter.RuleMultipleInstructionsDisallowed.Format(m.name))
	}
	*last = m
}

func (s *Scope) lintLegacy(m *meta, legacy bool) {
	if legacy {
		s.lint.run(&linter.RuleLegacyKeyValueFormat, m, linter.RuleLegacyKeyValueFormat.Format(m.name))
	}
}

var (
	secretName  = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName  = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
	imageName   = regexp.MustCompile(`^(?:[A-Za-z0-9.\-\[\]:]+/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?$`)
	reservedFor = []string{"context", Scratch}
)

func (s *Scope) lintSecret(m *meta, instruction, key string) {
	if secretName.MatchString(key) && !publicName.MatchString(key) {
		s.lint.run(&linter.RuleSecretsUsedInArgOrEnv, m, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

func (f *File) lintNames(stages []instructions.Stage, l *lint) {
	seen := map[string]bool{}
	for i := range stages {
		st := &stages[i]
		if st.Name == "" {
			continue
		}
		if slices.Contains(reservedFor, st.Name) {
			l.Run(&linter.RuleReservedStageName, st.Location, linter.RuleReservedStageName.Format(st.Name))
		}
		if seen[st.Name] {
			l.Run(&linter.RuleDuplicateStageName, st.Location, linter.RuleDuplicateStageName.Format(st.Name))
		}
		seen[st.Name] = true
	}
}

// lintCasing reports keywords that are not spelled like most of the file's.
func (f *File) lintCasing(stages []instructions.Stage, l *lint) {
	lower, upper := 0, 0
	each := func(visit func(name string, m *meta)) {
		for i := range stages {
			visit(stages[i].OrigCmd, &meta{loc: locationOf(stages[i].Location)})
			for _, c := range stages[i].Commands {
				visit(c.Name(), &meta{loc: locationOf(c.Location())})
			}
		}
	}
	each(func(name string, _ *meta) {
		switch name {
		case strings.ToLower(name):
			lower++
		case strings.ToUpper(name):
			upper++
		}
	})
	want, right := "uppercase", strings.ToUpper
	if lower > upper {
		want, right = "lowercase", strings.ToLower
	}
	each(func(name string, m *meta) {
		if right(name) != name {
			l.run(&linter.RuleConsistentInstructionCasing, m, linter.RuleConsistentInstructionCasing.Format(name, want))
		}
	})
}

func (f *File) lintUnmatchedFrom(unmatched map[string]struct{}, m *meta, l *lint) {
	for _, k := range slices.Sorted(maps.Keys(unmatched)) {
		if !f.declared[k] {
			l.run(&linter.RuleUndefinedArgInFrom, m, linter.RuleUndefinedArgInFrom.Format(k, nearest(k, f.global.Keys())))
		}
	}
}

func (f *File) lintPlatform(in *instructions.Stage, res shell.ProcessWordResult, p platform, m *meta, l *lint) {
	if len(res.Matched) == 0 && len(res.Unmatched) == 0 {
		if !strings.Contains(in.Name, p.os) && !strings.Contains(in.Name, p.arch) {
			l.run(&linter.RuleFromPlatformFlagConstDisallowed, m, linter.RuleFromPlatformFlagConstDisallowed.Format(res.Result))
		}
		return
	}
	if _, ok := res.Matched["TARGETPLATFORM"]; ok && len(res.Matched) == 1 && len(res.Unmatched) == 0 {
		if v, _ := f.global.Get("TARGETPLATFORM"); v == res.Result {
			l.run(&linter.RuleRedundantTargetPlatform, m, linter.RuleRedundantTargetPlatform.Format(in.Platform))
		}
	}
}

// lintDefaultBases reports bases that are no image's name when no --build-arg is given.
func (f *File) lintDefaultBases(stages []instructions.Stage, metaArgs []instructions.ArgCommand, defaults *env, lex *shell.Lex, l *lint) {
	e, err := f.metaArgs(metaArgs, defaults, lex, nil)
	if err != nil {
		return // the real evaluation will say so
	}
	for i := range stages {
		res, err := expand(lex, stages[i].BaseName, e)
		if err == nil && !imageName.MatchString(res.Result) {
			l.Run(&linter.RuleInvalidDefaultArgInFrom, stages[i].Location, linter.RuleInvalidDefaultArgInFrom.Format(stages[i].BaseName))
		}
	}
}

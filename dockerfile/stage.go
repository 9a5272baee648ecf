package dockerfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Scratch is the base name that means an empty image.
const Scratch = "scratch"

// Stage is one FROM and what follows it.
type Stage struct {
	Index        int
	Name         string // lower case; "" if it has none
	BaseName     string // after expansion: a stage's name, an image, or Scratch
	BaseStage    *Stage // the stage that BaseName means, or nil
	Platform     string // of --platform, normalised; "" is the target platform
	Context      string // the named build context that stands in for this stage; then it has no base and no instructions
	Loc          Location
	Original     string        // the FROM line as written
	Instructions []Instruction // triggers of the base stage's ONBUILD first

	comments []string
	problems []error // what stops a build that needs this stage
}

// Label is what progress output calls the stage: its name, or "stage-N".
func (s *Stage) Label() string {
	if s.Name != "" {
		return s.Name
	}
	return "stage-" + strconv.Itoa(s.Index)
}

// Target finds the stage to build by name or number; "" is the last. It fails with the first thing that is not
// supported, or wrong, in a stage that the target needs.
func (f *File) Target(name string) (*Stage, error) {
	target := f.Stages[len(f.Stages)-1]
	if name != "" {
		target = f.find(name)
		if target == nil {
			return nil, f.noTarget(name)
		}
	}
	for _, s := range Needed(target) {
		if len(s.problems) > 0 {
			return nil, s.problems[0]
		}
	}
	return target, nil
}

// find looks a stage up as --target and COPY --from do: by name, the last of several, else by number.
func (f *File) find(name string) *Stage {
	if s := f.byName[strings.ToLower(name)]; s != nil {
		return s
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(f.Stages) {
		return f.Stages[i]
	}
	return nil
}

func (f *File) noTarget(name string) error {
	var names, labels []string
	for i, s := range f.Stages {
		if s.Name != "" {
			names = append(names, s.Name)
			labels = append(labels, s.Name)
		} else {
			labels = append(labels, strconv.Itoa(i))
		}
	}
	return &TargetError{Name: f.Name, Target: name, Stages: labels, Hint: didYouMean(name, names)}
}

// Needed lists the stages that TARGET needs, itself included, in the order of the file: each after its base and after the
// stages that it copies or mounts from. EXTRA are instructions that a base image's ONBUILD added to TARGET.
func Needed(target *Stage, extra ...Instruction) []*Stage {
	seen := map[*Stage]bool{}
	var visit func(s *Stage)
	copies := func(list []Instruction) {
		for _, in := range list {
			switch c := in.(type) {
			case *Copy:
				if c.FromStage != nil {
					visit(c.FromStage)
				}
			case *Run:
				for _, m := range c.Mounts {
					if m.FromStage != nil {
						visit(m.FromStage)
					}
				}
			}
		}
	}
	visit = func(s *Stage) {
		if seen[s] {
			return
		}
		seen[s] = true
		if s.BaseStage != nil {
			visit(s.BaseStage)
		}
		copies(s.Instructions)
	}
	visit(target)
	copies(extra)
	out := make([]*Stage, 0, len(seen))
	for s := range seen {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Stage) int { return a.Index - b.Index })
	return out
}

// buildStages turns BuildKit's stages into ours: bases and platforms expanded, references between stages resolved.
func (f *File) buildStages(in []instructions.Stage, o Options, l *lint) error {
	f.lintNames(in, l)
	f.lintCasing(in, l)
	f.lintDirectives(in, l)
	lex := shell.NewLex(f.escape)
	for i := range in {
		st, err := f.newStage(i, &in[i], lex, l)
		if err != nil {
			return err
		}
		for _, name := range o.Contexts {
			if st.Name != "" && strings.EqualFold(name, st.Name) {
				st.Context, st.BaseStage = name, nil
			}
		}
		f.Stages = append(f.Stages, st)
		if st.Name != "" {
			f.byName[st.Name] = st
		}
	}
	for i, st := range f.Stages {
		if st.Context != "" {
			continue
		}
		if err := f.convertAll(st, in[i].Commands); err != nil {
			return err
		}
	}
	inherited := 0
	for _, st := range f.Stages {
		n, err := f.inheritTriggers(st)
		if err != nil {
			return err
		}
		if inherited += n; inherited > maxInstructions {
			return f.fail(st.Loc, "", "stages inherit more than %d ONBUILD triggers: %w", maxInstructions, ErrTooLarge)
		}
	}
	return nil
}

func (f *File) newStage(i int, in *instructions.Stage, lex *shell.Lex, l *lint) (*Stage, error) {
	st := &Stage{Index: i, Name: in.Name, Loc: locationOf(in.Location), Original: in.SourceCode, comments: in.Comments}
	m := &meta{loc: st.Loc, comments: in.Comments}
	base, err := expand(lex, in.BaseName, f.global)
	if err != nil {
		return nil, wrap(f.Name, err, st.Loc)
	}
	f.lintUnmatchedFrom(base.Unmatched, m, l)
	if base.Result == "" {
		return nil, f.fail(st.Loc, f.suggestArg(base.Unmatched), "base name (%s) should not be blank", in.BaseName)
	}
	st.BaseName = base.Result
	st.BaseStage = f.byName[strings.ToLower(st.BaseName)]
	if in.Platform == "" {
		return st, nil
	}
	plat, err := expand(lex, in.Platform, f.global)
	if err != nil {
		return nil, wrap(f.Name, err, st.Loc)
	}
	f.lintUnmatchedFrom(plat.Unmatched, m, l)
	if plat.Result == "" {
		return nil, f.fail(st.Loc, f.suggestArg(plat.Unmatched), "empty platform value from expression %s", in.Platform)
	}
	p, err := parsePlatform(plat.Result)
	if err != nil {
		return nil, f.fail(st.Loc, f.suggestArg(plat.Unmatched), "parse platform %s: %w", in.Platform, err)
	}
	f.lintPlatform(in, plat, p, m, l)
	st.Platform = p.String()
	return st, nil
}

func (f *File) fail(loc Location, hint, format string, args ...any) *ParseError {
	return &ParseError{Name: f.Name, Line: loc.Start, EndLine: loc.End, Err: fmt.Errorf(format, args...), Hint: hint}
}

// suggestArg says what a FROM that used an unknown variable may have meant.
func (f *File) suggestArg(unmatched map[string]struct{}) string {
	for k := range unmatched {
		if hint := didYouMean(k, f.global.Keys()); hint != "" {
			return hint
		}
	}
	for k := range unmatched {
		return "declare ARG " + k + " before the first FROM, or pass --build-arg " + k + "=... to a declared one"
	}
	return ""
}

func (f *File) convertAll(st *Stage, cmds []instructions.Command) error {
	for _, cmd := range cmds {
		in, err := f.convert(st, cmd)
		if err == nil {
			st.Instructions = append(st.Instructions, in)
			continue
		}
		if !deferred(err) {
			return err
		}
		st.problems = append(st.problems, err)
	}
	return nil
}

// deferred tells errors that matter only to a build that needs the stage: Target reports them, as docker does.
func deferred(err error) bool {
	var un *Unsupported
	var later *laterStageError
	return errors.As(err, &un) || errors.As(err, &later)
}

// inheritTriggers puts the ONBUILD triggers of the base stage in front, as docker does.
func (f *File) inheritTriggers(st *Stage) (int, error) {
	if st.BaseStage == nil || st.Context != "" {
		return 0, nil
	}
	var triggers []string
	for _, in := range st.BaseStage.Instructions {
		if ob, ok := in.(*OnBuild); ok {
			triggers = append(triggers, ob.Expression)
		}
	}
	if len(triggers) == 0 {
		return 0, nil
	}
	list, err := f.ParseOnBuild(st, triggers)
	if err != nil {
		if !deferred(err) {
			return 0, err
		}
		st.problems = append(st.problems, err)
	}
	st.Instructions = append(list, st.Instructions...)
	return len(triggers), nil
}

package dockerfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
)

// laterStageError is a COPY --from, or the mount of a RUN, of a stage that is not complete where the instruction stands.
type laterStageError struct{ from, stage, verb string }

func (e *laterStageError) Error() string {
	return fmt.Sprintf("cannot %s from stage %q, it needs to be defined before current stage %q", e.verb, e.from, e.stage)
}

// convert turns one instruction of BuildKit into ours; what we do not have is an *Unsupported.
func (f *File) convert(st *Stage, cmd instructions.Command) (Instruction, error) {
	m := meta{
		loc: locationOf(cmd.Location()), keyword: strings.ToUpper(cmd.Name()), name: cmd.Name(), comments: cmd.Comments(),
	}
	if s, ok := cmd.(fmt.Stringer); ok {
		m.original = s.String()
	}
	switch c := cmd.(type) {
	case *instructions.RunCommand:
		return f.convertRun(st, m, c)
	case *instructions.CopyCommand:
		return f.convertCopy(st, m, c)
	case *instructions.AddCommand:
		return f.convertAdd(m, c)
	case *instructions.EnvCommand:
		pairs, legacy := keyValues(c.Env)
		return &Env{meta: m, Pairs: pairs, legacy: legacy}, nil
	case *instructions.LabelCommand:
		pairs, legacy := keyValues(c.Labels)
		return &Label{meta: m, Pairs: pairs, legacy: legacy}, nil
	case *instructions.ArgCommand:
		return f.convertArg(m, c), nil
	case *instructions.WorkdirCommand:
		return &Workdir{meta: m, Path: c.Path}, nil
	case *instructions.UserCommand:
		return &User{meta: m, User: c.User}, nil
	case *instructions.ExposeCommand:
		return &Expose{meta: m, Ports: c.Ports}, nil
	case *instructions.VolumeCommand:
		return &Volume{meta: m, Paths: c.Volumes}, nil
	case *instructions.CmdCommand:
		return &Cmd{meta: m, Shell: c.PrependShell, Args: c.CmdLine}, nil
	case *instructions.EntrypointCommand:
		return &Entrypoint{meta: m, Shell: c.PrependShell, Args: c.CmdLine}, nil
	case *instructions.ShellCommand:
		return &Shell{meta: m, Args: c.Shell}, nil
	case *instructions.StopSignalCommand:
		return &StopSignal{meta: m, Signal: c.Signal}, nil
	case *instructions.HealthCheckCommand:
		return &Healthcheck{meta: m, Health: Health{
			Test: c.Health.Test, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
			StartPeriod: c.Health.StartPeriod, StartInterval: c.Health.StartInterval, Retries: c.Health.Retries,
		}}, nil
	case *instructions.OnbuildCommand:
		return f.convertOnBuild(m, c)
	case *instructions.MaintainerCommand:
		return &Maintainer{meta: m, Author: c.Maintainer}, nil
	}
	return nil, f.unsupported(m.loc, m.keyword, "", "")
}

func keyValues(in instructions.KeyValuePairs) (out []KeyValue, legacy bool) {
	for _, kv := range in {
		out = append(out, KeyValue{kv.Key, kv.Value})
		legacy = legacy || kv.NoDelim
	}
	return out, legacy
}

func (f *File) convertArg(m meta, c *instructions.ArgCommand) *Arg {
	a := &Arg{meta: m}
	for _, kv := range c.Args {
		f.declared[kv.Key] = true
		a.Args = append(a.Args, ArgValue{Key: kv.Key, Value: kv.ValueString(), Set: kv.Value != nil})
	}
	return a
}

// runFlagHints say how to do without the flags of RUN that are missing.
var runFlagHints = map[string]string{
	"security": "the command runs in the default sandbox; drop the flag",
	"device":   "no devices are passed to a RUN; drop the flag",
}

func (f *File) convertRun(st *Stage, m meta, c *instructions.RunCommand) (Instruction, error) {
	used := slices.Clone(c.FlagsUsed)
	slices.Sort(used)
	for _, flag := range used {
		if hint, ok := runFlagHints[flag]; ok {
			return nil, f.unsupported(m.loc, "RUN", "--"+flag, hint)
		}
	}
	r := &Run{meta: m, Shell: c.PrependShell, Args: c.CmdLine, Network: instructions.GetNetwork(c), Exact: exact(m.comments)}
	for _, file := range c.Files {
		r.Heredocs = append(r.Heredocs, Heredoc{Name: file.Name, Data: file.Data, Chomp: file.Chomp})
	}
	if len(r.Args) == 0 || (len(r.Args) == 1 && strings.TrimSpace(r.Args[0]) == "") {
		return nil, f.fail(m.loc, "", "RUN requires a command")
	}
	if len(r.Heredocs) > 0 && (len(r.Args) != 1 || !r.Shell) {
		return nil, f.fail(m.loc, "", "a RUN with a heredoc must have the shell form")
	}
	return r, f.convertMounts(st, r, c)
}

// transfer fills T with what is copied and where to.
func (f *File) transfer(m meta, in instructions.SourcesAndDest, t Transfer) (Transfer, error) {
	t.Sources, t.Dest = in.SourcePaths, in.DestPath
	for _, p := range t.Exclude {
		if _, err := patternmatcher.New([]string{p}); err != nil {
			return t, f.fail(m.loc, "patterns are those of .dockerignore", "--exclude=%s: %w", p, err)
		}
	}
	for _, s := range in.SourceContents {
		if !fileName(s.Path) {
			return t, f.fail(m.loc, "name the document like the file and put the directory into the destination",
				"a heredoc of %s needs a plain file name, not %q", m.keyword, s.Path)
		}
		t.Heredocs = append(t.Heredocs, Heredoc{Name: s.Path, Data: s.Data, Expand: s.Expand})
	}
	return t, nil
}

func fileName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.Contains(s, "/")
}

func (f *File) convertCopy(st *Stage, m meta, c *instructions.CopyCommand) (Instruction, error) {
	t, err := f.transfer(m, c.SourcesAndDest, Transfer{
		Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Parents: c.Parents, Exclude: c.ExcludePatterns,
	})
	if err != nil {
		return nil, err
	}
	if err := f.checkCopy(m, t); err != nil {
		return nil, err
	}
	out := &Copy{meta: m, Transfer: t, From: c.From}
	if c.From == "" {
		return out, nil
	}
	out.FromStage, err = f.resolveFrom(st, m, c.From)
	return out, err
}

// resolveFrom finds the stage that --from means: a number, a name, or nil for an image or a named context.
func (f *File) resolveFrom(st *Stage, m meta, from string) (*Stage, error) {
	if res, err := expand(shell.NewLex(f.escape), from, newEnv(nil)); err != nil || res.Result != from {
		return nil, f.fail(m.loc, "define a new stage with FROM using ARG from global scope as a workaround",
			"variable expansion is not supported for --from")
	}
	var src *Stage
	if i, err := strconv.Atoi(from); err == nil {
		if i < 0 || i >= len(f.Stages) {
			return nil, f.fail(m.loc, fmt.Sprintf("stages count from 0 to %d", len(f.Stages)-1), "invalid stage index %d", i)
		}
		src = f.Stages[i]
	} else if src = f.find(from); src == nil {
		return nil, nil
	}
	if src.Index == st.Index {
		return nil, f.fail(m.loc, "", "circular dependency detected on stage: %s", st.Label())
	}
	if src.Index > st.Index {
		pe := f.fail(m.loc, "move the stage before this one", "%w", &laterStageError{from, st.Label(), "copy"})
		return nil, pe
	}
	return src, nil
}

func (f *File) convertAdd(m meta, c *instructions.AddCommand) (Instruction, error) {
	t, err := f.transfer(m, c.SourcesAndDest, Transfer{Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Exclude: c.ExcludePatterns})
	if err != nil {
		return nil, err
	}
	return &Add{meta: m, Transfer: t, Checksum: c.Checksum, KeepGitDir: c.KeepGitDir, Unpack: c.Unpack}, nil
}

func (f *File) checkCopy(m meta, t Transfer) error {
	for _, src := range t.Sources {
		if kind := SourceKind(src); kind != "" {
			what := map[string]string{SourceHTTP: "URL", SourceGit: "git ref"}[kind]
			return f.fail(m.loc, "COPY takes files of the build context, of a stage or of an image; ADD fetches", "source can't be a %s for COPY", what)
		}
	}
	return nil
}

func (f *File) convertOnBuild(m meta, c *instructions.OnbuildCommand) (Instruction, error) {
	// The trigger runs in another build, perhaps by another builder: only its grammar is ours to judge.
	cmd, err := parseTrigger(c.Expression, m.loc)
	if err != nil {
		return nil, wrap(f.Name, err, m.loc)
	}
	if a, ok := cmd.(*instructions.ArgCommand); ok {
		for _, kv := range a.Args {
			f.declared[kv.Key] = true
		}
	}
	return &OnBuild{meta: m, Expression: c.Expression}, nil
}

func parseTrigger(text string, loc Location) (cmd instructions.Command, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("parse trigger: %v", r)
		}
	}()
	res, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(res.AST.Children) != 1 {
		return nil, fmt.Errorf("onbuild trigger should be a single expression")
	}
	node := res.AST.Children[0]
	node.StartLine, node.EndLine = loc.Start, loc.End
	return instructions.ParseCommand(node)
}

// ParseOnBuild parses the ONBUILD triggers that ST's base image carries; they run before ST's own instructions. Errors
// stand at ST's FROM. Stages that a trigger copies from may be needed by nothing else: see Needed.
func (f *File) ParseOnBuild(st *Stage, triggers []string) ([]Instruction, error) {
	var out []Instruction
	for _, text := range triggers {
		cmd, err := parseTrigger(text, st.Loc)
		if err == nil {
			var in Instruction
			if in, err = f.convertTrigger(st, cmd); err == nil {
				out = append(out, in)
				continue
			}
		}
		pe := wrap(f.Name, err, st.Loc)
		pe.Line, pe.EndLine = st.Loc.Start, st.Loc.End
		return nil, f.fail(st.Loc, pe.Hint, "ONBUILD trigger %.200q: %w", text, pe.Err)
	}
	return out, nil
}

// convertTrigger leaves f.declared alone: triggers of images are parsed while other goroutines read the file.
func (f *File) convertTrigger(st *Stage, cmd instructions.Command) (Instruction, error) {
	g := *f
	g.declared = map[string]bool{}
	in, err := g.convert(st, cmd)
	if err != nil {
		return nil, err
	}
	in.head().trigger = true
	return in, nil
}

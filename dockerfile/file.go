package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

const (
	// MaxSize is the largest Dockerfile that Parse takes.
	MaxSize = 4 << 20
	// maxLine is the longest line that BuildKit's parser takes.
	maxLine = 64<<10 - 1
	// maxInstructions bounds the work that a hostile file can ask for; docker takes no image of more than 127 layers.
	maxInstructions = 20_000
)

// Options are what the caller knows besides the text.
type Options struct {
	BuildArgs      map[string]string // --build-arg
	Target         string            // --target, for TARGETSTAGE; choose the stage with File.Target
	BuildPlatform  string            // "linux/amd64"; "" is this machine's
	TargetPlatform string            // "" is BuildPlatform
	Contexts       []string          // names of --build-context: a stage of such a name is replaced by it
}

// File is a parsed Dockerfile.
type File struct {
	Name     string
	Stages   []*Stage
	Warnings []Warning // those that need no evaluation; see Report
	Lines    []string  // the text, for error boxes: Lines[0] is line 1

	buildArgs map[string]string
	global    *env // platform arguments and ARGs before the first FROM
	declared  map[string]bool
	byName    map[string]*Stage // of several of a name the last
	epoch     string
	escape    rune
	check     linter.Config
}

// Parse reads the Dockerfile SRC called NAME. Its errors are *ParseError.
func Parse(name string, src []byte, o Options) (*File, error) {
	if err := validate(name, src); err != nil {
		return nil, err
	}
	f := &File{Name: name, Lines: splitLines(src), buildArgs: o.BuildArgs, declared: map[string]bool{}, byName: map[string]*Stage{}}
	if err := f.checkSyntax(src, o.BuildArgs); err != nil {
		return nil, err
	}
	check, _, at, _ := parser.ParseDirective("check", src)
	cfg, err := linter.ParseLintOptions(check)
	if err != nil {
		return nil, wrap(name, err, locationOf(at))
	}
	f.check = *cfg
	l := newLint(f.check)
	stages, metaArgs, err := f.parseText(src, l)
	if err != nil {
		return nil, err
	}
	if err := f.setGlobals(stages, metaArgs, o, l); err != nil {
		return nil, err
	}
	if err := f.buildStages(stages, o, l); err != nil {
		return nil, err
	}
	f.Warnings = l.warnings
	return f, nil
}

// validate refuses what is no text before any parser sees it.
func validate(name string, src []byte) error {
	fail := func(line int, hint, format string, args ...any) error {
		return &ParseError{Name: name, Line: line, EndLine: line, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	switch {
	case len(src) > MaxSize:
		return fail(0, "is this the right file?", "read Dockerfile of %d bytes: more than %d: %w", len(src), MaxSize, ErrTooLarge)
	case len(bytes.TrimSpace(src)) == 0:
		return fail(0, "", "the Dockerfile cannot be empty")
	case bytes.HasPrefix(src, []byte{0xFF, 0xFE}), bytes.HasPrefix(src, []byte{0xFE, 0xFF}):
		return fail(1, "save the file as UTF-8", "the Dockerfile is UTF-16")
	}
	nested := 0
	for i, line := range bytes.Split(src, []byte("\n")) {
		nested = nesting(nested, line)
		switch {
		case nested > maxNesting:
			return fail(i+1, "", "braces nested deeper than %d: %w", maxNesting, ErrTooLarge)
		case len(line) >= maxLine:
			return fail(i+1, "move the text to a file and COPY it", "dockerfile line greater than max allowed size of %d", maxLine)
		case bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")):
			// A comment may be in any encoding.
		case bytes.IndexByte(line, 0) >= 0:
			return fail(i+1, "is this the right file?", "the line has a NUL byte")
		case !utf8.Valid(line):
			return fail(i+1, "save the file as UTF-8", "the line is not UTF-8")
		}
	}
	return nil
}

// nesting counts the open "${" at the end of LINE, where OPEN are open before it; lines that are continued go on.
func nesting(open int, line []byte) int {
	deepest := open
	for i := range line {
		switch {
		case line[i] == '{' && i > 0 && line[i-1] == '$':
			open++
			deepest = max(deepest, open)
		case line[i] == '}' && open > 0:
			open--
		}
	}
	if deepest > maxNesting {
		return deepest
	}
	if end := bytes.TrimRight(line, " \t\r"); bytes.HasSuffix(end, []byte("\\")) || bytes.HasSuffix(end, []byte("`")) {
		return open
	}
	return 0
}

func splitLines(src []byte) []string {
	text := strings.TrimPrefix(string(src), "\uFEFF")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	return lines
}

// checkSyntax accepts docker's own frontends: another one is a program that we do not run.
func (f *File) checkSyntax(src []byte, buildArgs map[string]string) error {
	ref, _, at, ok := parser.DetectSyntax(src)
	loc := locationOf(at)
	if v := buildArgs["BUILDKIT_SYNTAX"]; v != "" {
		ref, loc, ok = v, Location{}, true
	}
	if !ok || isDockerFrontend(ref) {
		return nil
	}
	return f.unsupported(loc, "# syntax="+ref, "", "only the docker/dockerfile syntax is built in")
}

func isDockerFrontend(ref string) bool {
	ref = strings.TrimPrefix(ref, "docker.io/")
	repo, _, _ := strings.Cut(ref, "@")
	repo, _, _ = strings.Cut(repo, ":")
	return repo == "docker/dockerfile" || repo == "docker/dockerfile-upstream"
}

func (f *File) unsupported(loc Location, keyword, flag, hint string) *ParseError {
	return &ParseError{
		Name: f.Name, Line: loc.Start, EndLine: loc.End, Hint: hint,
		Err: &Unsupported{Keyword: keyword, Flag: flag, Line: loc.Start, Hint: hint},
	}
}

// parseText runs BuildKit's parser, and turns even a panic of it into an error: it reads what strangers wrote.
func (f *File) parseText(src []byte, l *lint) (stages []instructions.Stage, metaArgs []instructions.ArgCommand, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &ParseError{Name: f.Name, Err: fmt.Errorf("parse Dockerfile: %v", r)}
		}
	}()
	res, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		pe := wrap(f.Name, err, Location{})
		if text := pe.Err.Error(); strings.HasPrefix(text, "only one ") || strings.HasPrefix(text, "invalid escape token") {
			pe.Line, pe.EndLine = pe.Line+1, pe.Line+1 // BuildKit counts the directive's line from 0
		}
		return nil, nil, pe
	}
	if n := len(res.AST.Children); n > maxInstructions {
		return nil, nil, &ParseError{Name: f.Name, Err: fmt.Errorf("%d instructions, more than %d: %w", n, maxInstructions, ErrTooLarge)}
	}
	f.escape = res.EscapeToken
	for _, w := range res.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			l.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	stages, metaArgs, err = instructions.Parse(res.AST, l.Linter)
	if err != nil {
		pe := wrap(f.Name, err, Location{})
		if pe.Err.Error() == "no build stage in current context" {
			pe.Hint = "a Dockerfile starts with FROM; only ARG may stand before it"
		}
		return nil, nil, pe
	}
	if len(stages) == 0 {
		return nil, nil, &ParseError{
			Name: f.Name, Err: errors.New("dockerfile contains no stages to build"),
			Hint: "a Dockerfile starts with FROM",
		}
	}
	return stages, metaArgs, nil
}

// setGlobals evaluates what FROM may use: the platform arguments and the ARGs before the first FROM.
func (f *File) setGlobals(stages []instructions.Stage, metaArgs []instructions.ArgCommand, o Options, l *lint) error {
	target := o.Target
	if target == "" {
		target = stages[len(stages)-1].Name
	}
	defaults, err := platformArgs(o, target)
	if err != nil {
		return &ParseError{Name: f.Name, Err: err}
	}
	lex := shell.NewLex(f.escape)
	f.lintDefaultBases(stages, metaArgs, defaults, lex, l)
	for k := range defaults.values {
		f.declared[k] = true
		if v, ok := o.BuildArgs[k]; ok {
			defaults.set(k, v)
		}
	}
	f.global, err = f.metaArgs(metaArgs, defaults, lex, o.BuildArgs)
	if err != nil {
		return err
	}
	if v, ok := o.BuildArgs["SOURCE_DATE_EPOCH"]; ok {
		f.epoch = v
	} else {
		f.epoch, _ = f.global.Get("SOURCE_DATE_EPOCH")
	}
	return nil
}

func platformArgs(o Options, target string) (*env, error) {
	build, err := platformOr(o.BuildPlatform, hostPlatform())
	if err != nil {
		return nil, fmt.Errorf("parse build platform: %w", err)
	}
	tp, err := platformOr(o.TargetPlatform, build)
	if err != nil {
		return nil, fmt.Errorf("parse target platform: %w", err)
	}
	if target == "" {
		target = "default"
	}
	e := newEnv(nil)
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", build.String()},
		{"BUILDOS", build.os},
		{"BUILDOSVERSION", ""},
		{"BUILDARCH", build.arch},
		{"BUILDVARIANT", build.variant},
		{"TARGETPLATFORM", tp.String()},
		{"TARGETOS", tp.os},
		{"TARGETOSVERSION", ""},
		{"TARGETARCH", tp.arch},
		{"TARGETVARIANT", tp.variant},
		{"TARGETSTAGE", target},
	} {
		e.set(kv[0], kv[1])
	}
	return e, nil
}

func platformOr(s string, otherwise platform) (platform, error) {
	if s == "" {
		return otherwise, nil
	}
	return parsePlatform(s)
}

func (f *File) metaArgs(cmds []instructions.ArgCommand, base *env, lex *shell.Lex, buildArgs map[string]string) (*env, error) {
	e := base.clone()
	for i := range cmds {
		for _, kv := range cmds[i].Args {
			f.declared[kv.Key] = true
			if v, ok := buildArgs[kv.Key]; ok {
				e.set(kv.Key, v)
			} else if kv.Value != nil {
				res, err := expand(lex, *kv.Value, e)
				if err != nil {
					return nil, wrap(f.Name, err, locationOf(cmds[i].Location()))
				}
				e.set(kv.Key, res.Result)
			}
			if err := e.check(); err != nil {
				return nil, wrap(f.Name, err, locationOf(cmds[i].Location()))
			}
		}
	}
	return e, nil
}

// Epoch is the time that SOURCE_DATE_EPOCH gives, as build argument or as a global ARG with a default.
func (f *File) Epoch() (t time.Time, ok bool, err error) {
	if f.epoch == "" {
		return time.Time{}, false, nil
	}
	sec, err := strconv.ParseInt(f.epoch, 10, 64)
	if err != nil {
		return time.Time{}, false, &ParseError{
			Name: f.Name, Err: fmt.Errorf("invalid SOURCE_DATE_EPOCH %q: not a number of seconds", f.epoch),
			Hint: "set it to a number, as from date +%s",
		}
	}
	return time.Unix(sec, 0).UTC(), true, nil
}

// UnusedBuildArgs are the build arguments that no ARG declares, sorted. ONBUILD triggers count through their scopes.
func (f *File) UnusedBuildArgs(scopes ...*Scope) []string {
	var unused []string
	for k := range f.buildArgs {
		used := f.declared[k] || isPredefined(k)
		for _, s := range scopes {
			used = used || s.declares(k)
		}
		if !used {
			unused = append(unused, k)
		}
	}
	slices.Sort(unused)
	return unused
}

// isPredefined tells the arguments that have a meaning without an ARG.
func isPredefined(k string) bool {
	return k == "SOURCE_DATE_EPOCH" || strings.HasPrefix(k, "BUILDKIT_") || proxyName(k) != ""
}

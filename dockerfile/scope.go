package dockerfile

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// DefaultPath is the PATH of an image that sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ScopeOptions are what a stage starts from: its base stage's scope as that ended, or the config of its base image.
type ScopeOptions struct {
	Parent      *Scope   // for a stage with a BaseStage; then the rest is not used
	BaseEnv     []string // config.Env
	BaseWorkdir string   // config.WorkingDir
	BaseShell   []string // config.Shell
}

// Scope evaluates one stage: give its instructions to Expand in order.
type Scope struct {
	file     *File
	lex      *shell.Lex
	lint     *lint
	vars     *env // what a RUN sees: ENV and ARG, the last one written wins
	imageEnv *env // what the image gets: ENV only
	args     []ArgValue
	workdir  string
	shell    []string

	workdirSet               bool
	cmd, entrypoint, healthy *meta
}

// NewScope starts the evaluation of a stage of F.
func NewScope(f *File, o ScopeOptions) *Scope {
	s := &Scope{file: f, lex: shell.NewLex(f.escape), lint: newLint(f.check)}
	if p := o.Parent; p != nil {
		s.vars, s.imageEnv, s.args = p.vars.clone(), p.imageEnv.clone(), slices.Clone(p.args)
		s.workdir, s.shell, s.workdirSet = p.workdir, p.shell, p.workdirSet
	} else {
		s.vars, s.imageEnv = newEnv(nil), newEnv(o.BaseEnv)
		s.workdir, s.shell = o.BaseWorkdir, o.BaseShell
		if _, ok := s.imageEnv.Get("PATH"); !ok {
			s.imageEnv.set("PATH", DefaultPath)
		}
	}
	if s.workdir == "" {
		s.workdir = "/"
	}
	// A stage built FROM another sees its ARGs, but what the image says goes first: BuildKit sets the ENV again.
	for _, k := range s.imageEnv.Keys() {
		s.vars.set(k, s.imageEnv.values[k])
	}
	return s
}

// Env is the environment of the image so far.
func (s *Scope) Env() []string { return s.imageEnv.list() }

// KeyEnv is what decides about a RUN: ENV and the declared ARGs that have a value. Proxies are not in it, unless an ARG declares them.
func (s *Scope) KeyEnv() []string { return s.vars.list() }

// RunEnv is what a RUN sees: KeyEnv, and the proxies given as build arguments under both spellings.
func (s *Scope) RunEnv() []string {
	e := s.vars
	for _, kv := range s.proxies() {
		if e == s.vars {
			e = e.clone()
		}
		e.set(kv.Key, kv.Value)
	}
	return e.list()
}

// Args are the declared ARGs with the value that a RUN sees, in the order of their first declaration, as history shows them.
func (s *Scope) Args() []KeyValue {
	var out []KeyValue
	at := map[string]int{}
	for _, a := range s.args {
		v, ok := s.vars.Get(a.Key)
		if !ok {
			v = a.Value
		}
		if i, seen := at[a.Key]; seen {
			out[i].Value = v
			continue
		}
		at[a.Key] = len(out)
		out = append(out, KeyValue{a.Key, v})
	}
	return out
}

// Shell is the shell in force for shell forms.
func (s *Scope) Shell() []string {
	if len(s.shell) == 0 {
		return []string{"/bin/sh", "-c"}
	}
	return slices.Clone(s.shell)
}

// Workdir is the working directory so far: absolute and clean.
func (s *Scope) Workdir() string { return path.Join("/", s.workdir) }

func (s *Scope) declares(k string) bool {
	return slices.ContainsFunc(s.args, func(a ArgValue) bool { return a.Key == k })
}

// proxyNames are the arguments that a RUN sees without a declaration.
var proxyNames = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"}

// proxyName returns the capital spelling of a proxy argument, or "".
func proxyName(k string) string {
	if up := strings.ToUpper(k); slices.Contains(proxyNames, up) {
		return up
	}
	return ""
}

func (s *Scope) proxies() []KeyValue {
	values := map[string]string{}
	given := make([]string, 0, len(s.file.buildArgs))
	for k := range s.file.buildArgs {
		given = append(given, k)
	}
	slices.Sort(given) // of two spellings the lower case one wins, as in BuildKit
	for _, k := range given {
		if name := proxyName(k); name != "" {
			values[name] = s.file.buildArgs[k]
		}
	}
	var out []KeyValue
	for _, name := range proxyNames {
		if v := values[name]; v != "" {
			out = append(out, KeyValue{name, v}, KeyValue{strings.ToLower(name), v})
		}
	}
	return out
}

// word expands one word, and remembers the variables that nobody set.
func (s *Scope) word(m *meta, word string) (string, error) {
	res, err := expand(s.lex, word, s.vars)
	if err != nil {
		return "", err
	}
	s.undefined(m, res.Unmatched)
	return res.Result, nil
}

func (s *Scope) words(m *meta, list []string) ([]string, error) {
	out := make([]string, len(list))
	for i, w := range list {
		v, err := s.word(m, w)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func (s *Scope) undefined(m *meta, unmatched map[string]struct{}) {
	names := make([]string, 0, len(unmatched))
	for k := range unmatched {
		if !s.declares(k) && !isNotEnv(k) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		s.lint.run(&linter.RuleUndefinedVar, m, linter.RuleUndefinedVar.Format(k, nearest(k, s.vars.Keys())))
	}
}

// isNotEnv tells the arguments that steer BuildKit and never reach a RUN.
func isNotEnv(k string) bool {
	return k == "BUILDKIT_SBOM_SCAN_CONTEXT" || k == "BUILDKIT_SBOM_SCAN_STAGE"
}

// absolute resolves a destination against the working directory, keeping what says that it is a directory.
func (s *Scope) absolute(dest string) string {
	if dest == "" || dest == "." {
		dest = "./"
	}
	if path.IsAbs(dest) {
		return dest
	}
	out := path.Join(s.Workdir(), dest)
	switch {
	case strings.HasSuffix(dest, "/") && !strings.HasSuffix(out, "/"):
		out += "/"
	case strings.HasSuffix(dest, "/."):
		out = strings.TrimSuffix(out, "/") + "/."
	}
	return out
}

// Title is what progress output shows for IN, which need not be expanded: its text with variables replaced.
func (s *Scope) Title(in Instruction) string {
	text := in.Original()
	lex, vars := *shell.NewLex(s.file.escape), s.vars
	if r, ok := in.(*Run); ok {
		vars = s.titleVars(r)
		lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
		if h := r.document(); h != nil {
			text += " (" + summary(h.Data) + ")"
		}
	}
	if res, err := expand(&lex, text, vars); err == nil {
		text = res.Result
	}
	word, rest, _ := strings.Cut(text, " ")
	text = strings.ToUpper(word) + " " + rest
	if in.Trigger() {
		text = "ONBUILD " + text
	}
	return strings.TrimSuffix(text, " ")
}

// summary is the first line of a document.
func summary(doc string) string {
	first, _, more := strings.Cut(strings.ReplaceAll(strings.TrimSpace(doc), "\r\n", "\n"), "\n")
	if more {
		first += "..."
	}
	return first
}

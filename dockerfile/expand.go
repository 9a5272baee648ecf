package dockerfile

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Expand returns a copy of IN with its variables replaced, ready to be built, and takes ENV, ARG, WORKDIR and SHELL into
// the scope. Its errors are *ParseError.
func (s *Scope) Expand(in Instruction) (Instruction, error) {
	out, err := s.expand(in)
	if err != nil {
		return nil, wrap(s.file.Name, err, in.Location())
	}
	return out, nil
}

func (s *Scope) expand(in Instruction) (Instruction, error) {
	switch c := in.(type) {
	case *Run:
		return s.expandRun(*c)
	case *Copy:
		return s.expandCopy(*c)
	case *Add:
		return s.expandAdd(*c)
	case *Env:
		return s.expandEnv(*c)
	case *Arg:
		return s.expandArg(*c)
	case *Label:
		return s.expandLabel(*c)
	case *Workdir:
		return s.expandWorkdir(*c)
	case *User:
		return s.expandUser(*c)
	case *Expose:
		return s.expandExpose(*c)
	case *Volume:
		return s.expandVolume(*c)
	case *StopSignal:
		return s.expandStopSignal(*c)
	case *Cmd:
		return s.expandCmd(*c)
	case *Entrypoint:
		return s.expandEntrypoint(*c)
	case *Healthcheck:
		s.once(&s.healthy, &c.meta)
		out := *c
		return &out, nil
	case *Shell:
		s.shell = c.Args
		out := *c
		return &out, nil
	case *OnBuild:
		out := *c
		return &out, nil
	case *Maintainer:
		out := *c
		return &out, nil
	}
	return nil, fmt.Errorf("expand %T: not an instruction of this package", in)
}

func (s *Scope) expandRun(c Run) (Instruction, error) {
	line := ""
	if c.Shell {
		line = strings.Join(c.Args, " ")
	}
	switch h := c.document(); {
	case h != nil:
		data := h.Data
		if h.Chomp {
			data = parser.ChompHeredocContent(data)
		}
		line = data
		if strings.HasPrefix(data, "#!") {
			if !fileName(h.Name) {
				return nil, fmt.Errorf("a heredoc script needs a plain name, not %q", h.Name)
			}
			c.Script = &Script{Path: path.Join("/dev/pipes", h.Name), Data: data, Mode: 0o755}
			line = c.Script.Path
		}
	case len(c.Heredocs) > 0:
		// The shell reads its documents itself: give it the text as it stood.
		var b strings.Builder
		b.WriteString(line)
		for _, h := range c.Heredocs {
			b.WriteString("\n" + h.Data + h.Name)
		}
		line = b.String()
	}
	c.Args = slices.Clone(c.Args)
	if c.Shell {
		c.Args = append(s.Shell(), line)
	}
	var err error
	if c.Mounts, err = s.expandMounts(&c); err != nil {
		return nil, err
	}
	return &c, nil
}

// document returns the heredoc that is the whole command of a RUN, or nil.
func (r *Run) document() *Heredoc {
	if len(r.Heredocs) == 0 || len(r.Args) != 1 || parser.MustParseHeredoc(r.Args[0]) == nil {
		return nil
	}
	return &r.Heredocs[0]
}

func (s *Scope) expandTransfer(m *meta, t Transfer) (Transfer, error) {
	var err error
	for _, p := range []*string{&t.Chown, &t.Chmod, &t.Dest} {
		if *p, err = s.word(m, *p); err != nil {
			return t, err
		}
	}
	if t.Sources, err = s.words(m, t.Sources); err != nil {
		return t, err
	}
	t.Heredocs = slices.Clone(t.Heredocs)
	for i, h := range t.Heredocs {
		if !h.Expand {
			continue
		}
		raw := shell.NewLex('\\')
		raw.SkipProcessQuotes = true
		res, err := expand(raw, h.Data, s.vars)
		if err != nil {
			return t, err
		}
		s.undefined(m, res.Unmatched)
		t.Heredocs[i].Data = res.Result
	}
	t.Target = s.absolute(t.Dest)
	if t.Chmod != "" {
		if _, err := ParseMode(t.Chmod); err != nil {
			return t, err
		}
	}
	if t.Link && namesOwner(t.Chown) {
		return t, fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", t.Chown)
	}
	return t, nil
}

// namesOwner tells whether CHOWN has a name in it rather than numbers.
func namesOwner(chown string) bool {
	return strings.Trim(chown, "0123456789:") != ""
}

func (s *Scope) expandCopy(c Copy) (Instruction, error) {
	t, err := s.expandTransfer(&c.meta, c.Transfer)
	if err != nil {
		return nil, err
	}
	c.Transfer = t
	return &c, s.file.checkCopy(c.meta, t)
}

func (s *Scope) expandAdd(c Add) (Instruction, error) {
	t, err := s.expandTransfer(&c.meta, c.Transfer)
	if err != nil {
		return nil, err
	}
	c.Transfer = t
	if c.Checksum, err = s.word(&c.meta, c.Checksum); err != nil {
		return nil, err
	}
	return &c, c.check()
}

func (s *Scope) expandPairs(m *meta, in []KeyValue) ([]KeyValue, error) {
	out := make([]KeyValue, len(in))
	for i, kv := range in {
		k, err := s.word(m, kv.Key)
		if err != nil {
			return nil, err
		}
		v, err := s.word(m, kv.Value)
		if err != nil {
			return nil, err
		}
		out[i] = KeyValue{k, v}
	}
	return out, nil
}

func (s *Scope) expandEnv(c Env) (Instruction, error) {
	pairs, err := s.expandPairs(&c.meta, c.Pairs)
	if err != nil {
		return nil, err
	}
	c.Pairs = pairs
	s.lintLegacy(&c.meta, c.legacy)
	for _, kv := range pairs {
		if kv.Key == "" {
			return nil, fmt.Errorf("ENV names can not be blank")
		}
		s.lintSecret(&c.meta, "ENV", kv.Key)
		s.vars.set(kv.Key, kv.Value)
		s.imageEnv.replace(kv.Key, kv.Value)
	}
	return &c, s.vars.check()
}

// expandArg gives each name its value: --build-arg first, then the default, then the global ARG of that name. Unlike ENV
// the names of one line see each other.
func (s *Scope) expandArg(c Arg) (Instruction, error) {
	c.Args = slices.Clone(c.Args)
	for i, a := range c.Args {
		s.lintSecret(&c.meta, "ARG", a.Key)
		if v, ok := s.file.buildArgs[a.Key]; ok {
			a.Value, a.Set = v, true
		} else if a.Set {
			v, err := s.word(&c.meta, a.Value)
			if err != nil {
				return nil, err
			}
			a.Value = v
		} else if v, ok := s.file.global.Get(a.Key); ok {
			a.Value, a.Set = v, true
		}
		if a.Set && !isNotEnv(a.Key) {
			s.vars.set(a.Key, a.Value)
		}
		if len(s.args) >= maxVars {
			return nil, fmt.Errorf("declare more than %d ARGs: %w", maxVars, ErrTooLarge)
		}
		s.args = append(s.args, a)
		c.Args[i] = a
	}
	return &c, s.vars.check()
}

func (s *Scope) expandLabel(c Label) (Instruction, error) {
	pairs, err := s.expandPairs(&c.meta, c.Pairs)
	c.Pairs = pairs
	s.lintLegacy(&c.meta, c.legacy)
	return &c, err
}

func (s *Scope) expandWorkdir(c Workdir) (Instruction, error) {
	p, err := s.word(&c.meta, c.Path)
	if err != nil {
		return nil, err
	}
	if !s.workdirSet && !path.IsAbs(p) {
		s.lint.run(&linter.RuleWorkdirRelativePath, &c.meta, linter.RuleWorkdirRelativePath.Format(p))
	}
	s.workdirSet = true
	switch {
	case p == "":
		p = s.workdir
	case !path.IsAbs(p):
		p = path.Join(s.Workdir(), p)
	}
	s.workdir, c.Path = p, p
	return &c, nil
}

func (s *Scope) expandUser(c User) (Instruction, error) {
	u, err := s.word(&c.meta, c.User)
	c.User = u
	return &c, err
}

func (s *Scope) expandVolume(c Volume) (Instruction, error) {
	paths, err := s.words(&c.meta, c.Paths)
	if slices.Contains(paths, "") {
		return nil, fmt.Errorf("VOLUME specified can not be an empty string")
	}
	c.Paths = paths
	return &c, err
}

func (s *Scope) expandStopSignal(c StopSignal) (Instruction, error) {
	sig, err := s.word(&c.meta, c.Signal)
	if err != nil {
		return nil, err
	}
	if !isSignal(sig) {
		return nil, fmt.Errorf("invalid signal: %s", sig)
	}
	c.Signal = sig
	return &c, nil
}

func (s *Scope) expandExpose(c Expose) (Instruction, error) {
	var raw []string
	for _, p := range c.Ports {
		words, err := expandWords(s.lex, p, s.vars)
		if err != nil {
			return nil, err
		}
		raw = append(raw, words...)
	}
	ports, err := s.parsePorts(&c.meta, raw)
	c.Ports = ports
	return &c, err
}

func (s *Scope) expandCmd(c Cmd) (Instruction, error) {
	s.once(&s.cmd, &c.meta)
	c.Args = s.commandLine(&c.meta, c.Shell, c.Args)
	return &c, nil
}

func (s *Scope) expandEntrypoint(c Entrypoint) (Instruction, error) {
	s.once(&s.entrypoint, &c.meta)
	c.Args = s.commandLine(&c.meta, c.Shell, c.Args)
	c.ResetsCmd = s.cmd == nil
	return &c, nil
}

func (s *Scope) commandLine(m *meta, inShell bool, args []string) []string {
	if !inShell {
		return slices.Clone(args)
	}
	if len(s.shell) == 0 {
		s.lint.run(&linter.RuleJSONArgsRecommended, m, linter.RuleJSONArgsRecommended.Format(m.name))
	}
	return append(s.Shell(), strings.Join(args, " "))
}

// CreatedBy is the text of the image history for IN as Expand returned it. Ask before the next Expand: a RUN shows the
// ARGs in force. ONBUILD leaves no history: "".
func (s *Scope) CreatedBy(in Instruction) string {
	switch c := in.(type) {
	case *Run:
		words := []string{"RUN"}
		if args := s.Args(); len(args) > 0 {
			words = append(words, joinPairs("|"+strconv.Itoa(len(args)), args))
		}
		return strings.Join(append(append(words, c.Args...), "# buildkit"), " ")
	case *Copy:
		return c.createdBy("COPY")
	case *Add:
		return c.createdBy("ADD")
	case *Env:
		return joinPairs("ENV", c.Pairs)
	case *Label:
		return joinPairs("LABEL", c.Pairs)
	case *Arg:
		words := []string{"ARG"}
		for _, a := range c.Args {
			word := a.Key
			if a.Set {
				word += "=" + a.Value
			}
			words = append(words, word)
		}
		return strings.Join(words, " ")
	case *Workdir:
		return "WORKDIR " + c.Path
	case *User:
		return "USER " + c.User
	case *Expose:
		return fmt.Sprintf("EXPOSE %v", c.Ports)
	case *Volume:
		return fmt.Sprintf("VOLUME %v", c.Paths)
	case *Cmd:
		return fmt.Sprintf("CMD %q", c.Args)
	case *Entrypoint:
		return fmt.Sprintf("ENTRYPOINT %q", c.Args)
	case *Shell:
		return fmt.Sprintf("SHELL %v", c.Args)
	case *StopSignal:
		return "STOPSIGNAL " + c.Signal
	case *Healthcheck:
		return fmt.Sprintf("HEALTHCHECK %+v", c.Health)
	case *Maintainer:
		return "MAINTAINER " + c.Author
	}
	return ""
}

func (t *Transfer) createdBy(keyword string) string {
	words := []string{keyword}
	if t.Parents {
		words = append(words, "--parents")
	}
	if t.Chown != "" {
		words = append(words, "--chown="+t.Chown)
	}
	if t.Chmod != "" {
		words = append(words, "--chmod="+t.Chmod)
	}
	words = append(words, t.Sources...)
	for _, h := range t.Heredocs {
		words = append(words, "<<"+h.Name)
	}
	return strings.Join(append(words, t.Dest, "# buildkit"), " ")
}

func joinPairs(first string, pairs []KeyValue) string {
	words := []string{first}
	for _, kv := range pairs {
		words = append(words, kv.Key+"="+kv.Value)
	}
	return strings.Join(words, " ")
}

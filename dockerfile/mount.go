package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// The types of a Mount.
const (
	MountBind   = "bind"
	MountCache  = "cache"
	MountTmpfs  = "tmpfs"
	MountSecret = "secret"
	MountSSH    = "ssh"
)

// Mount is one --mount of a RUN. Before Scope.Expand only From and FromStage are known, since any other option may hold
// variables; after it everything is filled in, defaults included.
type Mount struct {
	Type      string // bind, cache, tmpfs, secret or ssh
	From      string // "" is the build context, or for a cache nothing
	FromStage *Stage // the stage that From means, or nil: an image, a named context, or scratch
	Source    string // below From; "" is all of it
	Target    string // absolute and clean, never "/"; "" for a secret that is a variable only
	ID        string // of a cache, a secret or an agent
	ReadOnly  bool
	Sharing   string // of a cache: shared, private or locked
	Size      int64  // of a tmpfs, in bytes; 0 is the kernel's own limit
	Required  bool   // of a secret or an agent
	Env       *string
	Mode      *uint32
	UID, GID  *uint32
}

// mountFlags are the --mount flags of one RUN, which BuildKit parses anew with each expander, in place.
type mountFlags struct {
	mu  sync.Mutex
	cmd *instructions.RunCommand
}

// parse reads the flags with their variables replaced by EXPAND.
func (f *mountFlags) parse(expand instructions.SingleWordExpander) ([]instructions.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.cmd.Expand(expand); err != nil {
		return nil, err
	}
	var out []instructions.Mount
	for _, m := range instructions.GetMounts(f.cmd) {
		out = append(out, *m)
	}
	return out, nil
}

// convertMounts finds the stages that the mounts of a RUN take files from.
func (f *File) convertMounts(st *Stage, r *Run, c *instructions.RunCommand) error {
	given := instructions.GetMounts(c)
	if len(given) == 0 {
		return nil
	}
	r.mounts = &mountFlags{cmd: c}
	for _, m := range given {
		src, err := f.mountFrom(st, r.loc, m.From)
		if err != nil {
			return err
		}
		r.Mounts = append(r.Mounts, Mount{From: m.From, FromStage: src})
	}
	return nil
}

// mountFrom finds the stage that from= means: by name or number, or nil for an image or a named context.
func (f *File) mountFrom(st *Stage, loc Location, from string) (*Stage, error) {
	src := f.byName[strings.ToLower(from)]
	if i, err := strconv.Atoi(from); src == nil && err == nil && i >= 0 && i < len(f.Stages) {
		src = f.Stages[i]
	}
	switch {
	case from == "" || src == nil:
		return nil, nil
	case src.Index == st.Index:
		return nil, f.fail(loc, "", "circular dependency detected on stage: %s", st.Label())
	case src.Index > st.Index:
		return nil, f.fail(loc, "move the stage before this one", "%w", &laterStageError{from, st.Label(), "mount"})
	}
	return src, nil
}

// expandMounts is BuildKit's reading of the mounts: every value may hold variables; relative targets stand below the
// working directory.
func (s *Scope) expandMounts(r *Run) ([]Mount, error) {
	if r.mounts == nil {
		return nil, nil
	}
	given, err := r.mounts.parse(func(word string) (string, error) { return s.word(&r.meta, word) })
	if err != nil {
		return nil, err
	}
	out := make([]Mount, len(given))
	agents := 0
	for i := range given {
		m := mountOf(&given[i])
		m.From, m.FromStage = r.Mounts[i].From, r.Mounts[i].FromStage
		switch m.Type {
		case MountSecret:
			err = m.secretDefaults()
		case MountSSH:
			err = m.sshDefaults(agents)
			agents++
		default:
			err = m.check()
		}
		if err != nil {
			return nil, err
		}
		if m.Type == MountCache && m.ID == "" {
			m.ID = path.Clean(m.Target)
		}
		if m.Type != MountSecret || m.Target != "" {
			if !path.IsAbs(m.Target) {
				m.Target = path.Join(s.Workdir(), m.Target)
			}
			if m.Target = path.Clean(m.Target); m.Target == "/" {
				return nil, fmt.Errorf("invalid mount target %q", m.Target)
			}
		}
		out[i] = m
	}
	return out, nil
}

func mountOf(in *instructions.Mount) Mount {
	m := Mount{
		Type: string(in.Type), Source: in.Source, Target: in.Target, ID: in.CacheID, ReadOnly: in.ReadOnly,
		Sharing: string(in.CacheSharing), Size: in.SizeLimit, Required: in.Required, Env: in.Env,
	}
	for _, id := range []struct {
		from *uint64
		to   **uint32
	}{{in.Mode, &m.Mode}, {in.UID, &m.UID}, {in.GID, &m.GID}} {
		if id.from != nil {
			v := uint32(*id.from)
			*id.to = &v
		}
	}
	return m
}

// check refuses what would be ignored, and fills in how a cache is shared.
func (m *Mount) check() error {
	switch {
	case m.Size < 0:
		return fmt.Errorf("invalid size of mount %q: it is negative", m.Target)
	case m.Env != nil:
		return fmt.Errorf("env not allowed for %q type mounts", m.Type)
	case m.Type == MountTmpfs && m.Source != "":
		return errors.New("tmpfs mount should not have a source")
	case m.Type == MountCache && m.From == "" && path.Join("/", m.Source) != "/":
		return errors.New("cache mount has a source and no from: name the stage or image that it starts from")
	case m.Mode != nil && *m.Mode > 0o7777:
		return fmt.Errorf("invalid value %o for mode", *m.Mode)
	}
	if m.Type == MountCache && m.Sharing == "" {
		m.Sharing = string(instructions.MountSharingShared)
	}
	return nil
}

// secretDefaults names a secret and where it goes: a file below /run/secrets, unless it is a variable only.
func (m *Mount) secretDefaults() error {
	if m.Mode != nil && *m.Mode > 0o7777 {
		return fmt.Errorf("invalid value %o for mode", *m.Mode)
	}
	if m.Source != "" {
		m.ID, m.Source = m.Source, ""
	}
	if m.ID == "" {
		m.ID = path.Base(m.Target)
	}
	if m.Env == nil && m.Target == "" {
		m.Target = "/run/secrets/" + path.Base(m.ID)
	}
	if m.Env != nil && *m.Env == "" {
		m.Env = &m.ID
	}
	if m.Env != nil && strings.ContainsAny(*m.Env, "=\x00") {
		return fmt.Errorf("invalid name of a variable: %q", *m.Env)
	}
	m.ReadOnly = true
	return nil
}

// sshDefaults names an agent and the socket of the N-th.
func (m *Mount) sshDefaults(n int) error {
	switch {
	case m.Source != "":
		return errors.New("ssh does not support source")
	case m.Env != nil:
		return fmt.Errorf("env not allowed for %q type mounts", m.Type)
	case m.Mode != nil && *m.Mode > 0o7777:
		return fmt.Errorf("invalid value %o for mode", *m.Mode)
	}
	if m.ID == "" {
		m.ID = "default"
	}
	if m.Target == "" {
		m.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
	return nil
}

// secretMask is what a title shows for a variable whose value is a secret.
const secretMask = "****"

// titleVars are the variables for the title of R: secrets that it gets as variables are masked, as BuildKit does.
func (s *Scope) titleVars(r *Run) *env {
	if r.mounts == nil {
		return s.vars
	}
	given, err := r.mounts.parse(func(word string) (string, error) {
		res, err := expand(s.lex, word, s.vars)
		return res.Result, err
	})
	vars := s.vars
	for i := range given {
		m := mountOf(&given[i])
		if err != nil || m.Type != MountSecret || m.Env == nil || m.secretDefaults() != nil {
			continue // Expand will say what is wrong
		}
		if vars == s.vars {
			vars = vars.clone()
		}
		vars.set(*m.Env, secretMask)
	}
	return vars
}

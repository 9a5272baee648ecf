package dockerfile

import (
	"fmt"
	"strconv"
	"strings"
)

// Mode is a --chmod: an octal number, or changes as chmod(1) has them.
type Mode struct {
	octal   bool
	value   uint32
	changes []modeChange
}

// modeChange is one of u+x, go=u, +X.
type modeChange struct {
	who  uint32 // of 0o700, 0o070, 0o007
	op   byte
	bits uint32 // rwx as 0o7, setuid and setgid as 0o6000, sticky as 0o1000
	cond bool   // X
	from byte   // u, g or o: copy the bits of that class; 0 for none
}

// ParseMode reads the value of --chmod: octal up to 07777, or symbolic ("u=rwX,go-w").
func ParseMode(s string) (Mode, error) {
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > 0o7777 {
			return Mode{}, octalError(s)
		}
		return Mode{octal: true, value: uint32(n)}, nil
	}
	if s == "" || (s[0] >= '0' && s[0] <= '9') {
		return Mode{}, octalError(s)
	}
	var m Mode
	for clause := range strings.SplitSeq(s, ",") {
		changes, ok := parseClause(clause)
		if !ok {
			return Mode{}, fmt.Errorf("invalid chmod parameter: '%s': not a mode as chmod(1) has it", s)
		}
		m.changes = append(m.changes, changes...)
	}
	return m, nil
}

func octalError(s string) error {
	return fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", s)
}

func parseClause(s string) ([]modeChange, bool) {
	var who uint32
	for s != "" && strings.IndexByte("ugoa", s[0]) >= 0 {
		who |= map[byte]uint32{'u': 0o700, 'g': 0o070, 'o': 0o007, 'a': 0o777}[s[0]]
		s = s[1:]
	}
	if who == 0 {
		who = 0o777
	}
	var out []modeChange
	for s != "" && strings.IndexByte("+-=", s[0]) >= 0 {
		c := modeChange{who: who, op: s[0]}
		for s = s[1:]; s != "" && strings.IndexByte("+-=", s[0]) < 0; s = s[1:] {
			switch s[0] {
			case 'r':
				c.bits |= 4
			case 'w':
				c.bits |= 2
			case 'x':
				c.bits |= 1
			case 'X':
				c.cond = true
			case 's':
				c.bits |= 0o6000
			case 't':
				c.bits |= 0o1000
			case 'u', 'g', 'o':
				if c.from != 0 {
					return nil, false
				}
				c.from = s[0]
			default:
				return nil, false
			}
		}
		out = append(out, c)
	}
	return out, len(out) > 0 && s == ""
}

// Octal returns the number of a mode that is one.
func (m Mode) Octal() (value uint32, ok bool) { return m.value, m.octal }

// Apply returns the permission bits (07777) of a file or directory after the change.
func (m Mode) Apply(perm uint32, isDir bool) uint32 {
	if m.octal {
		return m.value
	}
	for _, c := range m.changes {
		perm = c.apply(perm, isDir)
	}
	return perm
}

func (c modeChange) apply(perm uint32, isDir bool) uint32 {
	rwx := c.bits & 7
	if c.cond && (isDir || perm&0o111 != 0) {
		rwx |= 1
	}
	switch c.from {
	case 'u':
		rwx |= perm >> 6 & 7
	case 'g':
		rwx |= perm >> 3 & 7
	case 'o':
		rwx |= perm & 7
	}
	bits := (rwx | rwx<<3 | rwx<<6) & c.who
	special := uint32(0) // of setuid, setgid and sticky those that WHO speaks of
	if c.who&0o700 != 0 {
		special |= 0o4000
	}
	if c.who&0o070 != 0 {
		special |= 0o2000
	}
	if c.who&0o007 != 0 {
		special |= 0o1000
	}
	bits |= c.bits & special
	switch c.op {
	case '+':
		return perm | bits
	case '-':
		return perm &^ bits
	}
	return perm&^(c.who|special) | bits
}

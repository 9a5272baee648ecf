package dockerfile

import (
	"fmt"
	"strconv"
	"strings"
)

// Mode is a --chmod: an octal number, or changes as BuildKit's library, which comes from BSD, makes them. Where chmod(1) of
// GNU differs: X looks at the mode before any change, "t" belongs to u, g and a, and "=" leaves the sticky bit.
type Mode struct {
	octal bool
	value uint32
	steps []modeStep
}

// modeStep sets or clears bits, or gives the rwx of one class to others.
type modeStep struct {
	op   byte   // '+'; '-'; 'X', which is '+' for what is executable; 'u', 'g' or 'o', the class that is copied
	bits uint32 // which; of a copy the rwx of the classes that get it
	how  byte   // of a copy: '+', '-' or '='
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
		if !m.addClause(clause) {
			return Mode{}, fmt.Errorf("invalid chmod parameter: '%s': not a mode as chmod(1) has it", s)
		}
	}
	return m, nil
}

func octalError(s string) error {
	return fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", s)
}

const (
	setIDs = 0o6000
	sticky = 0o1000
)

// addClause reads one of the changes between commas: u+x, go=u, +X.
func (m *Mode) addClause(s string) bool {
	var who uint32
	for s != "" && strings.IndexByte("ugoa", s[0]) >= 0 {
		who |= map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o007, 'a': 0o6777}[s[0]]
		s = s[1:]
	}
	if s == "" {
		return false
	}
	for s != "" {
		op := s[0]
		if strings.IndexByte("+-=", op) < 0 {
			return false
		}
		n := 1
		for n < len(s) && strings.IndexByte("rwxXstugo", s[n]) >= 0 {
			n++
		}
		m.addChange(who, op, s[1:n])
		s = s[n:]
	}
	return true
}

// addChange adds one operator with its letters.
func (m *Mode) addChange(who uint32, op byte, letters string) {
	var perm, executable uint32
	cleared := op != '=' // "=" without permissions clears, once
	flush := func() {
		if perm != 0 || !cleared {
			m.addBits(who, op, perm)
			cleared = true
		}
		if executable != 0 {
			m.addBits(who, 'X', executable)
		}
		perm, executable = 0, 0
	}
	special := who == 0 || who&^0o007 != 0
	for i := range len(letters) {
		switch c := letters[i]; c {
		case 'r':
			perm |= 0o444
		case 'w':
			perm |= 0o222
		case 'x':
			perm |= 0o111
		case 'X':
			if op == '-' {
				perm |= 0o111
			} else {
				executable = 0o111
			}
		case 's':
			if special {
				perm |= setIDs
			}
		case 't':
			if special {
				who |= sticky
				perm |= sticky
			}
		default: // a class: what came before is done first, and the copy clears
			cleared = true
			flush()
			to := who & 0o777
			if who == 0 {
				to = 0o777
			}
			m.steps = append(m.steps, modeStep{op: c, bits: to, how: op})
		}
	}
	flush()
}

func (m *Mode) addBits(who uint32, op byte, perm uint32) {
	if op == '=' {
		old := who
		if old == 0 {
			old = setIDs | 0o777
		}
		m.steps = append(m.steps, modeStep{op: '-', bits: old})
		op = '+'
	}
	if who != 0 {
		perm &= who
	}
	m.steps = append(m.steps, modeStep{op: op, bits: perm})
}

// Octal returns the number of a mode that is one.
func (m Mode) Octal() (value uint32, ok bool) { return m.value, m.octal }

// Apply returns the permission bits (07777) of a file or directory after the change.
func (m Mode) Apply(perm uint32, isDir bool) uint32 {
	if m.octal {
		return m.value
	}
	before := perm
	for _, st := range m.steps {
		switch st.op {
		case '+':
			perm |= st.bits
		case '-':
			perm &^= st.bits
		case 'X':
			if isDir || before&0o111 != 0 {
				perm |= st.bits
			}
		default:
			perm = st.copyClass(perm)
		}
	}
	return perm
}

func (st modeStep) copyClass(perm uint32) uint32 {
	rwx := perm >> map[byte]uint{'u': 6, 'g': 3, 'o': 0}[st.op] & 7 * 0o111 & st.bits
	switch st.how {
	case '+':
		return perm | rwx
	case '-':
		return perm &^ rwx
	}
	return perm&^st.bits | rwx
}

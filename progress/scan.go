package progress

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type scanState uint8

const (
	ground        scanState = iota
	escape                  // after ESC
	escapeMore              // ESC and intermediate bytes
	controlSeq              // ESC [
	controlString           // ESC ] and the like, until BEL or ESC \
	stringEscape            // an ESC inside such a string
)

// maxSequence bounds what an unfinished control sequence can swallow.
const maxSequence = 4 << 10

// sink receives clean text and line ends.
type sink interface {
	text(p []byte)
	// lineEnd ends the line; overwrite means that a terminal would have put the next line over this one.
	lineEnd(overwrite bool)
}

// scanner cleans one stream of log output: escape sequences and control characters go, invalid UTF-8 becomes U+FFFD, a
// newline ends a line and so does a lone carriage return. Sequences may be split between calls.
type scanner struct {
	state   scanState
	cr      bool // a carriage return was the last byte
	seq     int  // bytes in the current sequence
	partial [utf8.UTFMax]byte
	have    int // bytes in partial
}

func (s *scanner) scan(p []byte, to sink) {
	for len(p) > 0 {
		if s.state != ground {
			p = s.skip(p)
			continue
		}
		if s.have > 0 {
			p = s.complete(p, to)
			continue
		}
		n := plainRun(p)
		if n > 0 {
			s.carriage(p[0], to)
			to.text(p[:n])
			p = p[n:]
			continue
		}
		p = s.special(p, to)
	}
}

// flush ends what can no longer be completed.
func (s *scanner) flush(to sink) {
	s.invalid(s.have, to)
	s.carriage(0, to)
}

// invalid stands in for N bytes that are no UTF-8, and forgets the unfinished rune.
func (s *scanner) invalid(n int, to sink) {
	for range n {
		to.text([]byte("\uFFFD"))
	}
	s.have = 0
}

// plainRun is the number of leading bytes that need no thought.
func plainRun(p []byte) int {
	for i, c := range p {
		if (c < 0x20 && c != '\t') || c >= 0x7f {
			return i
		}
	}
	return len(p)
}

// carriage resolves a pending carriage return now that the next byte is known.
func (s *scanner) carriage(next byte, to sink) {
	if s.cr && next != '\n' {
		to.lineEnd(true)
	}
	s.cr = false
}

// special handles the byte or rune at the start of P and returns the rest.
func (s *scanner) special(p []byte, to sink) []byte {
	c := p[0]
	switch {
	case c == '\r':
		s.cr = true
		return p[1:]
	case c == '\n':
		s.cr = false
		to.lineEnd(false)
		return p[1:]
	case c == 0x1b:
		s.state, s.seq = escape, 0
		return p[1:]
	case c < 0x20 || c == 0x7f:
		return p[1:]
	}
	s.carriage(c, to)
	if !utf8.FullRune(p) {
		s.have = copy(s.partial[:], p)
		return nil
	}
	r, n := utf8.DecodeRune(p)
	s.rune(r, p[:n], to)
	return p[n:]
}

// complete adds bytes to a rune that an earlier call cut in two.
func (s *scanner) complete(p []byte, to sink) []byte {
	for len(p) > 0 && s.have < utf8.UTFMax && !utf8.FullRune(s.partial[:s.have]) {
		if p[0]&0xc0 != 0x80 {
			s.invalid(s.have, to)
			return p
		}
		s.partial[s.have] = p[0]
		s.have++
		p = p[1:]
	}
	if !utf8.FullRune(s.partial[:s.have]) {
		return p
	}
	r, n := utf8.DecodeRune(s.partial[:s.have])
	rest := s.have - n // bytes after an invalid start: each is invalid too
	s.rune(r, s.partial[:n], to)
	s.invalid(rest, to)
	return p
}

func (s *scanner) rune(r rune, enc []byte, to sink) {
	switch {
	case r == utf8.RuneError && len(enc) == 1:
		to.text([]byte("\uFFFD"))
	case !hidden(r):
		to.text(enc)
	}
}

// hidden reports characters that would move the cursor or turn the reading direction of what we print around them.
func hidden(r rune) bool {
	return unicode.IsControl(r) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

// skip consumes bytes of a control sequence.
func (s *scanner) skip(p []byte) []byte {
	for i, c := range p {
		s.seq++
		if c == '\n' || c == '\r' || s.seq > maxSequence {
			s.state = ground
			return p[i:]
		}
		if s.step(c); s.state == ground {
			return p[i+1:]
		}
	}
	return nil
}

func (s *scanner) step(c byte) {
	switch s.state {
	case ground:
	case escape:
		switch {
		case c == '[':
			s.state = controlSeq
		case strings.IndexByte("]PX^_", c) >= 0:
			s.state = controlString
		case c >= 0x20 && c <= 0x2f:
			s.state = escapeMore
		case c == 0x1b:
		default:
			s.state = ground
		}
	case escapeMore:
		if c < 0x20 || c > 0x2f {
			s.state = ground
		}
	case controlSeq:
		if c < 0x20 || c > 0x3f {
			s.state = ground
		}
	case controlString:
		switch c {
		case 0x07:
			s.state = ground
		case 0x1b:
			s.state = stringEscape
		}
	case stringEscape:
		if c == '\\' {
			s.state = ground
		} else if c != 0x1b {
			s.state = controlString
		}
	}
}

// cleanName makes S safe to print on one line: a step's name, an error, a warning.
func cleanName(name string) string {
	clean := true
	for _, r := range name {
		if r == utf8.RuneError || r == '\t' || hidden(r) {
			clean = false
			break
		}
	}
	if clean {
		return name
	}
	var b nameSink
	var s scanner
	s.scan([]byte(name), &b)
	s.flush(&b)
	return strings.ReplaceAll(strings.TrimRight(string(b), " "), "\t", " ")
}

// nameSink joins lines by spaces.
type nameSink []byte

func (b *nameSink) text(p []byte) { *b = append(*b, p...) }
func (b *nameSink) lineEnd(bool)  { *b = append(*b, ' ') }

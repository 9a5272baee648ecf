//go:build integration

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// screen is a small model of a terminal: it obeys what fbuild may send and notes
// everything else as a fault. What scrolls out goes to history.
type screen struct {
	mu            sync.Mutex
	width, height int
	rows          [][]rune
	x, y          int
	wrap          bool // the cursor stands behind the last column
	hidden        bool // the cursor
	colored       bool // any colour was ever set
	history       []string
	raw           []byte
	pending       []byte
	faults        []string
}

func newScreen(width, height int) *screen {
	s := &screen{width: width, height: height}
	for range height {
		s.rows = append(s.rows, blankRow(width))
	}
	return s
}

func blankRow(width int) []rune { return []rune(strings.Repeat(" ", width)) }

// Write takes what the program printed.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = append(s.raw, p...)
	s.pending = append(s.pending, p...)
	for len(s.pending) > 0 {
		n := s.take(s.pending)
		if n == 0 {
			break
		}
		s.pending = s.pending[n:]
	}
	return len(p), nil
}

// take obeys what p begins with and returns its length, 0 where more must come.
func (s *screen) take(p []byte) int {
	switch p[0] {
	case '\n':
		s.lineFeed()
		return 1
	case '\r':
		s.x, s.wrap = 0, false
		return 1
	case 0x1b:
		return s.sequence(p)
	}
	if p[0] < 0x20 || p[0] == 0x7f {
		s.faults = append(s.faults, fmt.Sprintf("control character %#x", p[0]))
		return 1
	}
	if !utf8.FullRune(p) {
		return 0
	}
	r, n := utf8.DecodeRune(p)
	s.put(r)
	return n
}

func (s *screen) sequence(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	if p[1] != '[' {
		s.faults = append(s.faults, fmt.Sprintf("escape %q", p[:2]))
		return 2
	}
	for i := 2; i < len(p); i++ {
		if p[i] >= 0x40 && p[i] <= 0x7e {
			s.control(string(p[2:i]), p[i])
			return i + 1
		}
	}
	return 0
}

// control obeys a control sequence.
func (s *screen) control(args string, final byte) {
	n, err := strconv.Atoi(args)
	if err != nil {
		n = 1
	}
	switch {
	case final == 'A':
		s.y, s.wrap = max(0, s.y-n), false
	case final == 'K' && args == "":
		copy(s.rows[s.y][s.x:], blankRow(s.width-s.x))
	case final == 'J' && args == "":
		copy(s.rows[s.y][s.x:], blankRow(s.width-s.x))
		for y := s.y + 1; y < s.height; y++ {
			s.rows[y] = blankRow(s.width)
		}
	case final == 'm':
		s.colored = true
	case args == "?25" && (final == 'l' || final == 'h'):
		s.hidden = final == 'l'
	default:
		s.faults = append(s.faults, fmt.Sprintf("control sequence %q", args+string(final)))
	}
}

func (s *screen) lineFeed() {
	s.wrap = false
	if s.y++; s.y < s.height {
		return
	}
	s.y--
	s.history = append(s.history, strings.TrimRight(string(s.rows[0]), " "))
	s.rows = append(s.rows[1:], blankRow(s.width))
}

func (s *screen) put(r rune) {
	w := cellsOf(r)
	if w == 0 {
		return
	}
	if s.wrap || s.x+w > s.width {
		s.x = 0
		s.lineFeed()
	}
	s.rows[s.y][s.x] = r
	for i := 1; i < w; i++ {
		s.rows[s.y][s.x+i] = 0
	}
	if s.x += w; s.x >= s.width {
		s.x, s.wrap = s.width-1, true
	}
}

// cellsOf knows the characters that the tests print.
func cellsOf(r rune) int {
	switch {
	case r >= 0x300 && r < 0x370, r == 0x200b, r == 0xfe0f:
		return 0
	case r >= 0x4e00 && r < 0xa000, r >= 0xac00 && r < 0xd7a4, r >= 0x1f300 && r < 0x1f700:
		return 2
	}
	return 1
}

// resize changes the size as a terminal that does not flow its text again.
func (s *screen) resize(width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for y, row := range s.rows {
		s.rows[y] = append(row, blankRow(max(0, width-len(row)))...)[:width]
	}
	for len(s.rows) < height {
		s.rows = append(s.rows, blankRow(width))
	}
	for len(s.rows) > height { // the lines above scroll out
		if s.y < height {
			s.rows = s.rows[:height]
			break
		}
		s.history = append(s.history, strings.TrimRight(string(s.rows[0]), " "))
		s.rows, s.y = s.rows[1:], s.y-1
	}
	s.width, s.height, s.x, s.wrap = width, height, min(s.x, width-1), false
}

// text is what a person sees, without the blank rows at the end.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, row := range s.rows {
		b.WriteString(strings.TrimRight(strings.ReplaceAll(string(row), "\x00", ""), " "))
		b.WriteByte('\n')
	}
	return strings.TrimRight(b.String(), "\n")
}

// all is the text with what scrolled out before it.
func (s *screen) all() string {
	text := s.text()
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(append(append([]string(nil), s.history...), text), "\n")
}

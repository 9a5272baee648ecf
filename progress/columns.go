package progress

import (
	"strings"
	"unicode"
)

// columnsOf is how many columns a terminal gives a character: 0 for combining marks, 2 for wide East Asian ones and emoji.
func columnsOf(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf), r >= 0x1160 && r <= 0x11ff:
		return 0
	case r < 0x1100:
		return 1
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f680 && r <= 0x1f6ff, r >= 0x1f900 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

func columns(s string) int {
	n := 0
	for _, r := range s {
		n += columnsOf(r)
	}
	return n
}

// truncate cuts S to at most WIDTH columns.
func truncate(s string, width int) string {
	n := 0
	for i, r := range s {
		n += columnsOf(r)
		if n > width {
			return s[:i]
		}
	}
	return s
}

// expandTabs replaces tabs by spaces up to the next multiple of eight.
func expandTabs(s string) string {
	if !strings.Contains(s, "\t") {
		return s
	}
	var b strings.Builder
	n := 0
	for _, r := range s {
		if r != '\t' {
			b.WriteRune(r)
			n += columnsOf(r)
			continue
		}
		pad := 8 - n%8
		b.WriteString(strings.Repeat(" ", pad))
		n += pad
	}
	return b.String()
}

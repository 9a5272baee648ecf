package progress

import (
	"fmt"
	"strings"
)

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearLine  = "\x1b[K" // to the end of the line
	clearBelow = "\x1b[J"
)

// ttyPrinter draws pictures over each other.
type ttyPrinter struct {
	out    *stickyWriter
	size   func() (width, height int)
	colors colors
	drawn  []line // what stands above the cursor
}

// draw replaces what was drawn before.
func (t *ttyPrinter) draw(p picture) {
	width, height := t.size()
	if !p.last && len(p.rows) == 0 {
		return
	}
	text := t.paint(p.lines(width, height), width, height)
	_, _ = t.out.Write([]byte(text)) // the writer keeps the error for Close
}

// paint is the text that turns what is on the screen into LINES. Lines drawn before may have been wrapped by a terminal
// that became narrower: they are counted at the width of now. What has scrolled out of sight can't be reached.
func (t *ttyPrinter) paint(lines []line, width, height int) string {
	var b strings.Builder
	b.WriteString(hideCursor)
	up := 0
	for _, l := range t.drawn {
		up += max(1, (columns(strings.TrimRight(l.text, " "))+width-1)/width)
	}
	if up = min(up, height-1); up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	b.WriteByte('\r')
	for _, l := range lines {
		color := ""
		switch {
		case l.faint:
			color = t.colors.faint
		case l.color == doneColor:
			color = t.colors.done
		case l.color == canceledColor:
			color = t.colors.canceled
		case l.color == failedColor:
			color = t.colors.failed
		}
		b.WriteString(t.colors.paint(color, l.text))
		if columns(l.text) < width { // at the margin the cursor still stands on the last character, which would go
			b.WriteString(clearLine)
		}
		b.WriteByte('\n')
	}
	b.WriteString(clearBelow)
	b.WriteString(showCursor)
	t.drawn = lines
	return b.String()
}

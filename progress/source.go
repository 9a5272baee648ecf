package progress

import (
	"fmt"
	"strings"
)

// SourceBox formats the lines START to END (counted from 1) of the file NAME with some lines around them, as docker shows
// where a build failed. It is "" when START is not a line of the file.
func SourceBox(name string, lines []string, start, end int) string {
	if start < 1 || start > len(lines) {
		return ""
	}
	end = min(max(end, start), len(lines))
	around := 1
	if end == start {
		around = 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n--------------------\n", cleanName(name), start)
	for i := max(start-around, 1); i <= min(end+around, len(lines)); i++ {
		mark := "   "
		if i >= start && i <= end {
			mark = ">>>"
		}
		fmt.Fprintf(&b, " %3d | %s %s\n", i, mark, cleanSource(lines[i-1]))
	}
	b.WriteString("--------------------\n")
	return b.String()
}

// cleanSource removes what a terminal would obey, and keeps tabs.
func cleanSource(line string) string {
	line = strings.TrimRight(line, "\r\n")
	var b nameSink
	var s scanner
	s.scan([]byte(line), &b)
	s.flush(&b)
	return string(b)
}

package dockerfile

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// isSignal tells whether S is a signal's number or name, with or without SIG.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, rt := range []string{"RTMIN+", "RTMAX-"} {
		if off, ok := strings.CutPrefix(name, rt); ok {
			n, err := strconv.ParseUint(off, 10, 8)
			return err == nil && n <= 15
		}
	}
	switch name {
	case "RTMIN", "RTMAX", "CLD", "IOT", "POLL", "UNUSED":
		return true
	}
	return name != "" && unix.SignalNum("SIG"+name) != 0
}

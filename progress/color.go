package progress

// colors are the escape sequences of the terminal view; empty ones print nothing.
type colors struct {
	done, canceled, failed, faint, reset string
}

// chooseColors takes BuildKit's colours unless NO_COLOR is set.
func chooseColors(getenv func(string) string) colors {
	if getenv("NO_COLOR") != "" {
		return colors{}
	}
	return colors{done: "\x1b[34m", canceled: "\x1b[33m", failed: "\x1b[31m", faint: "\x1b[2m", reset: "\x1b[0m"}
}

func (c colors) paint(color, text string) string {
	if color == "" {
		return text
	}
	return color + text + c.reset
}

package progress

// maxKeptLine bounds one remembered log line; the rest of a longer one is printed but not remembered.
const maxKeptLine = 4 << 10

// logLine is one remembered line.
type logLine struct {
	stamp     string // seconds since the step began
	text      []byte
	overwrite bool // ended by a carriage return: the next line takes its place
}

// tail remembers the last lines of a log.
type tail struct {
	ring []logLine // oldest first
	max  int
	open bool // the newest line has not ended yet
}

func newTail(n int) *tail { return &tail{max: n} }

// add appends P to the open line, opening one where there is none, and reports whether it did.
func (t *tail) add(p []byte, stamp func() string) (fresh bool) {
	if !t.open {
		fresh, t.open = true, true
		t.push(stamp())
	}
	l := t.last()
	if room := maxKeptLine - len(l.text); room >= len(p) {
		l.text = append(l.text, p...)
	} else if room > 0 {
		l.text = append(append(l.text, p[:room]...), "..."...)
	}
	return fresh
}

func (t *tail) push(stamp string) {
	n := len(t.ring)
	switch {
	case n > 0 && t.ring[n-1].overwrite:
		t.ring = t.ring[:n-1]
		t.ring = append(t.ring, logLine{stamp: stamp})
	case n < t.max:
		t.ring = append(t.ring, logLine{stamp: stamp})
	default:
		copy(t.ring, t.ring[1:])
		t.ring[n-1] = logLine{stamp: stamp}
	}
}

func (t *tail) end(overwrite bool) {
	t.open = false
	t.last().overwrite = overwrite
}

// last is the newest line; there must be one.
func (t *tail) last() *logLine { return &t.ring[len(t.ring)-1] }

func (t *tail) lines() []logLine { return t.ring }

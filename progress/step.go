package progress

import (
	"context"
	"errors"
	"time"
)

type state uint8

const (
	waiting state = iota
	running
	finished
	cached
	failed
	canceled
)

// maxStatuses bounds what one step keeps of its sub-statuses: the oldest that are done go first.
const maxStatuses = 256

// Step is one row of the display. All methods may be called at any time; after the first of Cached, Done and Canceled,
// and after the display is closed, they do nothing.
type Step struct {
	d      *Display
	name   string
	number int // in the order of creation

	// All below is guarded by d.mu.
	state    state
	start    time.Time
	end      time.Time
	err      string
	statuses []*status
	warnings []string
	notes    []string
	because  string // of a step that is cached: how, in a word or two
	scan     [2]scanner
	tail     *tail
	logged   int64 // bytes, to rank the panes
	text     plainText
	turn     turn
}

// status is one "sub status" row of a step.
type status struct {
	id             string
	current, total int64
	start, end     time.Time // end is zero until done
	at             time.Time // of the last change
	news           bool      // not printed yet
	printed        bool
	printedCurrent int64
	printedAt      time.Time
}

// Start marks the step as running from now on.
func (s *Step) Start() { s.event(func(time.Time) {}) }

// Waited says that the step waited for others just now, for so long: that is their time.
func (s *Step) Waited(d time.Duration) {
	if d < time.Millisecond { // nobody would see it
		return
	}
	s.event(func(now time.Time) {
		if s.start = s.start.Add(d); s.start.After(now) {
			s.start = now
		}
		if s.d.raw != nil {
			s.d.raw.vertex(s)
		}
	})
}

// Log adds output of the step: stream 1 is stdout, 2 is stderr. Lines need not be complete.
func (s *Step) Log(stream int, p []byte) {
	if len(p) == 0 {
		return
	}
	sc := &s.scan[0]
	if stream == 2 {
		sc = &s.scan[1]
	}
	for len(p) > 0 { // in pieces, so that the bound on unprinted text holds whatever the size of a write
		n := min(len(p), pendingLimit/4)
		part := p[:n]
		p = p[n:]
		s.event(func(now time.Time) {
			s.logged += int64(n)
			if s.d.raw != nil {
				s.d.raw.log(s, stream, part, now)
				return
			}
			sc.scan(part, &logSink{s: s, now: now})
		})
	}
}

// Status shows how far a part of the step is (a transfer, a layer). A total of 0 means unknown.
func (s *Step) Status(id string, current, total int64, done bool) {
	s.event(func(now time.Time) {
		id := cleanName(id)
		st := s.findStatus(id, now)
		if !st.end.IsZero() {
			return
		}
		st.current, st.total, st.at, st.news = current, total, now, true
		if done {
			st.end = now
		}
		if s.d.raw != nil {
			s.d.raw.status(s, st)
		}
	})
}

// Warn shows a warning below the step.
func (s *Step) Warn(text string) {
	s.event(func(time.Time) {
		if len(s.warnings) < maxStatuses {
			s.warnings = append(s.warnings, cleanName(text))
		}
		if s.d.raw != nil {
			s.d.raw.warning(s, cleanName(text))
		}
	})
}

// Note shows a line about the step itself, as why it runs. Lines for a log have it; the live view has no room for it.
func (s *Step) Note(text string) {
	s.event(func(now time.Time) {
		text := cleanName(text)
		if len(s.notes) < maxStatuses {
			s.notes = append(s.notes, text)
		}
		if s.d.raw != nil { // as a part of the step that is done at once, which is how BuildKit's readers show it
			s.d.raw.status(s, &status{id: text, start: now, end: now, at: now})
		}
	})
}

// Cached ends the step: its result was there already.
func (s *Step) Cached() { s.CachedBecause("") }

// CachedBecause ends the step as Cached does and says how the result was found, in a word or two: CACHED (traced).
func (s *Step) CachedBecause(text string) { s.finish(cached, nil, text) }

// cachedText is how a cached step is shown.
func (s *Step) cachedText() string {
	if s.because == "" {
		return "CACHED"
	}
	return "CACHED (" + s.because + ")"
}

// Canceled ends the step: another one failed, or the caller interrupted the build. One that never began is not shown.
func (s *Step) Canceled() { s.finish(canceled, nil, "") }

// Done ends the step, well when err is nil. An error that is context.Canceled counts as Canceled.
func (s *Step) Done(err error) {
	switch {
	case err == nil:
		s.finish(finished, nil, "")
	case errors.Is(err, context.Canceled):
		s.finish(canceled, nil, "")
	default:
		s.finish(failed, err, "")
	}
}

func (s *Step) finish(to state, err error, because string) {
	if to == canceled && !s.began() {
		return
	}
	s.event(func(now time.Time) {
		if err != nil {
			s.err = cleanName(err.Error())
		}
		for i := range s.scan {
			s.scan[i].flush(&logSink{s: s, now: now})
		}
		s.state, s.end, s.because = to, now, cleanName(because)
	})
}

func (s *Step) began() bool {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.state != waiting
}

// event applies CHANGE under the lock and tells the plain printer. The first event of a step starts it.
func (s *Step) event(change func(now time.Time)) {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || s.state > running {
		return
	}
	now := d.now()
	was := s.state
	if s.state == waiting {
		s.state, s.start = running, now
		d.started = append(d.started, s)
		if d.raw != nil {
			d.raw.vertex(s)
		}
	}
	change(now)
	if d.raw != nil && s.state > running && s.state != was {
		d.raw.vertex(s)
	}
	if d.plain != nil {
		d.plain.changed(d.started, s, now)
	}
}

// findStatus returns the row ID, making it where needed.
func (s *Step) findStatus(id string, now time.Time) *status {
	for _, st := range s.statuses {
		if st.id == id {
			return st
		}
	}
	if len(s.statuses) >= maxStatuses {
		drop := 0
		for i, st := range s.statuses {
			if !st.end.IsZero() && !st.news {
				drop = i
				break
			}
		}
		s.statuses = append(s.statuses[:drop], s.statuses[drop+1:]...)
	}
	st := &status{id: id, start: now}
	s.statuses = append(s.statuses, st)
	return st
}

// duration is how long the step has run, or ran.
func (s *Step) duration(now time.Time) time.Duration {
	if s.state > running {
		now = s.end
	}
	return now.Sub(s.start)
}

// logSink feeds what the scanner let through to the tail and to the plain printer.
type logSink struct {
	s   *Step
	now time.Time
}

func (l *logSink) text(p []byte) {
	s := l.s
	fresh := s.tail.add(p, func() string { return stamp(l.now.Sub(s.start)) })
	if s.d.plain == nil {
		return
	}
	if fresh {
		s.text.pending = append(s.text.pending, s.tail.last().stamp...)
		s.text.pending = append(s.text.pending, ' ')
	}
	s.text.pending = append(s.text.pending, p...)
}

func (l *logSink) lineEnd(overwrite bool) {
	s := l.s
	if !s.tail.open {
		if overwrite {
			return
		}
		l.text(nil) // an empty line has a stamp too
	}
	s.tail.end(overwrite)
	if s.d.plain != nil {
		s.text.pending = append(s.text.pending, '\n')
	}
}

package progress

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

const (
	// pendingLimit is how much unprinted text a step may have before it is printed out of turn: the bound on memory.
	pendingLimit = 64 << 10
	// maxWait is how long a step with news waits for the printer at most.
	maxWait = 10 * time.Second
	// minTurn is how long a step keeps the printer that alone has news; the more of the output is its own, the longer.
	minTurn = 5 * time.Second
	// A status is printed again when it moved by statusStep of its total or after statusPause.
	statusStep  = 0.05
	statusPause = 5 * time.Second
)

// plainText is what the plain printer knows of a step's log.
type plainText struct {
	pending []byte // stamped lines not printed yet; the last may be incomplete
	wire    bool   // the last thing printed is an incomplete line of this step
	shown   []byte // what of that line was printed (at most maxKeptLine)
	resume  []byte // an incomplete line that was interrupted: printed again before it goes on
	warned  int    // warnings printed
	noted   int    // notes printed
}

// turn is a step's share of the printer.
type turn struct {
	index int // #N; 0 until first shown
	news  bool
	count int       // events since the turn before
	since time.Time // the first of them
}

// plainPrinter prints steps in turns: one owns the printer, the others wait with their news.
type plainPrinter struct {
	out     *stickyWriter
	every   time.Duration
	buf     bytes.Buffer
	printed time.Time // the last print
	current *Step
	last    int // the last number given
	begun   bool
}

func newPlain(out *stickyWriter, every time.Duration) *plainPrinter {
	return &plainPrinter{out: out, every: every}
}

// changed notes an event of S, and prints when the last print is long enough ago or S holds too much.
func (p *plainPrinter) changed(started []*Step, s *Step, now time.Time) {
	s.turn.news = true
	if s.turn.count == 0 {
		s.turn.since = now
	}
	s.turn.count++
	if len(s.text.pending) >= pendingLimit {
		p.show(s, now)
		p.send()
	}
	if now.Sub(p.printed) >= p.every {
		p.print(started, now)
	}
}

// print shows everything that finished, then lets one of the running steps speak.
func (p *plainPrinter) print(started []*Step, now time.Time) {
	p.printed = now
	var ended, open []*Step
	for _, s := range started {
		switch {
		case s.state > running && s.turn.news:
			ended = append(ended, s)
		case s.state == running:
			open = append(open, s)
		}
	}
	owner := p.current
	if slices.Contains(ended, owner) {
		p.show(owner, now)
	}
	slices.SortStableFunc(ended, func(a, b *Step) int { return a.end.Compare(b.end) })
	for _, s := range ended {
		if s != owner {
			p.show(s, now)
		}
	}
	if next := p.next(owner, open, now); next != nil {
		p.show(next, now)
	}
	p.send()
}

// next chooses which of the running steps speaks now, after the owner itself; nil means that there is nothing to say.
func (p *plainPrinter) next(owner *Step, open []*Step, now time.Time) *Step {
	ownerRuns := owner != nil && owner.state == running
	if ownerRuns && owner.turn.news {
		p.show(owner, now)
	}
	var news []*Step
	for _, s := range open {
		if s.turn.news {
			news = append(news, s)
		}
	}
	if len(news) == 0 {
		if ownerRuns || len(open) == 0 {
			return nil
		}
		return open[0] // nothing new, but show that something runs
	}
	busiest, share, late := rank(owner, news, now)
	switch {
	case p.current == nil:
		return busiest
	case late != nil:
		return late
	case minTurn.Seconds()/(1-share) < now.Sub(owner.turn.since).Seconds():
		return busiest
	}
	return nil
}

// rank finds the step with the most events per second, the owner's share of all events, and a step that waited too long.
func rank(owner *Step, news []*Step, now time.Time) (busiest *Step, share float64, late *Step) {
	var sum, own, best float64
	speed := func(s *Step) float64 {
		return float64(s.turn.count) / max(now.Sub(s.turn.since).Seconds(), 1e-3)
	}
	for _, s := range news {
		v := speed(s)
		if s == owner {
			continue
		}
		sum += v
		if busiest == nil || v > best {
			busiest, best = s, v
		}
		if late == nil && now.Sub(s.turn.since) > maxWait {
			late = s
		}
	}
	if owner != nil && owner.state == running {
		own = speed(owner)
		sum += own
		if busiest == nil || own > best {
			busiest = owner
		}
	}
	if late != nil {
		busiest = late
	}
	if sum > 0 {
		share = own / sum
	}
	return busiest, share, late
}

// show prints the news of S, taking the printer from its owner.
func (p *plainPrinter) show(s *Step, now time.Time) {
	if s.turn.index == 0 {
		p.last++
		s.turn.index = p.last
	}
	if p.current != s {
		p.change(s)
	}
	for _, n := range s.notes[s.text.noted:] {
		p.event(s, n)
	}
	s.text.noted = len(s.notes)
	p.statuses(s)
	for _, w := range s.warnings[s.text.warned:] {
		p.event(s, "WARN: "+w)
	}
	s.text.warned = len(s.warnings)
	p.logs(s)
	if s.state > running {
		p.end(s, now)
	}
	s.turn.news = false
}

// change moves the printer to S.
func (p *plainPrinter) change(s *Step) {
	if old := p.current; old != nil {
		p.breakLine(old)
		old.turn.count = 0
		fmt.Fprintf(&p.buf, "#%d ...\n", old.turn.index)
	}
	if p.begun {
		p.buf.WriteByte('\n')
	}
	p.begun = true
	p.current = s
	fmt.Fprintf(&p.buf, "#%d %s\n", s.turn.index, s.name)
}

// event prints one line about S itself.
func (p *plainPrinter) event(s *Step, text string) {
	p.breakLine(s)
	fmt.Fprintf(&p.buf, "#%d %s\n", s.turn.index, text)
}

func (p *plainPrinter) statuses(s *Step) {
	for _, st := range s.statuses {
		if !st.news {
			continue
		}
		st.news = false
		done := !st.end.IsZero()
		if st.printed && !done {
			moved := st.total > 0 && float64(st.current-st.printedCurrent)/float64(st.total) >= statusStep
			if !moved && st.at.Sub(st.printedAt) < statusPause {
				continue
			}
		}
		st.printed, st.printedCurrent, st.printedAt = true, st.current, st.at
		line := st.id
		if a := st.amount(); a != "" {
			line += " " + a
		}
		if took := st.at.Sub(st.start).Seconds(); took > 0.01 {
			line += fmt.Sprintf(" %.1fs", took)
		}
		if done {
			line += " done"
		}
		p.event(s, line)
	}
}

// breakLine ends an incomplete line of S, which is printed again in full when it goes on.
func (p *plainPrinter) breakLine(s *Step) {
	if !s.text.wire {
		return
	}
	p.buf.WriteByte('\n')
	s.text.wire = false
	s.text.resume, s.text.shown = s.text.shown, nil
}

// logs prints the pending lines of S.
func (p *plainPrinter) logs(s *Step) {
	t := &s.text
	rest := t.pending
	for len(rest) > 0 {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		rest = after
		if !t.wire {
			fmt.Fprintf(&p.buf, "#%d ", s.turn.index)
			p.buf.Write(t.resume)
			t.shown = append(t.shown[:0], t.resume...)
			t.resume = nil
		}
		p.buf.Write(line)
		t.wire = !ended
		if ended {
			p.buf.WriteByte('\n')
			t.shown = nil
			continue
		}
		if room := maxKeptLine - len(t.shown); room > 0 {
			t.shown = append(t.shown, line[:min(room, len(line))]...)
		}
	}
	if cap(t.pending) > 2*pendingLimit {
		t.pending = nil
	}
	t.pending = t.pending[:0]
}

// end prints how S ended and gives the printer up.
func (p *plainPrinter) end(s *Step, now time.Time) {
	var text string
	switch s.state {
	case cached:
		text = s.cachedText()
	case canceled:
		text = "CANCELED"
	case failed:
		text = "ERROR: " + s.err
	default:
		text = fmt.Sprintf("DONE %.1fs", s.duration(now).Seconds())
	}
	p.event(s, text)
	s.text = plainText{}
	if s.state != failed {
		s.tail = newTail(0)
	}
	p.current = nil
}

// send writes what was printed, in one piece.
func (p *plainPrinter) send() {
	if p.buf.Len() > 0 {
		_, _ = p.out.Write(p.buf.Bytes()) // the writer keeps the error for Close
	}
	p.buf.Reset()
	if p.buf.Cap() > 4*pendingLimit {
		p.buf = bytes.Buffer{}
	}
}

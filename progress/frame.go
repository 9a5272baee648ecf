package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// row is one line of the view before it is fitted to a width.
type row struct {
	text    string
	amount  string  // how far a status is
	part    float64 // the same as a part of the whole; 0 where that is unknown
	took    time.Duration
	ended   bool
	color   rowColor
	pane    []string // the last log lines of a running step
	logged  int64
	running bool // a step (not a status) that has not ended
}

type rowColor uint8

const (
	noColor rowColor = iota
	doneColor
	canceledColor
	failedColor
)

// picture is the state of a build at one instant: with a size it determines what the terminal shows.
type picture struct {
	doing       string
	rows        []row
	took        time.Duration
	ended, all  int // steps
	last        bool
	paneMaximum int
}

// line is one finished line of the view.
type line struct {
	text  string
	color rowColor
	faint bool
}

// snapshot copies what the view needs, so that drawing holds no lock.
func (d *Display) snapshot(last bool) picture {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	p := picture{doing: d.doing, took: now.Sub(d.begin), all: len(d.steps), last: last, paneMaximum: d.pane}
	for _, s := range d.started {
		if s.state > running {
			p.ended++
		}
		p.rows = s.rows(p.rows, now, d.pane)
	}
	return p
}

// rows appends the rows of a step: itself, its statuses, its warnings.
func (s *Step) rows(to []row, now time.Time, pane int) []row {
	r := row{text: s.name, took: s.duration(now), ended: s.state > running, running: s.state == running, color: noColor}
	switch s.state {
	case running:
		r.logged = s.logged
		for _, l := range s.tail.lines() {
			r.pane = append(r.pane, string(l.text))
		}
		r.pane = r.pane[max(0, len(r.pane)-pane):]
	case cached:
		r.text, r.color = s.cachedText()+" "+s.name, doneColor
	case canceled:
		r.text, r.color = "CANCELED "+s.name, canceledColor
	case failed:
		r.text, r.color = "ERROR "+s.name, failedColor
	default:
		r.color = doneColor
	}
	to = append(to, r)
	for _, st := range s.statuses {
		end, ended := now, s.state > running
		if ended {
			end = s.end
		}
		if !st.end.IsZero() {
			end, ended = st.end, true
		}
		sr := row{text: "=> " + st.id, amount: st.amount(), took: end.Sub(st.start), ended: ended}
		if ended {
			sr.color = doneColor
		} else if st.total > 0 {
			sr.part = float64(st.current) / float64(st.total)
		}
		to = append(to, sr)
	}
	for _, w := range s.warnings {
		to = append(to, row{text: "WARN: " + w, took: r.took, ended: r.ended, color: canceledColor})
	}
	return to
}

// lines fits the picture to a terminal. All but the last picture have fewer lines than the terminal.
func (p picture) lines(width, height int) []line {
	width, height = max(width, 1), max(height, 1)
	head := fmt.Sprintf("[+] %s %.1fs (%d/%d)", p.doing, max(p.took.Seconds(), 0), p.ended, p.all)
	if p.last && p.all > 0 && p.ended == p.all {
		head += " FINISHED"
	}
	out := []line{{text: truncate(head, width)}}
	rows := p.rows
	if !p.last {
		rows = choose(rows, max(height-2, 0), p.paneMaximum)
	}
	for _, r := range rows {
		out = append(out, line{text: r.fit(width), color: r.color})
		for _, l := range r.pane {
			if !p.last {
				out = append(out, line{text: truncate(" => => # "+expandTabs(l), width), faint: true})
			}
		}
	}
	return out
}

// choose keeps what fits into LIMIT lines: what runs before what ended, newer before older; log lines only where room for
// them does not hide a running step.
func choose(rows []row, limit, paneMaximum int) []row {
	rows = slices.Clone(rows)
	open := 0
	var panes []int
	for i, r := range rows {
		if !r.ended {
			open++
		}
		if len(r.pane) > 0 {
			panes = append(panes, i)
		}
	}
	slices.SortStableFunc(panes, func(a, b int) int { // the busiest first
		return cmp.Compare(rows[b].logged, rows[a].logged)
	})
	free := limit - open
	paneLines := 0
	for _, i := range panes {
		if free < paneMaximum+3 {
			rows[i].pane = nil
			continue
		}
		free -= paneMaximum
		paneLines += len(rows[i].pane)
	}
	drop := len(rows) + paneLines - limit
	for _, ended := range []bool{true, false} {
		rows = slices.DeleteFunc(rows, func(r row) bool {
			if drop <= 0 || r.ended != ended {
				return false
			}
			drop -= 1 + len(r.pane)
			return true
		})
	}
	return rows
}

// barWidth is the width of a transfer's bar with its brackets, in columns.
const barWidth = 22

// bar draws how far a transfer is.
func bar(part float64) string {
	inner := barWidth - 2
	full := min(int(part*float64(inner)), inner)
	head := ""
	if full < inner {
		head = ">"
	}
	return "[" + strings.Repeat("=", full) + head + strings.Repeat(" ", inner-full-len(head)) + "]"
}

// fit lays the row out: name, amount and the time at the right margin, dropping the amount and then the time where there
// is no room.
func (r row) fit(width int) string {
	const prefix = " => "
	took := r.took
	if took < 50*time.Millisecond {
		took = 0
	}
	timer := fmt.Sprintf(" %.1fs", took.Seconds())
	left := width - len(prefix) - len(timer) - 1
	if left < 12 {
		return truncate(prefix+expandTabs(r.text), width)
	}
	amount := ""
	if r.amount != "" && left-len(r.amount)-1 >= 12 {
		amount = " " + r.amount
		left -= len(amount)
	}
	if r.part > 0 && left-barWidth-1 >= 30 {
		amount = " " + bar(r.part) + amount
		left -= barWidth + 1
	}
	text := prefix + truncate(expandTabs(r.text), left) + amount
	return text + strings.Repeat(" ", max(width-columns(text)-len(timer), 0)) + timer
}

package progress

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCrowd: sixty steps at once on a small terminal never scroll it, show the
// clock always, and at the end every step is there once.
func TestCrowd(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {20, 24}, {200, 10}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			width, height := size[0], size[1]
			s := newScript(t, None)
			var scr screen
			tty := &ttyPrinter{out: &stickyWriter{}, size: func() (int, int) { return width, height }}
			paint := func(last bool) []string {
				scr.apply(t, tty.paint(s.d.snapshot(last).lines(width, height), width, height))
				return scr.rows
			}
			var steps []*Step
			for i := range 60 {
				st := s.d.Step(fmt.Sprintf("[stage-%d 2/2] RUN build %d", i, i))
				st.Start()
				steps = append(steps, st)
			}
			for round := range 5 {
				for i, st := range steps {
					st.Log(1, fmt.Appendf(nil, "round %d of %d 한국어\n", round, i))
					st.Status("fetch", int64(round+1), 5, round == 4)
				}
				s.now = s.now.Add(time.Second)
				rows := paint(false)
				if got := len(rows); got >= height {
					t.Fatalf("round %d: got %d lines, want fewer than %d", round, got, height)
				}
				if !strings.HasPrefix(rows[0], "[+] Building "[:min(width, 13)]) {
					t.Errorf("round %d: first line: got %q, want the clock", round, rows[0])
				}
			}
			for _, st := range steps {
				st.Done(nil)
			}
			all := strings.Join(paint(true), "\n")
			if got := strings.Count(all, "[stage-"); got != 60 {
				t.Errorf("steps in the last picture: got %d, want 60", got)
			}
		})
	}
}

// TestBar: the bar of a transfer is as wide as it says, at every point.
func TestBar(t *testing.T) {
	for _, part := range []float64{0.001, 0.5, 0.999, 1, 1.5} {
		if got := bar(part); columns(got) != barWidth {
			t.Errorf("bar(%v): got %q of %d columns, want %d", part, got, columns(got), barWidth)
		}
	}
	if got, want := bar(0.5), "[==========>         ]"; got != want {
		t.Errorf("half: got %q, want %q", got, want)
	}
}

// TestSuspend: nothing is drawn while the terminal belongs to others, and
// everything anew afterwards.
func TestSuspend(t *testing.T) {
	s := newScript(t, None)
	s.d.tty = &ttyPrinter{out: s.d.out, size: func() (int, int) { return 80, 24 }}
	s.d.Step("[1/1] RUN x").Start()
	s.d.draw(false)
	resume := s.d.Suspend()
	before := s.out.Len()
	drawn := make(chan struct{})
	go func() {
		s.d.draw(false)
		close(drawn)
	}()
	select {
	case <-drawn:
		t.Error("something was drawn while suspended")
	case <-time.After(50 * time.Millisecond):
	}
	if s.out.Len() != before {
		t.Error("output while suspended")
	}
	resume()
	<-drawn
	if got := s.out.String()[before:]; strings.Contains(got, "\x1b[1A") || strings.Contains(got, "\x1b[2A") || !strings.Contains(got, "[+] Building") {
		t.Errorf("after: got %q, want the view without going up", got)
	}
}

package progress

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbuild/fbuild/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden files")

// build is a picture with everything in it: finished, cached, failed, canceled and running steps, statuses, warnings, logs.
func build(t *testing.T) *script {
	s := newScript(t, None)
	step := func(name string) *Step { st := s.d.Step(name); st.Start(); return st }
	step("[internal] load build definition from Dockerfile").Done(nil)
	base := step("[base 1/2] FROM docker.io/library/debian:12@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	base.Status("sha256:0123456789abcdef 12.34", 1_234_567, 24_000_000, false)
	step("[base 2/2] COPY . .").Cached()
	run := step("[stage 2/5] RUN apt-get update && apt-get install -y --no-install-recommends curl ca-certificates git python3")
	s.now = s.now.Add(1300 * time.Millisecond)
	for i := range 9 {
		run.Log(1, fmt.Appendf(nil, "Get:%d http://deb.example/debian bookworm/main amd64 Packages [8,786 kB]\n", i))
	}
	run.Log(1, []byte("\tprogress 10%\r\tprogress 20%\r"))
	run.Warn("careful")
	base.Status("sha256:0123456789abcdef 12.34", 24_000_000, 24_000_000, true)
	wide := step("[stage 3/5] RUN echo 你好世界 and é and more text that goes on")
	s.now = s.now.Add(2900 * time.Millisecond)
	wide.Done(errors.New("exit code: 1"))
	s.d.Step("[stage 4/5] RUN make")
	step("[other 1/1] RUN sleep").Canceled()
	base.Done(nil)
	return s
}

func TestFrames(t *testing.T) {
	tests := []struct {
		width, height int
		last          bool
	}{{40, 24, false}, {80, 24, false}, {200, 50, false}, {80, 8, false}, {12, 6, false}, {80, 24, true}}
	for _, tt := range tests {
		name := fmt.Sprintf("%dx%d", tt.width, tt.height)
		if tt.last {
			name += "-last"
		}
		t.Run(name, func(t *testing.T) {
			lines := build(t).d.snapshot(tt.last).lines(tt.width, tt.height)
			var b strings.Builder
			for _, l := range lines {
				if got := columns(l.text); got > tt.width {
					t.Errorf("columns of %q: got %d, want at most %d", l.text, got, tt.width)
				}
				fmt.Fprintf(&b, "%s|\n", l.text)
			}
			if !tt.last && len(lines) >= tt.height {
				t.Errorf("lines: got %d, want fewer than %d", len(lines), tt.height)
			}
			golden(t, filepath.Join("testdata", name+".golden"), b.String())
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("view (-want +got):\n%s", diff)
	}
}

func TestMoreRunningStepsThanRows(t *testing.T) {
	s := newScript(t, None)
	for i := range 30 {
		st := s.d.Step(fmt.Sprintf("step %02d", i))
		st.Log(1, []byte("x\n"))
		if i%2 == 0 {
			st.Done(nil)
		}
	}
	lines := s.d.snapshot(false).lines(80, 10)
	var got []string
	for _, l := range lines[1:] {
		got = append(got, strings.Fields(l.text)[2])
	}
	if diff := cmp.Diff([]string{"15", "17", "19", "21", "23", "25", "27", "29"}, got); diff != "" {
		t.Errorf("running steps shown (-want +got):\n%s", diff)
	}
}

// screen is as much of a terminal as paint needs: it applies text to rows of a fixed width.
type screen struct {
	rows   []string
	y      int
	colors int
}

func (s *screen) apply(t *testing.T, text string) {
	t.Helper()
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, hideCursor), strings.HasPrefix(text, showCursor):
			text = text[len(hideCursor):]
		case strings.HasPrefix(text, clearLine):
			text = text[len(clearLine):] // rows are replaced whole
		case strings.HasPrefix(text, clearBelow):
			s.rows = s.rows[:min(s.y, len(s.rows))]
			text = text[len(clearBelow):]
		case strings.HasPrefix(text, "\x1b["):
			var n int
			var c byte
			if _, err := fmt.Sscanf(text[2:], "%d%c", &n, &c); err != nil {
				t.Fatalf("parse sequence in %q: %v", text, err)
			}
			text = text[strings.IndexByte(text, c)+1:]
			if c == 'A' {
				s.y = max(s.y-n, 0)
			} else {
				s.colors++
			}
		case text[0] == '\r':
			text = text[1:]
		default:
			end := strings.IndexAny(text, "\n\x1b")
			row := text[:end]
			for s.y >= len(s.rows) {
				s.rows = append(s.rows, "")
			}
			if row != "" {
				s.rows[s.y] = row
			}
			text = text[end:]
			if text[0] == '\n' {
				s.y++
				text = text[1:]
			}
		}
	}
}

func TestPaintReplacesWhatWasDrawn(t *testing.T) {
	tty := &ttyPrinter{colors: chooseColors(func(string) string { return "" })}
	var sc screen
	sc.rows = []string{"$ fbuild build ."}
	sc.y = 1
	first := []line{{text: "one"}, {text: "two", color: doneColor}, {text: "three", faint: true}}
	sc.apply(t, tty.paint(first, 80, 24))
	sc.apply(t, tty.paint([]line{{text: "uno"}, {text: "dos"}}, 80, 24))
	if diff := cmp.Diff([]string{"$ fbuild build .", "uno", "dos"}, sc.rows); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
	if sc.colors == 0 {
		t.Error("colours: got none")
	}
	// In a window that became half as wide, "0123456789" takes two rows.
	tty = &ttyPrinter{}
	tty.paint([]line{{text: "0123456789"}, {text: "ab"}}, 10, 24)
	if got := tty.paint([]line{{text: "x"}}, 5, 24); !strings.Contains(got, "\x1b[3A") {
		t.Errorf("rows moved up after a resize: got %q, want 3", got)
	}
}

func TestNoColor(t *testing.T) {
	tty := &ttyPrinter{colors: chooseColors(func(k string) string { return map[string]string{"NO_COLOR": "1"}[k] })}
	if got := tty.paint([]line{{text: "x", color: failedColor}, {text: "y", faint: true}}, 80, 24); strings.Contains(got, "m") {
		t.Errorf("paint with NO_COLOR: got %q, want no colours", got)
	}
}

// lockedOutput can be looked at while it is written to.
type lockedOutput struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *lockedOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *lockedOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// The live view leaves its final state and the failed step's lines behind.
func TestTTYEnds(t *testing.T) {
	var out lockedOutput
	d, err := New(Options{Mode: TTY, Out: &out, Size: func() (int, int) { return 80, 24 }, Getenv: func(k string) string {
		return map[string]string{"NO_COLOR": "1", "TTY_DISPLAY_RATE": "1"}[k]
	}})
	if err != nil {
		t.Fatal(err)
	}
	st := d.Step("RUN x")
	st.Log(1, []byte("why\n"))
	testenv.Until(t, "picture of the running step", func() bool { return strings.Contains(out.String(), " => => # why") })
	st.Done(errors.New("boom"))
	if err := d.Close(errors.New("boom")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" => => # why", "(1/1) FINISHED", " => ERROR RUN x", "------\n > RUN x:\n0.000 why\n------\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output %q: %q is missing", out.String(), want)
		}
	}
}

func TestSourceBox(t *testing.T) {
	lines := strings.Split("FROM a\nRUN b\nRUN c \\\n  && d\nRUN \x1b[2Je\n", "\n")
	tests := []struct {
		name       string
		start, end int
		want       string
	}{
		{"one line in the middle", 3, 3, "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN b\n   3 | >>> RUN c \\\n   4 |       && d\n   5 |     RUN e\n--------------------\n"},
		{"several lines", 3, 4, "Dockerfile:3\n--------------------\n   2 |     RUN b\n   3 | >>> RUN c \\\n   4 | >>>   && d\n   5 |     RUN e\n--------------------\n"},
		{"the first", 1, 1, "Dockerfile:1\n--------------------\n   1 | >>> FROM a\n   2 |     RUN b\n   3 |     RUN c \\\n--------------------\n"},
		{"an end beyond the file", 6, 9, "Dockerfile:6\n--------------------\n   4 |       && d\n   5 |     RUN e\n   6 | >>> \n--------------------\n"},
		{"no line", 0, 0, ""},
		{"beyond the file", 7, 7, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, SourceBox("Dockerfile", lines, tt.start, tt.end)); diff != "" {
				t.Errorf("box (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever a step logs and however it is cut, what comes out is text.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\r\nc\xe2\x82\xac"), 3)
	f.Add([]byte("\x1b]0;t\x1b\\x\x1b(B\xff\r"), 1)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		whole, parts := scanAll(p, len(p)), scanAll(p, cut)
		if whole != parts {
			t.Errorf("cut in pieces: got %q, want %q", parts, whole)
		}
		for _, r := range whole {
			if r != '\n' && r != '\t' && hidden(r) {
				t.Errorf("scan(%q): got %q with the control character %U", p, whole, r)
			}
		}
	})
}

type textSink struct{ strings.Builder }

func (s *textSink) text(p []byte) { s.Write(p) }
func (s *textSink) lineEnd(bool)  { s.WriteByte('\n') }

func scanAll(p []byte, cut int) string {
	var s scanner
	var to textSink
	for cut = max(cut, 1); len(p) > 0; p = p[min(cut, len(p)):] {
		s.scan(p[:min(cut, len(p))], &to)
	}
	s.flush(&to)
	return to.String()
}

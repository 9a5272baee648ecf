package progress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script drives a plain display by a clock of its own.
type script struct {
	d   *Display
	out bytes.Buffer
	now time.Time
}

func newScript(t *testing.T, mode Mode) *script {
	t.Helper()
	s := &script{now: time.Unix(1000, 0)}
	d, err := newDisplay(Options{Mode: mode, Out: &s.out, Now: func() time.Time { return s.now }, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	s.d = d
	return s
}

// wait lets time pass and gives the printer its turn.
func (s *script) wait(d time.Duration) {
	s.now = s.now.Add(d)
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.plain != nil {
		s.d.plain.print(s.d.started, s.now)
	}
}

func TestPlain(t *testing.T) {
	boom := errors.New(`process "/bin/sh -c false" did not complete successfully: exit code: 1`)
	tests := []struct {
		name string
		run  func(s *script) error
		want string
	}{
		{"one after the other", func(s *script) error {
			a := s.d.Step("[internal] load build definition from Dockerfile")
			b := s.d.Step("[1/2] FROM docker.io/library/debian:12")
			a.Start()
			a.Status("transferring dockerfile:", 37, 0, true)
			s.wait(20 * time.Millisecond)
			a.Done(nil)
			s.wait(time.Second)
			b.Start()
			b.Cached()
			s.wait(time.Second)
			return nil
		}, `#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 37B done
#1 DONE 0.0s

#2 [1/2] FROM docker.io/library/debian:12
#2 CACHED
`},
		{"a step that waits for another", func(s *script) error {
			a, b := s.d.Step("[1/2] FROM base"), s.d.Step("[2/2] RUN true")
			a.Start()
			b.Start()
			s.wait(2 * time.Second)
			a.Done(nil)
			b.Waited(2 * time.Second)
			s.wait(300 * time.Millisecond)
			b.Log(1, []byte("one\n"))
			b.Done(nil)
			s.wait(time.Second)
			return nil
		}, `#1 [1/2] FROM base
#1 DONE 2.0s

#2 [2/2] RUN true
#2 0.300 one
#2 DONE 0.3s
`},
		{"why a step runs, and how one was found", func(s *script) error {
			a, b := s.d.Step("[1/2] RUN npm ci"), s.d.Step("[2/2] RUN npm test")
			a.Start()
			a.CachedBecause("traced")
			s.wait(time.Second)
			b.Start()
			b.Note("runs because src/app.js changed\x1b[2J (content)")
			s.wait(time.Second)
			b.Log(1, []byte("ok\n"))
			b.Done(nil)
			s.wait(time.Second)
			return nil
		}, `#1 [1/2] RUN npm ci
#1 CACHED (traced)

#2 [2/2] RUN npm test
#2 runs because src/app.js changed (content)
#2 1.000 ok
#2 DONE 1.0s
`},
		{"logs, times and warnings", func(s *script) error {
			a := s.d.Step("RUN make")
			a.Start()
			s.wait(123 * time.Millisecond)
			a.Log(1, []byte("hello\nwor"))
			s.wait(time.Second)
			a.Log(2, []byte("ld\n\nend"))
			s.wait(9 * time.Second)
			a.Log(1, []byte("\nlate\n"))
			a.Warn("old\nthing")
			s.wait(95 * time.Second)
			a.Log(1, []byte("later\n"))
			a.Done(nil)
			return nil
		}, `#1 RUN make
#1 0.123 hello
#1 0.123 world
#1 1.123 
#1 1.123 end
#1 WARN: old thing
#1 1.123 end
#1 10.12 late
#1 105.1 later
#1 DONE 105.1s
`},
		{"concurrent steps take turns", func(s *script) error {
			a, b := s.d.Step("[a 1/1] RUN a"), s.d.Step("[b 1/1] RUN b")
			a.Start()
			s.wait(time.Second)
			b.Start()
			for i := range 4 {
				a.Log(1, fmt.Appendf(nil, "a%d\n", i))
				b.Log(1, fmt.Appendf(nil, "b%d\n", i))
				s.wait(time.Second)
			}
			b.Done(nil)
			s.wait(time.Second)
			a.Log(1, []byte("a last"))
			s.wait(time.Second)
			a.Canceled()
			return context.Canceled
		}, `#1 [a 1/1] RUN a
#1 1.000 a0
#1 2.000 a1
#1 3.000 a2
#1 4.000 a3
#1 ...

#2 [b 1/1] RUN b
#2 0.000 b0
#2 1.000 b1
#2 2.000 b2
#2 3.000 b3
#2 DONE 4.0s

#1 [a 1/1] RUN a
#1 6.000 a last
#1 CANCELED
`},
		{"a quiet owner loses its turn after five seconds, a waiting step waits ten at most", func(s *script) error {
			a, b := s.d.Step("A"), s.d.Step("B")
			a.Start()
			a.Log(1, []byte("working"))
			s.wait(0)
			b.Start()
			for i := range 12 {
				b.Log(1, fmt.Appendf(nil, "b%d\n", i))
				s.wait(time.Second)
			}
			a.Log(1, []byte(" on\n"))
			s.wait(time.Second)
			b.Done(nil)
			a.Done(nil)
			return nil
		}, `#1 A
#1 0.000 working
#1 ...

#2 B
#2 0.000 b0
#2 1.000 b1
#2 2.000 b2
#2 3.000 b3
#2 4.000 b4
#2 5.000 b5
#2 6.000 b6
#2 7.000 b7
#2 8.000 b8
#2 9.000 b9
#2 10.00 b10
#2 11.00 b11
#2 ...

#1 A
#1 0.000 working on
#1 DONE 13.0s

#2 B
#2 DONE 13.0s
`},
		{"an error shows the last ten lines", func(s *script) error {
			a, b := s.d.Step("[2/3] RUN false"), s.d.Step("other")
			a.Start()
			b.Start()
			for i := range 12 {
				a.Log(1, fmt.Appendf(nil, "line %d\n", i))
			}
			a.Done(boom)
			s.d.Step("never begun").Canceled()
			b.Done(fmt.Errorf("run: %w", context.Canceled))
			return boom
		}, `#1 [2/3] RUN false
#1 0.000 line 0
#1 0.000 line 1
#1 0.000 line 2
#1 0.000 line 3
#1 0.000 line 4
#1 0.000 line 5
#1 0.000 line 6
#1 0.000 line 7
#1 0.000 line 8
#1 0.000 line 9
#1 0.000 line 10
#1 0.000 line 11
#1 ERROR: process "/bin/sh -c false" did not complete successfully: exit code: 1

#2 other
#2 CANCELED
------
 > [2/3] RUN false:
0.000 line 2
0.000 line 3
0.000 line 4
0.000 line 5
0.000 line 6
0.000 line 7
0.000 line 8
0.000 line 9
0.000 line 10
0.000 line 11
------
`},
		{"statuses move by five per cent", func(s *script) error {
			a := s.d.Step("FROM x")
			a.Start()
			for i := int64(0); i <= 100; i++ {
				a.Status("sha256:abc", i*12_345, 1_234_500, i == 100)
				if i%2 == 1 && i > 88 {
					s.wait(100 * time.Millisecond)
				}
			}
			a.Done(nil)
			return nil
		}, `#1 FROM x
#1 sha256:abc 1.10MB / 1.23MB
#1 sha256:abc 1.17MB / 1.23MB 0.3s
#1 sha256:abc 1.23MB / 1.23MB 0.6s done
#1 DONE 0.6s
`},
		{"hostile output", func(s *script) error {
			a := s.d.Step("RUN \x1b[31mevil\nname")
			a.Start()
			a.Log(1, []byte("\x1b[2J\x1b]0;title\x07red\x1b"))
			a.Log(1, []byte("[0m \xff\xc3"))
			a.Log(1, []byte("\xa9 \u202eback\x00\x07\x7f\u009b\n"))
			a.Log(1, []byte("10%\r20%\r\n30%\r"))
			a.Log(2, []byte("e\xe2\x82"))
			a.Done(nil)
			return nil
		}, "#1 RUN evil name\n#1 0.000 red \uFFFDé back\n#1 0.000 10%\n#1 0.000 20%\n#1 0.000 30%e\n#1 0.000 \uFFFD\uFFFD\n#1 DONE 0.0s\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, Plain)
			err := tt.run(s)
			if cerr := s.d.Close(err); cerr != nil {
				t.Fatal(cerr)
			}
			if diff := cmp.Diff(tt.want, s.out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

// Nothing is dropped and little is kept, however much steps log and whoever owns the printer.
func TestPlainNoisyStepsAreBounded(t *testing.T) {
	s := newScript(t, Plain)
	a, b := s.d.Step("a"), s.d.Step("b")
	a.Start()
	b.Start()
	const n = 40_000
	line := strings.Repeat("x", 60) + "\n"
	for range n {
		b.Log(1, []byte(line))
		a.Log(1, []byte(line))
		if held := cap(a.text.pending) + cap(b.text.pending); held > 8*pendingLimit {
			t.Fatalf("held bytes: got %d, want at most %d", held, 8*pendingLimit)
		}
	}
	a.Log(2, bytes.Repeat([]byte("y"), 1<<20)) // one line without end
	a.Done(nil)
	b.Done(nil)
	if err := s.d.Close(nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(s.out.String(), strings.TrimSpace(line)); got != 2*n {
		t.Errorf("printed lines: got %d, want %d", got, 2*n)
	}
	if got := strings.Count(s.out.String(), "y"); got != 1<<20 {
		t.Errorf("bytes of the long line: got %d, want %d", got, 1<<20)
	}
}

func TestConcurrentUse(t *testing.T) {
	var out bytes.Buffer
	d, err := New(Options{Mode: Plain, Out: &out, Getenv: func(k string) string {
		return map[string]string{"TTY_DISPLAY_RATE": "1"}[k]
	}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := d.Step(fmt.Sprintf("step %d", i))
			s.Start()
			for range 200 {
				s.Log(1+i%2, []byte("line\n"))
				s.Status("x", 1, 2, false)
			}
			s.Done(nil)
		})
	}
	wg.Wait()
	if err := d.Close(nil); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(out.String(), " line\n"), 8*200; got != want {
		t.Errorf("lines: got %d, want %d", got, want)
	}
	if got := strings.Count(out.String(), "DONE"); got != 8 {
		t.Errorf("DONE lines: got %d, want 8", got)
	}
	d.Step("late").Log(1, []byte("ignored\n")) // no panic, no output
	if strings.Contains(out.String(), "late") {
		t.Error("a step after Close was printed")
	}
}

// A log line shown before a step's end is not needed afterwards: only failed steps keep their last lines.
func TestPlainForgetsFinishedSteps(t *testing.T) {
	s := newScript(t, Plain)
	st := s.d.Step("x")
	st.Log(1, []byte("line\n"))
	st.Done(nil)
	s.wait(time.Second)
	if got := len(st.tail.lines()) + cap(st.text.pending); got != 0 {
		t.Errorf("lines and bytes kept: got %d, want 0", got)
	}
}

func TestModes(t *testing.T) {
	fixed := func() (int, int) { return 80, 24 }
	tests := []struct {
		name string
		mode Mode
		size func() (int, int)
		term string
		want string // plain, tty, none or an error
	}{
		{"auto without a terminal", Auto, nil, "xterm", "plain"},
		{"auto on a terminal", Auto, fixed, "xterm", "tty"},
		{"auto on a dumb terminal", Auto, fixed, "dumb", "plain"},
		{"empty is auto", "", fixed, "xterm", "tty"},
		{"plain on a terminal", Plain, fixed, "xterm", "plain"},
		{"tty without a terminal", TTY, nil, "xterm", `use progress mode "tty": the output is not a terminal`},
		{"tty on a dumb terminal", TTY, fixed, "dumb", "plain"},
		{"quiet", Quiet, fixed, "xterm", "none"},
		{"none", None, fixed, "xterm", "none"},
		{"xml is refused", "xml", fixed, "xterm", `use progress mode "xml": not one of auto, plain, tty, quiet, rawjson, none`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := newDisplay(Options{Mode: tt.mode, Out: &bytes.Buffer{}, Size: tt.size, Getenv: func(k string) string {
				return map[string]string{"TERM": tt.term}[k]
			}})
			got := "none"
			switch {
			case err != nil:
				got = err.Error()
			case d.plain != nil:
				got = "plain"
			case d.tty != nil:
				got = "tty"
			}
			if got != tt.want {
				t.Errorf("mode: got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestQuietAndNone(t *testing.T) {
	boom := errors.New("boom")
	for mode, want := range map[Mode]string{Quiet: "------\n > RUN x:\n0.000 why\n------\n", None: ""} {
		t.Run(string(mode), func(t *testing.T) {
			s := newScript(t, mode)
			st := s.d.Step("RUN x")
			st.Log(2, []byte("why\n"))
			st.Done(boom)
			if err := s.d.Close(boom); err != nil {
				t.Fatal(err)
			}
			if got := s.out.String(); got != want {
				t.Errorf("output: got %q, want %q", got, want)
			}
		})
	}
}

type brokenWriter struct{ n int }

func (b *brokenWriter) Write([]byte) (int, error) { b.n++; return 0, errors.New("broken pipe") }

func TestWriteErrorEndsTheOutput(t *testing.T) {
	w := &brokenWriter{}
	d, err := New(Options{Mode: Plain, Out: w})
	if err != nil {
		t.Fatal(err)
	}
	s := d.Step("x")
	s.Start()
	s.Done(errors.New("y"))
	if err := d.Close(errors.New("y")); err == nil || err.Error() != "write progress: broken pipe" {
		t.Errorf("Close: got %v, want the error of writing", err)
	}
	if w.n != 1 {
		t.Errorf("writes: got %d, want 1", w.n)
	}
}

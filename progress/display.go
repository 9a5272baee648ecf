package progress

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"
)

// Mode names a printer.
type Mode string

// The modes of --progress.
const (
	// Auto is TTY when the output is a terminal that can move its cursor, else Plain.
	Auto Mode = "auto"
	// Plain prints lines that are never changed again.
	Plain Mode = "plain"
	// TTY redraws a live view.
	TTY Mode = "tty"
	// Quiet prints nothing but the last lines of a step that failed.
	Quiet Mode = "quiet"
	// RawJSON prints BuildKit's SolveStatus, one a line, for other programs.
	RawJSON Mode = "rawjson"
	// None prints nothing at all.
	None Mode = "none"
)

const (
	defaultRefresh = 100 * time.Millisecond
	defaultPane    = 6
	errorLines     = 10
)

// Options says where and how a Display prints.
type Options struct {
	// Mode is the printer; "" means Auto.
	Mode Mode
	// Out receives everything; nil means that nothing is printed.
	Out io.Writer
	// Getenv reads TERM, NO_COLOR, BUILDKIT_TTY_LOG_LINES and TTY_DISPLAY_RATE (nil: os.Getenv).
	Getenv func(string) string
	// Now is the clock (nil: time.Now).
	Now func() time.Time
	// Size is the terminal's size in columns and rows (nil: asked of Out, which must then be a terminal for TTY).
	Size func() (width, height int)
	// Doing is the first word of a terminal's head ("": Building).
	Doing string
	// Failed, if not nil, is called once, from any goroutine, when Out cannot be written any more: nobody reads it.
	Failed func(error)
}

// Display shows the steps of one build.
type Display struct {
	now   func() time.Time
	doing string
	out   *stickyWriter
	every time.Duration
	pane  int // log lines shown below a running step

	mu      sync.Mutex
	steps   []*Step // in the order of creation
	started []*Step // in the order of Start
	begin   time.Time
	closed  bool
	plain   *plainPrinter // nil in the other modes
	raw     *rawPrinter   // nil in the other modes

	tty     *ttyPrinter // nil in the other modes; used with drawing held
	drawing sync.Mutex  // taken before mu; held from Suspend to Resume
	tails   bool        // whether Close shows what failed

	stop chan struct{}
	loop sync.WaitGroup
}

// New returns a display in the mode asked for, or an error when there is no such mode or Out cannot show it.
func New(o Options) (*Display, error) {
	d, err := newDisplay(o)
	if err != nil {
		return nil, err
	}
	if d.plain != nil || d.tty != nil {
		d.loop.Add(1)
		go d.run()
	}
	return d, nil
}

// newDisplay is New without the clockwork: tests drive the printers by hand.
func newDisplay(o Options) (*Display, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Size == nil {
		o.Size = terminalSize(o.Out)
	}
	mode, err := chooseMode(o)
	if err != nil {
		return nil, err
	}
	if o.Doing == "" {
		o.Doing = "Building"
	}
	d := &Display{now: o.Now, doing: o.Doing, out: &stickyWriter{w: o.Out, failed: o.Failed}, every: defaultRefresh, pane: defaultPane, stop: make(chan struct{})}
	if ms, err := strconv.Atoi(o.Getenv("TTY_DISPLAY_RATE")); err == nil && ms > 0 && ms <= 60_000 {
		d.every = time.Duration(ms) * time.Millisecond
	}
	if n, err := strconv.Atoi(o.Getenv("BUILDKIT_TTY_LOG_LINES")); err == nil && n > 0 && n <= 1000 {
		d.pane = n
	}
	d.begin = d.now()
	d.tails = mode != None && mode != RawJSON
	switch mode {
	case Plain:
		d.plain = newPlain(d.out, d.every)
	case RawJSON:
		d.raw = &rawPrinter{d.out}
	case TTY:
		d.tty = &ttyPrinter{out: d.out, size: o.Size, colors: chooseColors(o.Getenv)}
	default: // nothing is printed as it comes
	}
	return d, nil
}

// chooseMode resolves Auto and refuses what cannot be shown.
func chooseMode(o Options) (Mode, error) {
	switch o.Mode {
	case Auto, "", TTY, Plain, Quiet, RawJSON, None:
	default:
		return "", fmt.Errorf("use progress mode %q: not one of auto, plain, tty, quiet, rawjson, none", o.Mode)
	}
	if o.Out == nil {
		return None, nil
	}
	switch o.Mode {
	case TTY:
		if o.Size == nil {
			return "", fmt.Errorf("use progress mode %q: the output is not a terminal", o.Mode)
		}
	case Auto, "":
		if o.Size == nil {
			return Plain, nil
		}
	default:
		return o.Mode, nil
	}
	if o.Getenv("TERM") == "dumb" {
		return Plain, nil
	}
	return TTY, nil
}

// terminalSize returns how to ask OUT for its size, or nil when it is no terminal.
func terminalSize(out io.Writer) func() (int, int) {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() (int, int) {
		w, h, err := term.GetSize(int(f.Fd()))
		if err != nil || w <= 0 || h <= 0 {
			return 80, 10
		}
		return w, h
	}
}

// Step adds a step. It counts from now on and is shown from its Start (or its first other event).
func (d *Display) Step(name string) *Step {
	s := &Step{d: d, name: cleanName(name), tail: newTail(max(errorLines, d.pane))}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.number = len(d.steps)
	d.steps = append(d.steps, s)
	return s
}

// Close prints what is left: the final state, then, for each step that failed, its name and last log lines. ERR is the
// end of the build; where it is nil no step is shown as failed. Later events are ignored. The result is the first error
// of writing the output.
func (d *Display) Close(err error) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return d.out.firstError()
	}
	d.closed = true
	d.mu.Unlock()
	close(d.stop)
	d.loop.Wait()
	d.draw(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plain != nil {
		d.plain.print(d.started, d.now())
	}
	if d.tails && err != nil {
		d.printTails()
	}
	return d.out.firstError()
}

// printTails shows the last log lines of every step that failed. The mutex is held.
func (d *Display) printTails() {
	for _, s := range d.started {
		if s.state != failed {
			continue
		}
		var b []byte
		b = append(b, "------\n > "+s.name+":\n"...)
		lines := s.tail.lines()
		if len(lines) > errorLines {
			lines = lines[len(lines)-errorLines:]
		}
		for _, l := range lines {
			b = append(b, l.stamp...)
			b = append(b, ' ')
			b = append(b, l.text...)
			b = append(b, '\n')
		}
		b = append(b, "------\n"...)
		_, _ = d.out.Write(b) // the writer keeps the error for Close
	}
}

// run gives the printer its regular turns until Close.
func (d *Display) run() {
	defer d.loop.Done()
	t := time.NewTicker(d.every)
	defer t.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-t.C:
		}
		if d.tty != nil {
			d.draw(false)
			continue
		}
		d.mu.Lock()
		d.plain.print(d.started, d.now())
		d.mu.Unlock()
	}
}

// draw brings the live view up to date; the last picture stays.
func (d *Display) draw(last bool) {
	if d.tty == nil {
		return
	}
	d.drawing.Lock()
	defer d.drawing.Unlock()
	d.tty.draw(d.snapshot(last))
}

// Lines reports whether the display prints lines for a log, in BuildKit's plain format.
func (d *Display) Lines() bool { return d.plain != nil }

// Suspend leaves the terminal to others until resume is called: nothing is drawn, and the cursor stands below what was
// drawn before. Afterwards the view is drawn anew, below whatever the others wrote. Steps go on meanwhile.
func (d *Display) Suspend() (resume func()) {
	d.drawing.Lock()
	return func() {
		if d.tty != nil {
			d.tty.drawn = nil
		}
		d.drawing.Unlock()
	}
}

// stickyWriter remembers the first error and writes nothing after it.
type stickyWriter struct {
	failed func(error) // may be nil

	mu  sync.Mutex
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	if err != nil {
		s.err = fmt.Errorf("write progress: %w", err)
		if s.failed != nil {
			s.failed(s.err)
		}
	}
	return n, s.err
}

func (s *stickyWriter) firstError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

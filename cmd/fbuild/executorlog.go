package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// level is how much a line of the log matters, as logrus has it, which kaniko
// logs with.
type level int

const (
	panicLevel level = iota
	fatalLevel
	errorLevel
	warnLevel
	infoLevel
	debugLevel
	traceLevel
)

var levelNames = [...]string{"panic", "fatal", "error", "warning", "info", "debug", "trace"}

func (l level) String() string { return levelNames[l] }

func parseLevel(s string) (level, error) {
	if s = strings.ToLower(s); s == "warn" {
		s = "warning"
	}
	for i, n := range levelNames {
		if n == s {
			return level(i), nil
		}
	}
	return 0, usagef("--verbosity %q: there are trace, debug, info, warn, error, fatal and panic", s)
}

// executorLog writes lines as kaniko does. The output of a RUN goes between them
// as it comes, and in a JSON log as lines of its own.
type executorLog struct {
	most   level
	format string // text, color or json
	stamp  bool   // of color: the time and not the seconds since start
	plain  bool   // of color: without the colors
	start  time.Time

	mu  sync.Mutex
	out io.Writer
}

func newExecutorLog(out io.Writer, f *executorFlags, noColor bool) (*executorLog, error) {
	most, err := parseLevel(f.text("verbosity"))
	if err != nil {
		return nil, err
	}
	l := &executorLog{most: most, format: f.text("log-format"), stamp: f.on("log-timestamp"), plain: noColor, start: time.Now(), out: out}
	switch l.format {
	case "text", "color", "json":
		return l, nil
	}
	return nil, usagef("--log-format %q: there are text, color and json", l.format)
}

func (l *executorLog) info(format string, args ...any)  { l.say(infoLevel, format, args...) }
func (l *executorLog) warn(format string, args ...any)  { l.say(warnLevel, format, args...) }
func (l *executorLog) debug(format string, args ...any) { l.say(debugLevel, format, args...) }

func (l *executorLog) say(lv level, format string, args ...any) {
	if lv <= l.most {
		l.write(lv, printable(fmt.Sprintf(format, args...)))
	}
}

var levelColors = map[level]int{panicLevel: 31, fatalLevel: 31, errorLevel: 31, warnLevel: 33, infoLevel: 36, debugLevel: 37, traceLevel: 37}

// bare is what a text log does not quote.
var bare = regexp.MustCompile(`^[a-zA-Z0-9\-._/@^+]+$`)

func (l *executorLog) write(lv level, msg string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.format {
	case "json":
		l.json(lv, now, map[string]string{"msg": msg})
	case "text":
		if !bare.MatchString(msg) {
			msg = fmt.Sprintf("%q", msg)
		}
		fmt.Fprintf(l.out, "time=%q level=%s msg=%s\n", now.Format(time.RFC3339), lv, msg)
	default:
		at := fmt.Sprintf("%04d", int(now.Sub(l.start)/time.Second))
		if l.stamp {
			at = now.Format(time.RFC3339)
		}
		name := strings.ToUpper(lv.String())[:4]
		if !l.plain {
			name = fmt.Sprintf("\x1b[%dm%s\x1b[0m", levelColors[lv], name)
		}
		fmt.Fprintf(l.out, "%s[%s] %s\n", name, at, msg)
	}
}

// json writes one object; the mutex is held.
func (l *executorLog) json(lv level, now time.Time, m map[string]string) {
	m["level"], m["time"] = lv.String(), now.Format(time.RFC3339)
	data, err := json.Marshal(m)
	if err != nil {
		return // strings cannot fail
	}
	_, _ = l.out.Write(append(data, '\n')) // as every other line: there is nowhere to say so
}

// output writes one line that a RUN printed.
func (l *executorLog) output(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.format == "json" {
		l.json(infoLevel, time.Now(), map[string]string{"msg": line, "stream": "run"})
		return
	}
	fmt.Fprintln(l.out, line)
}

// fail writes how a build ended.
func (l *executorLog) fail(text, hint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, hint = printable(text), printable(hint)
	if l.format == "json" {
		m := map[string]string{"msg": text}
		if hint != "" {
			m["hint"] = hint
		}
		l.json(fatalLevel, time.Now(), m)
		return
	}
	fmt.Fprintln(l.out, "fbuild: error:", text)
	if hint != "" {
		fmt.Fprintln(l.out, "fbuild: hint:", hint)
	}
}

// Write takes the warnings that fbuild build shows as they come.
func (l *executorLog) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l.warn("%s", strings.TrimSpace(strings.TrimPrefix(line, "fbuild: warning: ")))
	}
	return len(p), nil
}

// steps turns the plain form of progress, which is BuildKit's and does not change,
// into lines of the log.
type steps struct {
	log    *executorLog
	rest   []byte
	titles map[string]string
}

func (l *executorLog) steps() *steps { return &steps{log: l, titles: map[string]string{}} }

// Write takes whole and half lines.
func (s *steps) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		line, rest, ok := bytes.Cut(s.rest, []byte{'\n'})
		if !ok {
			return len(p), nil
		}
		s.line(string(line))
		s.rest = rest
	}
}

var (
	stepLine = regexp.MustCompile(`^#(\d+) (.*)$`)
	logLine  = regexp.MustCompile(`^\d+\.\d{1,3}(?: (.*))?$`)
	stepName = regexp.MustCompile(`^\[[^\]]*\] (.*)$`)
)

func (s *steps) line(text string) {
	m := stepLine.FindStringSubmatch(text)
	if m == nil {
		return // empty, or the end of a failed step's log once more
	}
	id, text := m[1], m[2]
	title, known := s.titles[id]
	switch {
	case text == "..." || known && text == title: // another step has the printer, or this one again
	case !known:
		s.titles[id] = text
		s.begin(text)
	case logLine.MatchString(text):
		s.log.output(logLine.FindStringSubmatch(text)[1])
	case text == "CACHED" && !strings.Contains(title, "] FROM "):
		s.log.info("Using caching version of cmd: %s", command(title))
	case strings.HasPrefix(text, "WARN: "):
		s.log.warn("%s", strings.TrimPrefix(text, "WARN: "))
	default:
		s.log.debug("%s: %s", title, text)
	}
}

// begin says what kaniko says of a step.
func (s *steps) begin(title string) {
	const metadata = "[internal] load metadata for "
	switch name := command(title); {
	case strings.HasPrefix(title, metadata):
		s.log.info("Retrieving image manifest %s", strings.TrimPrefix(title, metadata))
	case title == "squashing layers":
		s.log.info("Taking snapshot of full filesystem...")
	case strings.HasPrefix(title, "[internal]") || name == title:
		s.log.debug("%s", title)
	default:
		s.log.info("%s", name)
	}
}

// command is a step's title without its number.
func command(title string) string {
	if m := stepName.FindStringSubmatch(title); m != nil {
		return m[1]
	}
	return title
}

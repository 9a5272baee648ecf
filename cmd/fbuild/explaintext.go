package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"

	"github.com/fbuild/fbuild/build"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// explanation is what `fbuild explain` has to say.
type explanation struct {
	report  *build.Report
	details []build.StepDetail // of the steps that are asked for
	only    *build.StepReport  // nil for all
	all     bool               // leave nothing out
	width   int                // of a line; 0 for any
}

// Lists are cut to so many lines where --all is not given.
const (
	listedChanges = 10
	listedWritten = 5
	listedLooked  = 10
)

// titleColumn is the longest that an instruction is shown in a list.
const titleColumn = 44

// textWidth is the width of a terminal, 0 where the output is none.
func textWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		return max(width, 40)
	}
	return 0
}

// writeIndented writes JSON for programs that people may read too.
func writeIndented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (e *explanation) text() string {
	var b strings.Builder
	if e.only != nil {
		e.one(&b)
		return printable(b.String())
	}
	e.head(&b)
	e.list(&b)
	e.sum(&b)
	return printable(b.String())
}

// head says which build this is.
func (e *explanation) head(b *strings.Builder) {
	r := e.report
	what := r.Dockerfile
	if r.Target != "" {
		what += ", target " + r.Target
	}
	if host := thisHost(); r.Platform != "" && r.Platform != host.String() {
		what += ", " + r.Platform
	}
	fmt.Fprintf(b, "%s\nbuilt %s ago in %s", what, ago(r.Began), seconds(r.Took))
	switch {
	case r.Error != "":
		fmt.Fprintf(b, ": it failed\n\n")
	case r.ImageID != "":
		fmt.Fprintf(b, ": image %s\n\n", shortDigest(r.ImageID))
	default:
		b.WriteString("\n\n")
	}
}

// list has one line for each step.
func (e *explanation) list(b *strings.Builder) {
	label, title, most := 0, 0, titleColumn
	for _, s := range e.report.Steps {
		label = max(label, len(e.report.Label(s)))
	}
	if e.width > 0 { // half of it for what became of the step
		most = min(most, max(12, e.width/2-label))
	}
	for _, s := range e.report.Steps {
		title = max(title, len([]rune(short(s.Title, most))))
	}
	for i, s := range e.report.Steps {
		line := fmt.Sprintf("%-*s %-*s  %-9s", label, e.report.Label(s), title, short(s.Title, most), verdict(s))
		if why := e.why(i); why != "" {
			line += "  " + why
		}
		line = strings.TrimRight(line, " ")
		if e.width > 0 {
			line = cut(line, e.width)
		}
		fmt.Fprintln(b, line)
	}
}

// passOver gives the steps that were reused by trace what the steps below them changed:
// they did not look at it.
func (e *explanation) passOver() {
	for i, s := range e.report.Steps {
		d := &e.details[i]
		if s.Verdict != build.VerdictTrace || d.Total > 0 {
			continue
		}
		for j, below := range e.report.Steps[:i] {
			if below.Stage == s.Stage && below.Verdict == build.VerdictRun {
				d.Changed = append(d.Changed, e.details[j].Changed...)
				d.Total += e.details[j].Total
			}
		}
	}
}

// verdict is what became of a step, in the words of progress where it has one.
func verdict(s build.StepReport) string {
	switch s.Verdict {
	case build.VerdictExact:
		return "cached"
	case build.VerdictTrace:
		return "traced"
	case build.VerdictMay:
		return "may run"
	}
	if s.Error != "" {
		return "failed"
	}
	return "ran " + seconds(s.Spent)
}

// why is the reason in one line.
func (e *explanation) why(i int) string {
	s, d := e.report.Steps[i], e.details[i]
	from := ""
	if s.Source != "" {
		from = "from " + s.Source
	}
	switch {
	case s.Verdict == build.VerdictExact:
		return from
	case s.Verdict == build.VerdictTrace && d.Total > 0:
		return joined("did not look at "+changes(d), networkAge(s), from)
	case s.Verdict == build.VerdictTrace:
		return joined("looked at nothing that changed", networkAge(s), from)
	case s.Error != "":
		return short(strings.Join(strings.Fields(s.Error), " "), 100)
	case s.Why == "" && len(s.Inputs) > 0:
		return s.Reason()
	case s.Why == "" && len(d.Changed) == 0:
		return s.Reason()
	case len(d.Changed) > 0:
		return changes(d)
	}
	return s.Why
}

func joined(texts ...string) string {
	var out []string
	for _, t := range texts {
		if t != "" {
			out = append(out, t)
		}
	}
	return strings.Join(out, "; ")
}

func networkAge(s build.StepReport) string {
	if !s.UsedNetwork {
		return ""
	}
	return "used the network " + ago(s.Ran) + " ago"
}

// changes names one path that changed, and counts the others.
func changes(d build.StepDetail) string {
	c := build.Headline(d.Changed)
	text := fmt.Sprintf("%s (%s)", c.Where(), c.What)
	if more := max(d.Total, len(d.Changed)) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// sum counts the steps and the time that reuse has spared.
func (e *explanation) sum(b *strings.Builder) {
	var ran, traced int
	var spent, spared time.Duration
	for _, s := range e.report.Steps {
		switch s.Verdict {
		case build.VerdictRun:
			ran++
			spent += s.Spent
		case build.VerdictTrace:
			traced++
			spared += s.Took
		default:
			spared += s.Took
		}
	}
	n := len(e.report.Steps)
	fmt.Fprintf(b, "\n%d of %d steps ran (%s)", ran, n, seconds(spent))
	if ran < n {
		fmt.Fprintf(b, ", %d reused", n-ran)
		if traced > 0 {
			fmt.Fprintf(b, ", %d of them by trace", traced)
		}
		if spared >= time.Second {
			fmt.Fprintf(b, ": %s spared", seconds(spared))
		}
	}
	b.WriteString("\n")
}

// one says everything about one step.
func (e *explanation) one(b *strings.Builder) {
	s, d := *e.only, build.StepDetail{}
	for i := range e.report.Steps {
		if e.only == &e.report.Steps[i] {
			d = e.details[i]
		}
	}
	fmt.Fprintf(b, "%s %s\n", e.report.Label(s), s.Title)
	field := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-8s %s\n", name, fmt.Sprintf(format, args...))
	}
	field("at", "line %d of %s", s.Line, filepath.Base(e.report.Dockerfile))
	e.verdictOf(b, s, d, field)
	if s.Verdict != build.VerdictMay && !s.Ran.IsZero() {
		took := ""
		if s.Took > 0 {
			took = seconds(s.Took) + ", "
		}
		network := ""
		if s.UsedNetwork {
			network = ", used the network"
		}
		field("took", "%s%s ago%s", took, ago(s.Ran), network)
	}
	e.looked(b, s, d, field)
	e.wrote(b, s, d, field)
	if s.Key != "" {
		field("key", "%s", s.Key)
	}
}

// verdictOf is the verdict with everything that decided.
func (e *explanation) verdictOf(b *strings.Builder, s build.StepReport, d build.StepDetail, field func(name, format string, args ...any)) {
	from := ""
	if s.Source != "" {
		from = ", from " + s.Source
	}
	switch {
	case s.Error != "":
		field("failed", "%s", strings.Join(strings.Fields(s.Error), " "))
	case s.Verdict == build.VerdictExact:
		field("cached", "nothing below it or in it changed%s", from)
	case s.Verdict == build.VerdictTrace && d.Total > 0:
		field("traced", "it did not look at what changed below it%s:", from)
	case s.Verdict == build.VerdictTrace:
		field("traced", "it looked at nothing that changed below it%s", from)
	case len(s.Inputs) > 0:
		field("ran", "because changed: %s", strings.Join(s.Inputs, ", "))
	case s.Why != "" && len(d.Changed) > 0:
		field("ran", "%s:", s.Why)
	case s.Why != "":
		field("ran", "%s", s.Why)
	case s.Keyword() == "RUN":
		field("ran", "because of what changed below it:")
	case len(d.Changed) > 0:
		field("ran", "because of the files that it copies:")
	default:
		field("ran", "because of the files that it copies")
	}
	list := d.Changed
	if !e.all {
		list = list[:min(len(list), listedChanges)]
	}
	for _, c := range list {
		fmt.Fprintf(b, "             %s  %s\n", c.Where(), c.What)
	}
	if more := d.Total - len(list); more > 0 {
		fmt.Fprintf(b, "             and %d more%s\n", more, e.allHint(len(d.Changed) > len(list)))
	}
}

func (e *explanation) allHint(more bool) string {
	if more && !e.all {
		return " (--all lists them)"
	}
	return ""
}

// looked says what the command asked about.
func (e *explanation) looked(b *strings.Builder, s build.StepReport, d build.StepDetail, field func(name, format string, args ...any)) {
	if s.Keyword() != "RUN" || s.Error != "" {
		return
	}
	if d.Looked == nil && s.Questions == 0 {
		doubt := s.Doubt
		if doubt == "" {
			doubt = "none is kept"
		}
		field("looked", "no trace: %s", doubt)
		return
	}
	count := map[trace.Kind]int{}
	paths, last := 0, trace.Question{Root: -1}
	for _, q := range d.Looked {
		count[q.Kind]++
		if q.Root != last.Root || q.Path != last.Path {
			paths++
		}
		last = q
	}
	read := ""
	if d.Read > 0 {
		read = " (" + bytesOf(d.Read) + ")"
	}
	field("looked", "at %s; read %s%s, listed %s", counted(paths, "path", "paths"), counted(count[trace.Content], "file", "files"), read,
		counted(count[trace.List], "directory", "directories"))
	if !e.all {
		if len(d.Looked) > 0 {
			fmt.Fprintf(b, "             --all lists them\n")
		}
		return
	}
	for i := 0; i < len(d.Looked); {
		q := d.Looked[i]
		var kinds []string
		for ; i < len(d.Looked) && d.Looked[i].Root == q.Root && d.Looked[i].Path == q.Path; i++ {
			kinds = append(kinds, d.Looked[i].Kind.String())
		}
		fmt.Fprintf(b, "             %s  %s\n", build.QuestionPath(q), strings.Join(kinds, ", "))
	}
}

// wrote says what is in the step's layer.
func (e *explanation) wrote(b *strings.Builder, s build.StepReport, d build.StepDetail, field func(name, format string, args ...any)) {
	if s.Layer == "" {
		if s.Error == "" && s.Verdict != build.VerdictMay {
			field("wrote", "nothing")
		}
		return
	}
	if d.Wrote == nil && d.Entries == 0 {
		field("wrote", "layer %s, which is not in the store", shortDigest(s.Layer))
		return
	}
	field("wrote", "%s, %s: layer %s", counted(d.Entries, "entry", "entries"), bytesOf(d.Bytes), shortDigest(s.Layer))
	if e.all {
		for _, c := range d.Wrote {
			fmt.Fprintf(b, "             /%s  %s\n", c.Path, entryWord(c))
		}
		return
	}
	for _, c := range d.Largest(listedWritten) {
		fmt.Fprintf(b, "             /%s  %s\n", c.Path, bytesOf(c.Node.Size))
	}
}

func entryWord(c tree.Change) string {
	switch {
	case c.Whiteout():
		return "removed"
	case c.Node == nil:
		return "linked"
	case c.Node.Kind == tree.File:
		return bytesOf(c.Node.Size)
	}
	return build.KindWord(c.Node.Kind)
}

// short makes one line of a text, and cuts it where it is longer than most.
func short(s string, most int) string { return cut(strings.Join(strings.Fields(s), " "), most) }

func cut(s string, most int) string {
	if len([]rune(s)) <= most {
		return s
	}
	return string([]rune(s)[:most-3]) + "..."
}

func shortDigest(d string) string {
	name, hex, _ := strings.Cut(d, ":")
	return name + ":" + hex[:min(12, len(hex))]
}

func bytesOf(n int64) string { return units.BytesSize(float64(n)) }

func seconds(d time.Duration) string {
	if d >= 100*time.Second {
		return units.HumanDuration(d)
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func ago(t time.Time) string { return strings.ToLower(units.HumanDuration(time.Since(t))) }

// counted is a number with its noun.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

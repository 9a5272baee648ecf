package dockerfile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
)

// ErrTooLarge says that a Dockerfile, or a value computed from it, is larger than any honest one.
var ErrTooLarge = errors.New("too large")

// ParseError is what is wrong with a Dockerfile, and where.
type ParseError struct {
	Name    string // the file's name as Parse was given it
	Line    int    // first line, from 1; 0 where the error belongs to the file as a whole
	EndLine int    // last line
	Err     error
	Hint    string // what to do about it, often "did you mean ...?"; may be empty
}

// Error names the file, the line and the cause, without the hint.
func (e *ParseError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.Name, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *ParseError) Unwrap() error { return e.Err }

// Unsupported is an instruction, or a flag of one, that fbuild does not have yet.
type Unsupported struct { //nolint:errname // says what it is, as a *dockerfile.Unsupported
	Keyword string // the instruction: "RUN"
	Flag    string // what of it: "--mount", or a kind of source; may be empty
	Line    int
	Hint    string // how to do without
}

// Error names the instruction and the flag.
func (e *Unsupported) Error() string {
	return strings.TrimSpace(e.Keyword+" "+e.Flag) + " is not supported yet"
}

// TargetError says that the file has no stage of the name that was asked for.
type TargetError struct {
	Name   string   // the file's name
	Target string   // the name asked for
	Stages []string // the stages there are: their names, or their numbers
	Hint   string
}

// Error names the target and the stages there are.
func (e *TargetError) Error() string {
	return fmt.Sprintf("%s: target stage %q could not be found (there are: %s)", e.Name, e.Target, strings.Join(e.Stages, ", "))
}

var (
	positionPrefix   = regexp.MustCompile(`^dockerfile parse error on line \d+: `)
	suggestionSuffix = regexp.MustCompile(` \((did you mean .*\?)\)$`)
)

// wrap makes an error of BuildKit one of ours: its text without position and suggestion, which get fields of their own.
func wrap(name string, err error, fallback Location) *ParseError {
	if known, ok := errors.AsType[*ParseError](err); ok {
		return known
	}
	loc := fallback
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		if l := locationOf(at.Locations[0]); l.Start > 0 {
			loc = l
		}
	}
	text, hint := positionPrefix.ReplaceAllString(err.Error(), ""), ""
	if m := suggestionSuffix.FindStringSubmatchIndex(text); m != nil {
		hint, text = text[m[2]:m[3]], text[:m[0]]
	}
	cause := errors.New(text)
	if errors.Is(err, ErrTooLarge) {
		cause = fmt.Errorf("%s: %w", strings.TrimSuffix(text, ": "+ErrTooLarge.Error()), ErrTooLarge)
	}
	return &ParseError{Name: name, Line: loc.Start, EndLine: loc.End, Err: cause, Hint: hint}
}

// didYouMean is the hint for a name that is close to one of OPTIONS, or "".
func didYouMean(name string, options []string) string {
	if match, ok := suggest.Search(name, options, true); ok {
		return "did you mean " + match + "?"
	}
	return ""
}

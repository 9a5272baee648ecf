package dockerfile

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// maxValue bounds one expanded word: Linux takes no argument and no variable over 128 KiB, labels may be larger.
const maxValue = 1 << 20

// maxVars bounds the variables of a stage: the kernel takes about 2 MiB of them together.
const maxVars = 10_000

// env is an ordered set of variables.
type env struct {
	values map[string]string
	order  map[string]int
	next   int
}

func newEnv(list []string) *env {
	e := &env{values: map[string]string{}, order: map[string]int{}}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		e.set(k, v)
	}
	return e
}

func (e *env) clone() *env {
	return &env{values: maps.Clone(e.values), order: maps.Clone(e.order), next: e.next}
}

// set gives K a value and moves it to the end, as BuildKit's list does.
func (e *env) set(k, v string) {
	e.values[k], e.order[k] = v, e.next
	e.next++
}

// replace gives K a value where it stands: so an image's ENV changes.
func (e *env) replace(k, v string) {
	if _, ok := e.order[k]; !ok {
		e.set(k, v)
	}
	e.values[k] = v
}

// check fails when there are more variables than any honest stage has.
func (e *env) check() error {
	if len(e.values) > maxVars {
		return fmt.Errorf("set more than %d variables: %w", maxVars, ErrTooLarge)
	}
	return nil
}

// Get implements shell.EnvGetter.
func (e *env) Get(k string) (string, bool) {
	v, ok := e.values[k]
	return v, ok
}

// Keys implements shell.EnvGetter.
func (e *env) Keys() []string {
	keys := slices.Collect(maps.Keys(e.values))
	slices.SortFunc(keys, func(a, b string) int { return e.order[a] - e.order[b] })
	return keys
}

func (e *env) list() []string {
	keys := e.Keys()
	for i, k := range keys {
		keys[i] = k + "=" + e.values[k]
	}
	return keys
}

// meter hands out variables and stops when a word would grow beyond maxValue: forty lines of ENV a=$a$a are 2^40 bytes.
type meter struct {
	*env
	word  int // the length of the word itself
	depth int // how deep ${x//a/b} is nested in it: each level multiplies
	total int
	over  bool
}

// Get implements shell.EnvGetter.
func (m *meter) Get(k string) (string, bool) {
	v, ok := m.env.Get(k)
	m.total += len(v)
	bound := m.total
	for range m.depth {
		bound = min(bound, maxValue) * (m.word + m.total)
	}
	if m.total > maxValue || bound > 64*maxValue {
		m.over = true
		return "", ok
	}
	return v, ok
}

// maxNesting bounds ${a:-${b:-...}}: BuildKit's lexer calls itself for each level, and an overflow of Go's stack kills
// the process.
const maxNesting = 1000

var replaceAllSyntax = regexp.MustCompile(`^\$\{[A-Za-z0-9_]+//`)

// replaceDepth counts how deep ${x//a/b} can be nested in WORD; it fails when any braces are nested too deep.
func replaceDepth(word string) (int, error) {
	depth, deepest := 0, 0
	var open []bool
	for i := 0; i < len(word); i++ {
		switch {
		case strings.HasPrefix(word[i:], "${"):
			all := replaceAllSyntax.MatchString(word[i:])
			if all {
				depth++
				deepest = max(deepest, depth)
			}
			if open = append(open, all); len(open) > maxNesting {
				return 0, fmt.Errorf("expand %.80q: nested deeper than %d: %w", word, maxNesting, ErrTooLarge)
			}
		case word[i] == '}' && len(open) > 0:
			if open[len(open)-1] {
				depth--
			}
			open = open[:len(open)-1]
		}
	}
	return deepest, nil
}

func newMeter(word string, vars *env) (*meter, error) {
	depth, err := replaceDepth(word)
	return &meter{env: vars, word: len(word), depth: depth}, err
}

// expand replaces the variables of WORD and tells which names it found and which it did not.
func expand(lex *shell.Lex, word string, vars *env) (shell.ProcessWordResult, error) {
	m, err := newMeter(word, vars)
	if err != nil {
		return shell.ProcessWordResult{}, err
	}
	res, err := lex.ProcessWordWithMatches(word, m)
	return res, m.check(word, res.Result, err)
}

func expandWords(lex *shell.Lex, word string, vars *env) ([]string, error) {
	m, err := newMeter(word, vars)
	if err != nil {
		return nil, err
	}
	words, err := lex.ProcessWords(word, m)
	return words, m.check(word, strings.Join(words, " "), err)
}

func (m *meter) check(word, result string, err error) error {
	if m.over || len(result) > maxValue {
		return fmt.Errorf("expand %.80q: more than %d bytes: %w", word, maxValue, ErrTooLarge)
	}
	if err != nil {
		text := strings.Replace(err.Error(), "failed to process", "process", 1)
		// BuildKit takes the end of the text for a modifier.
		return errors.New(strings.Replace(text, "unsupported modifier (\uFFFD) in substitution", "syntax error: missing '}'", 1))
	}
	return nil
}

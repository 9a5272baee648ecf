package trace

import (
	"fmt"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// Answered is a question and what the file system that a step ran on answered.
type Answered struct {
	Question
	Answer string
}

// Trace is all that a step looked at, sorted by Question.Compare, each question once.
type Trace struct {
	Times   bool // answers hold times
	Answers []Answered
}

// Record answers the questions of a step. Roots are the file systems that it ran on,
// by Question.Root; the order of the questions does not matter, nor how often each is
// asked.
func Record(roots []tree.Tree, questions []Question, o AnswerOptions) (*Trace, error) {
	questions = Sorted(questions)
	t := &Trace{Times: o.Times, Answers: make([]Answered, len(questions))}
	known := map[string]string{} // most answers are given often
	w := walker{roots: roots}
	var buf []byte
	for i, q := range questions {
		n, err := w.lookup(q)
		if err != nil {
			return nil, err
		}
		if buf, err = appendAnswer(buf[:0], n, q, o); err != nil {
			return nil, err
		}
		answer, ok := known[string(buf)]
		if !ok {
			answer = string(buf)
			known[answer] = answer
		}
		t.Answers[i] = Answered{Question: q, Answer: answer}
	}
	return t, nil
}

// Match asks every question of the trace again, what costs bytes to be read last. It
// returns those that are answered otherwise, at most limit of them and at least the
// first, and how many it found; with limit 0 it stops at the first. No difference is
// a match. An error is doubt, and no match.
func (t *Trace) Match(roots []tree.Tree, o AnswerOptions, limit int) ([]Difference, int, error) {
	o.Times = t.Times
	m := matcher{o: o, limit: limit}
	for _, costly := range []bool{false, true} {
		w := walker{roots: roots}
		for i := range t.Answers {
			a := &t.Answers[i]
			if (a.Kind == Content) != costly {
				continue
			}
			n, err := w.lookup(a.Question)
			if err != nil {
				return nil, 0, err
			}
			if err := m.ask(a, n); err != nil {
				return nil, 0, err
			}
			if m.total > 0 && limit <= 0 {
				return m.found, m.total, nil
			}
		}
		if m.total > 0 && !costly {
			o.Digest = nil // what is read only to find more differences is not worth it
			m.o, m.rough = o, true
		}
	}
	return m.found, m.total, nil
}

// matcher collects what is answered otherwise.
type matcher struct {
	o     AnswerOptions
	limit int
	// rough says that contents that would have to be read are left out.
	rough bool
	found []Difference
	total int
	buf   []byte
}

func (m *matcher) ask(a *Answered, n *tree.Node) error {
	if m.rough && a.Kind == Content && n != nil && n.Kind == tree.File && n.Digest == "" && n.Size > 0 {
		return nil
	}
	var err error
	if m.buf, err = appendAnswer(m.buf[:0], n, a.Question, m.o); err != nil {
		return err
	}
	if string(m.buf) == a.Answer {
		return nil
	}
	m.total++
	if len(m.found) < max(1, m.limit) {
		m.found = append(m.found, Difference{Question: a.Question, Was: a.Answer, Is: string(m.buf)})
	}
	return nil
}

// walker looks up paths that come in order, each from where the one before it stands.
type walker struct {
	roots []tree.Tree
	root  int
	path  string
	stack []*tree.Node // of path: the root, then one for each name
}

func (w *walker) lookup(q Question) (*tree.Node, error) {
	if q.Root < 0 || q.Root >= len(w.roots) || w.roots[q.Root].Root() == nil {
		return nil, fmt.Errorf("answer about %q: there is no file system %d", q.Path, q.Root)
	}
	if len(w.stack) == 0 || w.root != q.Root {
		w.root, w.path, w.stack = q.Root, "", append(w.stack[:0], w.roots[q.Root].Root())
	}
	depth, at := w.common(q.Path)
	w.stack, w.path = w.stack[:depth+1], q.Path
	n := w.stack[depth]
	for rest := q.Path[at:]; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if n != nil {
			n = n.Child(name)
		}
		w.stack = append(w.stack, n)
	}
	return n, nil
}

// common returns how many names the path before and p share, and where in p the next begins.
func (w *walker) common(p string) (depth, at int) {
	i := 0
	for ; i < len(p) && i < len(w.path) && p[i] == w.path[i]; i++ {
		if p[i] == '/' {
			depth, at = depth+1, i+1
		}
	}
	atEnd := func(s string) bool { return i == len(s) || s[i] == '/' }
	if i > at && atEnd(p) && atEnd(w.path) {
		depth, at = depth+1, min(i+1, len(p))
	}
	return depth, at
}

package trace

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// On-disk format of a trace, version 1. Numbers are varints, strings length-prefixed
// bytes.
//
//	magic "fbtrace1\n"
//	flags: 1 answers hold times
//	answers: count, then for each its length doubled, plus 1 if 64 hex digits follow, as
//	         32 bytes; and the bytes before them
//	paths: count, then for each
//	  root, length of the prefix shared with the path before, rest of the path
//	  kinds, one bit for each from bit 0 on; for each the number of its answer
//
// Answers are numbered in the order in which they are first given, paths sorted.
const magic = "fbtrace1\n"

const flagTimes = 1

// The bounds of a trace on the disk. What is longer is not encoded.
const (
	maxPath  = 64 << 10 // one path
	maxPaths = 64 << 20 // all paths, written out
	maxRoot  = 1 << 16
	// maxAnswers bounds the memory of a trace, to some 400 MiB: a step that looks at
	// every file of ten large images has a fifth of them.
	maxAnswers = 8 << 20
)

const hexDigits = 64

// leastPath is what a path and one answer take at least.
const leastPath = 5

// ErrTooLarge is returned by Encode for what Decode would not take.
var ErrTooLarge = errors.New("the trace is too large")

// ErrCorrupt is returned by Decode for what is no trace.
var ErrCorrupt = errors.New("corrupt trace")

// Encode returns the form of a trace on the disk. Equal traces have equal forms, so
// that its digest names a trace.
func (t *Trace) Encode() ([]byte, error) {
	if len(t.Answers) > maxAnswers {
		return nil, ErrTooLarge
	}
	e := encoder{numbers: map[string]uint64{}}
	total, paths := 0, 0
	prev := ""
	for i := 0; i < len(t.Answers); {
		q := t.Answers[i].Question
		if total += len(q.Path); len(q.Path) > maxPath || total > maxPaths || q.Root < 0 || q.Root >= maxRoot {
			return nil, ErrTooLarge
		}
		i += e.path(t.Answers[i:], prev)
		prev = q.Path
		paths++
	}
	out := make([]byte, 0, len(e.b)+len(e.answers)*40+64)
	out = append(out, magic...)
	flags := uint64(0)
	if t.Times {
		flags = flagTimes
	}
	out = binary.AppendUvarint(out, flags)
	out = binary.AppendUvarint(out, uint64(len(e.answers)))
	for _, a := range e.answers {
		out = appendText(out, a)
	}
	out = binary.AppendUvarint(out, uint64(paths))
	return append(out, e.b...), nil
}

type encoder struct {
	b       []byte
	numbers map[string]uint64
	answers []string
}

// path writes the answers about one path, the first, and returns how many these are.
func (e *encoder) path(list []Answered, prev string) int {
	q := list[0].Question
	n, kinds := 0, uint64(0)
	for n < len(list) && list[n].Root == q.Root && list[n].Path == q.Path {
		kinds |= 1 << (list[n].Kind - Entry)
		n++
	}
	shared := 0
	for shared < len(prev) && shared < len(q.Path) && prev[shared] == q.Path[shared] {
		shared++
	}
	e.b = binary.AppendUvarint(e.b, uint64(q.Root))
	e.b = binary.AppendUvarint(e.b, uint64(shared))
	e.b = binary.AppendUvarint(e.b, uint64(len(q.Path)-shared))
	e.b = append(e.b, q.Path[shared:]...)
	e.b = binary.AppendUvarint(e.b, kinds)
	for _, a := range list[:n] {
		at, ok := e.numbers[a.Answer]
		if !ok {
			at = uint64(len(e.answers))
			e.numbers[a.Answer] = at
			e.answers = append(e.answers, a.Answer)
		}
		e.b = binary.AppendUvarint(e.b, at)
	}
	return n
}

func appendText(b []byte, s string) []byte {
	cut := len(s) - hexDigits
	if cut >= 0 && strings.Trim(s[cut:], "0123456789abcdef") == "" {
		b = append(binary.AppendUvarint(b, uint64(cut)<<1|1), s[:cut]...)
		b, _ = hex.AppendDecode(b, []byte(s[cut:])) // the digits were looked at
		return b
	}
	return append(binary.AppendUvarint(b, uint64(len(s))<<1), s...)
}

// Decode reads what Encode wrote. What is no trace gives ErrCorrupt.
func Decode(b []byte) (*Trace, error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, ErrCorrupt
	}
	d := decoder{s: string(b[len(magic):])}
	flags := d.uint()
	if flags > flagTimes {
		d.fail("unknown flags")
	}
	given := d.count()
	if given > maxAnswers {
		d.fail("too many answers")
		given = 0
	}
	answers := make([]string, given)
	for i := range answers {
		answers[i] = d.text()
	}
	paths := d.count()
	t := &Trace{Times: flags&flagTimes != 0, Answers: make([]Answered, 0, min(paths, len(d.s)/leastPath, maxAnswers))}
	last, total := Question{}, 0
	for i := 0; i < paths && d.err == nil; i++ {
		q := d.question(last)
		if total += len(q.Path); total > maxPaths {
			d.fail("too many paths")
		}
		if i > 0 && d.err == nil && (Question{Root: q.Root, Path: q.Path}).Compare(Question{Root: last.Root, Path: last.Path}) <= 0 {
			d.fail("paths out of order")
		}
		if t.Answers = d.answers(t.Answers, q, answers); len(t.Answers) > maxAnswers {
			d.fail("too many answers")
		}
		last = q
	}
	if d.err == nil && d.s != "" {
		d.fail("bytes behind the end")
	}
	if d.err != nil {
		return nil, d.err
	}
	t.Answers = slices.Clip(t.Answers)
	return t, nil
}

type decoder struct {
	s   string
	err error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrCorrupt, why)
	}
	d.s = ""
}

func (d *decoder) uint() uint64 {
	var v uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return v
		}
	}
	d.fail("number cut short")
	return 0
}

// count reads the length of a list, each of whose items takes a byte or more.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.s)) {
		d.fail("list too long")
		return 0
	}
	return int(v)
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.s)) {
		d.fail("cut short")
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) text() string {
	head := d.uint()
	s := d.take(head >> 1)
	if head&1 != 0 {
		s += hex.EncodeToString([]byte(d.take(hexDigits / 2)))
	}
	return s
}

func (d *decoder) question(last Question) Question {
	root, shared := d.uint(), d.uint()
	rest := d.take(d.uint())
	if root >= maxRoot || shared > uint64(len(last.Path)) || len(rest)+int(shared) > maxPath {
		d.fail("impossible path")
		return Question{}
	}
	return Question{Root: int(root), Path: last.Path[:shared] + rest}
}

// answers reads what was asked about a path.
func (d *decoder) answers(list []Answered, q Question, answers []string) []Answered {
	kinds := d.uint()
	if kinds == 0 || kinds >= 1<<Time {
		d.fail("unknown kinds")
		return list
	}
	for k := Entry; k <= Time; k++ {
		if kinds&(1<<(k-Entry)) == 0 {
			continue
		}
		at := d.uint()
		if at >= uint64(len(answers)) {
			d.fail("no such answer")
			return list
		}
		q.Kind = k
		list = append(list, Answered{Question: q, Answer: answers[at]})
	}
	return list
}

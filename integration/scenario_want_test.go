//go:build integration

package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// want is what one build of a scenario has to do.
type want struct {
	verdicts []verdict
	flags    []string
	log      []string
	differs  *regexp.Regexp
	exit     int
}

// verdict is a step by the start of its instruction, and what became of it.
type verdict struct{ is, step string }

func parseWant(text string) (*want, error) {
	w := &want{}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		var err error
		switch word {
		case "", "#":
		case "run", "exact", "trace", "found", "failed":
			w.verdicts = append(w.verdicts, verdict{word, rest})
		case "flags":
			w.flags = append(w.flags, strings.Fields(rest)...)
		case "log":
			w.log = append(w.log, rest)
		case "differs":
			w.differs, err = regexp.Compile(rest)
		case "exit":
			w.exit, err = strconv.Atoi(rest)
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return nil, fmt.Errorf("want %q: %w", strings.TrimSpace(line), err)
		}
	}
	return w, nil
}

var (
	verdictStepRE = regexp.MustCompile(`(?m)^#(\d+) \[[^\]]*\d+/\d+\] (?:ONBUILD )?((?:RUN|COPY|ADD|WORKDIR) .*)$`)
	verdictEndRE  = regexp.MustCompile(`(?m)^#(\d+) (CACHED|DONE|ERROR)(.*)$`)
)

// stepsOf reads a plain log.
func stepsOf(log string) []verdict {
	ends := map[string]string{}
	for _, m := range verdictEndRE.FindAllStringSubmatch(log, -1) {
		switch {
		case m[2] == "ERROR":
			ends[m[1]] = "failed"
		case m[2] == "DONE":
			ends[m[1]] = "run"
		case strings.Contains(m[3], "traced"):
			ends[m[1]] = "trace"
		default:
			ends[m[1]] = "exact"
		}
	}
	var out []verdict
	seen := map[string]bool{}
	for _, m := range verdictStepRE.FindAllStringSubmatch(log, -1) {
		if !seen[m[1]] {
			seen[m[1]] = true
			out = append(out, verdict{ends[m[1]], m[2]})
		}
	}
	return out
}

// check compares what happened with what was wanted. LOOSE leaves a RUN without a
// verdict alone.
func (w *want) check(got []verdict, loose bool) []string {
	var out []string
	got = slices.Clone(got)
	for _, v := range w.verdicts {
		i := slices.IndexFunc(got, func(g verdict) bool { return strings.HasPrefix(g.step, v.step) })
		if i < 0 {
			out = append(out, fmt.Sprintf("no step %q", v.step))
			continue
		}
		g := got[i]
		got = slices.Delete(got, i, i+1)
		if g.is != v.is && (v.is != "found" || g.is != "exact" && g.is != "trace") {
			out = append(out, fmt.Sprintf("%s: got %s, want %s", g.step, g.is, v.is))
		}
	}
	for _, g := range got {
		if !loose && strings.HasPrefix(g.step, "RUN") {
			out = append(out, fmt.Sprintf("%s: got %s, and no verdict is wanted", g.step, g.is))
		}
	}
	return out
}

// The reading of a log, and the comparison, can fail.
func TestVerdicts(t *testing.T) {
	log := "#1 [internal] load x\n#1 DONE 0.1s\n\n#2 [base 1/4] FROM b\n#2 DONE 0.0s\n\n#3 [base 2/4] RUN a\n#3 0.1 CACHED\n#4 [3/4] RUN b\n#4 CACHED (traced)\n\n" +
		"#3 [base 2/4] RUN a\n#3 DONE 0.2s\n\n#5 [4/4] COPY x y\n#5 CACHED\n\n#6 [4/4] ONBUILD RUN c\n#6 CACHED (traced; used the network 3 h ago)\n#7 [4/4] RUN d\n#7 ERROR: x\n"
	got := stepsOf(log)
	if d := cmp.Diff([]verdict{{"run", "RUN a"}, {"trace", "RUN b"}, {"exact", "COPY x y"}, {"trace", "RUN c"}, {"failed", "RUN d"}}, got, cmp.AllowUnexported(verdict{})); d != "" {
		t.Errorf("steps (-want +got):\n%s", d)
	}
	for _, c := range []struct{ want, problem string }{
		{"run RUN a\ntrace RUN b\nfound RUN c\nfailed RUN d", ""},
		{"trace RUN a\ntrace RUN b\ntrace RUN c\nfailed RUN d", "RUN a: got run, want trace"},
		{"run RUN a\ntrace RUN b\ntrace RUN c", "RUN d: got failed, and no verdict is wanted"},
		{"run RUN a\ntrace RUN b\ntrace RUN c\nfailed RUN d\nrun RUN a", `no step "RUN a"`},
		{"found RUN a\ntrace RUN b\ntrace RUN c\nfailed RUN d", "RUN a: got run, want found"},
	} {
		w, err := parseWant(c.want)
		if err != nil {
			t.Fatal(err)
		}
		if p := strings.Join(w.check(got, false), "; "); p != c.problem {
			t.Errorf("%q: got %q, want %q", c.want, p, c.problem)
		}
	}
	if _, err := parseWant("cached RUN a"); err == nil {
		t.Error("an unknown verdict: got no error")
	}
}

package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// originOf makes a build of the world leave a report.
func (w *world) origin(o *Options) {
	o.Origin = Origin{Dockerfile: filepath.Join(w.dir, "Dockerfile"), Context: w.dir, Version: "test"}
}

// reports are those of the world's Dockerfile.
func (w *world) reports() []Report {
	w.t.Helper()
	list, err := Reports(w.store, filepath.Join(w.dir, "Dockerfile"))
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func stepLines(r Report) []string {
	var out []string
	for _, s := range r.Steps {
		line := fmt.Sprintf("%s %s: %s", r.Label(s), s.Keyword(), s.Verdict)
		if s.Verdict == VerdictRun {
			line += " " + strings.TrimPrefix(s.note(), "runs")
		}
		if s.Error != "" {
			line += " ERROR"
		}
		out = append(out, line)
	}
	return out
}

// Every build leaves a report, one that failed too; each says why its steps ran.
func TestReports(t *testing.T) {
	const text = "FROM scratch AS a\nARG v\nCOPY one /d/\nWORKDIR /w\nFROM scratch\nCOPY --from=a /d /e\n"
	tests := []struct {
		name   string
		change func(w *world)
		text   string
		opts   func(o *Options)
		want   []string
	}{
		{"nothing changed", func(*world) {}, text, nil, []string{"[a 1/2] COPY: exact", "[a 2/2] WORKDIR: exact", "[stage-1 1/1] COPY: exact"}},
		{"a file changed", func(w *world) { w.write("one", "new") }, text, nil, []string{
			"[a 1/2] COPY: run  because its files changed", "[a 2/2] WORKDIR: trace", "[stage-1 1/1] COPY: run  because its files changed",
		}},
		{"another target directory", func(*world) {}, strings.Replace(text, "/d/\n", "/d/x\n", 1), nil, []string{
			"[a 1/2] COPY: run  because target changed", "[a 2/2] WORKDIR: trace", "[stage-1 1/1] COPY: run  because its files changed",
		}},
		{"no cache", func(*world) {}, text, func(o *Options) { o.NoCache = true }, []string{
			"[a 1/2] COPY: run : --no-cache", "[a 2/2] WORKDIR: run : --no-cache", "[stage-1 1/1] COPY: run : --no-cache",
		}},
		{"a step that fails", func(w *world) { _ = os.Remove(filepath.Join(w.dir, "one")) }, strings.Split(text, "FROM scratch\n")[0], nil, []string{"[1/2] COPY: run  because  ERROR"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("one", "1")
			w.must(text, w.origin)
			if got, want := len(w.reports()), 1; got != want {
				t.Fatalf("reports after one build: got %d, want %d", got, want)
			}
			for _, s := range w.reports()[0].Steps {
				if s.Why != "first build" {
					t.Errorf("first build: step %s: why %q, want it to be the first build", s.Title, s.Why)
				}
			}
			tt.change(w)
			if tt.opts == nil {
				tt.opts = func(*Options) {}
			}
			_, err := w.build(tt.text, w.origin, tt.opts)
			r := w.reports()[0]
			if (err != nil) != (r.Error != "") {
				t.Errorf("error of the report: got %q, of the build %v", r.Error, err)
			}
			if d := cmp.Diff(tt.want, stepLines(r)); d != "" {
				t.Errorf("report (-want +got):\n%s", d)
			}
		})
	}
}

// What is kept is bounded, for each target and in all, and the newest come first.
func TestReportsAreBounded(t *testing.T) {
	entry := func(target string, n, size int) keptReport {
		return keptReport{[]byte(target), []byte(fmt.Sprintf("%d%s", n, strings.Repeat("x", size)))}
	}
	tests := []struct {
		name string
		list []keptReport
		want string
	}{
		{"few", []keptReport{entry("a", 1, 0), entry("b", 2, 0)}, "a1 b2"},
		{"many of a target", []keptReport{entry("a", 1, 0), entry("a", 2, 0), entry("a", 3, 0), entry("b", 9, 0), entry("a", 4, 0), entry("a", 5, 0), entry("a", 6, 0)}, "a1 a2 a3 b9 a4 a5"},
		{"large", []keptReport{entry("a", 1, keepBytes/2), entry("b", 2, keepBytes/2), entry("c", 3, 0)}, "a1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, k := range decodeReports(encodeReports(tt.list)) {
				got = append(got, string(k.target)+strings.TrimRight(string(k.data), "x"))
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("kept: got %s, want %s", got, tt.want)
			}
		})
	}
	for n := range 20 {
		if got := decodeReports(encodeReports(tests[1].list)[:n]); len(got) > 4 {
			t.Errorf("of %d bytes: got %d reports", n, len(got))
		}
	}
}

// A report that is too large is kept without most of its differences.
func TestLargeReportIsCut(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.must("FROM scratch\nCOPY one .\n", w.origin)
	b := w.builder()
	w.origin(&b.opts)
	b.opts.File = &dockerfile.File{}
	b.sealCtx = t.Context()
	rep := &reportedStep{StepReport: StepReport{Verdict: VerdictRun, Title: "RUN x"}}
	for i := range maxDifferences {
		rep.Differences = append(rep.Differences, trace.Difference{Question: trace.Question{Path: fmt.Sprint(i, strings.Repeat("p", 20_000)), Kind: trace.Entry}})
	}
	b.reports.steps = []*reportedStep{rep}
	b.keepReport(nil, nil)
	list := w.reports()
	if len(list) == 0 || len(list[0].Steps) != 1 || len(list[0].Steps[0].Differences) != 3 {
		t.Errorf("a large report: got %d reports; want it to be kept with 3 differences", len(list))
	}
}

// Arguments that may be passwords are not kept.
func TestReportKeepsNoPasswords(t *testing.T) {
	w := newWorld(t)
	w.must("FROM scratch\nWORKDIR /x\n", w.origin, func(o *Options) {
		o.Origin.BuildArgs = map[string]string{"HTTPS_PROXY": "http://me:secret@proxy", "V": "1"}
		o.Contexts = map[string]string{"c": "https://me:secret@host/x.git"}
	})
	if got := fmt.Sprint(w.reports()[0]); strings.Contains(got, "secret") || !strings.Contains(got, "V:1") {
		t.Errorf("the report holds a password, or lacks an argument: %s", got)
	}
}

func TestDifferenceWords(t *testing.T) {
	d := func(k trace.Kind, was, is string) trace.Difference {
		return trace.Difference{Question: trace.Question{Path: "p", Kind: k}, Was: was, Is: is}
	}
	tests := []struct {
		name string
		list []trace.Difference
		want string
	}{
		{"content and size", []trace.Difference{d(trace.Entry, "- 644 0:0 1 12", "- 644 0:0 1 13"), d(trace.Content, "sha256:a", "sha256:b")}, "content, size 12 -> 13"},
		{"mode and owner", []trace.Difference{d(trace.Entry, "d 755 0:0", "d 700 1:1")}, "mode 755 -> 700, owner 0:0 -> 1:1"},
		{"new", []trace.Difference{d(trace.Entry, "absent", "- 644 0:0 1 12"), d(trace.Content, "absent", "sha256:b")}, "new"},
		{"gone", []trace.Difference{d(trace.Entry, "- 644 0:0 1 12", "absent")}, "gone"},
		{"kind", []trace.Difference{d(trace.Entry, "- 644 0:0 1 12", "l 777 0:0 1 3")}, "kind file -> symlink"},
		{"list", []trace.Difference{d(trace.List, "3 aa", "4 bb")}, "names in it 3 -> 4"},
		{"list of as many", []trace.Difference{d(trace.List, "3 aa", "3 bb")}, "names in it"},
		{"link", []trace.Difference{d(trace.Link, "-> a", "-> b")}, "target a -> b"},
		{"xattrs", []trace.Difference{d(trace.Xattr, "0 -", "1 x")}, "extended attributes"},
		{"time", []trace.Difference{d(trace.Entry, "- 644 0:0 1 12 @1.0", "- 644 0:0 1 12 @2.0")}, "entry"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := differenceWords(tt.list); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The words are those of real answers.
func TestDifferenceWordsOfAnswers(t *testing.T) {
	was, is := tree.Empty().Edit(), tree.Empty().Edit()
	for e, n := range map[*tree.Editor]tree.Node{was: {Kind: tree.File, Mode: 0o644, Size: 3, Digest: "sha256:a"}, is: {Kind: tree.File, Mode: 0o755, Size: 4, Digest: "sha256:b"}} {
		if err := e.Put("f", n); err != nil {
			t.Fatal(err)
		}
	}
	rec, err := trace.Record([]tree.Tree{was.Tree()}, []trace.Question{{Path: "f", Kind: trace.Entry}, {Path: "f", Kind: trace.Content}}, trace.AnswerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	diffs, total, err := rec.Match([]tree.Tree{is.Tree()}, trace.AnswerOptions{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	rep := StepReport{Verdict: VerdictRun, Differences: diffs, Total: total}
	got, _ := rep.Changed()
	if d := cmp.Diff([]PathChange{{0, "f", "content, mode 644 -> 755, size 3 -> 4"}}, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
}

// A change is answered for each image: what is out of its reach, what gives the same
// image, what gives another, and what is built on that.
func TestFindAffected(t *testing.T) {
	type image struct{ dockerfile, text, target string }
	images := []image{
		{"api/Dockerfile", "FROM scratch AS build\nCOPY . /src\nFROM scratch\nCOPY --from=build /src/main /main\nCMD [\"/main\"]\n", ""},
		{"web/Dockerfile", "FROM scratch\nCOPY . /web\n", ""},
	}
	tests := []struct {
		name    string
		change  func(w *world)
		changed []string // nil: everything counts
		want    []string
	}{
		{"nothing", func(*world) {}, nil, []string{"api/Dockerfile same", "new/Dockerfile unknown", "web/Dockerfile same"}},
		{"what the image holds", func(w *world) { w.write("api/main", "new") }, []string{"api/main"}, []string{"api/Dockerfile changes", "new/Dockerfile untouched", "web/Dockerfile untouched"}},
		{"what only a stage copies", func(w *world) { w.write("api/README", "new") }, []string{"api/README"}, []string{"api/Dockerfile same", "new/Dockerfile untouched", "web/Dockerfile untouched"}},
		{"an ignored file", func(w *world) { w.write("web/log", "new") }, []string{"web/log"}, []string{"api/Dockerfile untouched", "new/Dockerfile untouched", "web/Dockerfile untouched"}},
		{"a command", func(w *world) { w.write("api/Dockerfile", strings.Replace(images[0].text, "CMD", "ENTRYPOINT", 1)) }, []string{"api/Dockerfile"}, []string{"api/Dockerfile changes", "new/Dockerfile untouched", "web/Dockerfile untouched"}},
		{"a comment", func(w *world) { w.write("api/Dockerfile", "# x\n"+images[0].text) }, []string{"api/Dockerfile"}, []string{"api/Dockerfile same", "new/Dockerfile untouched", "web/Dockerfile untouched"}},
		{"a fault", func(w *world) { w.write("web/Dockerfile", "FRO scratch\n") }, []string{"web/Dockerfile"}, []string{"api/Dockerfile untouched", "new/Dockerfile untouched", "web/Dockerfile broken"}},
		{"one that was never built", func(*world) {}, []string{"new/x"}, []string{"api/Dockerfile untouched", "new/Dockerfile unknown", "web/Dockerfile untouched"}},
		{"a file outside", func(w *world) { w.write("other", "new") }, []string{"other"}, []string{"api/Dockerfile untouched", "new/Dockerfile untouched", "web/Dockerfile untouched"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for name, text := range map[string]string{"api/main": "1", "api/README": "2", "web/index": "3", "web/log": "4", "web/.dockerignore": "log\n", "new/Dockerfile": "FROM scratch\nCOPY x .\n", "new/x": "1"} {
				w.write(name, text)
			}
			for _, i := range images {
				w.write(i.dockerfile, i.text)
				w.must(i.text, func(o *Options) {
					dir := filepath.Join(w.dir, filepath.Dir(i.dockerfile))
					o.ContextDir, o.Origin = dir, Origin{Dockerfile: filepath.Join(w.dir, i.dockerfile), Context: dir}
					if i.dockerfile == "web/Dockerfile" {
						o.Ignore = []byte("log\n")
					}
				})
			}
			tt.change(w)
			o := AffectedOptions{Store: w.store, Dir: w.dir, All: tt.changed == nil, Platform: v1.Platform{OS: "linux", Architecture: "amd64"}}
			for _, c := range tt.changed {
				o.Changed = append(o.Changed, filepath.Join(w.dir, c))
			}
			list, err := FindAffected(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range list {
				rel, _ := filepath.Rel(w.dir, a.Dockerfile)
				got = append(got, rel+" "+a.Status)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("affected (-want +got):\n%s", d)
			}
		})
	}
}

// What is built on an affected image is affected, and what is built on that.
func TestAffectedSpreads(t *testing.T) {
	list := []Affected{
		{Dockerfile: "c", Status: StatusUntouched, Names: []string{"docker.io/library/c:latest"}, Last: &Report{Bases: []string{"b"}}},
		{Dockerfile: "b", Status: StatusSame, Names: []string{"docker.io/library/b:latest"}, Last: &Report{Bases: []string{"a:1"}}},
		{Dockerfile: "a", Status: StatusChanges, Names: []string{"docker.io/library/a:1"}, Last: &Report{}},
		{Dockerfile: "d", Status: StatusUntouched, Last: &Report{Bases: []string{"e"}}},
	}
	spread(list)
	var got []string
	for _, a := range list {
		got = append(got, a.Dockerfile+" "+a.Status)
	}
	if d := cmp.Diff([]string{"c changes", "b changes", "a changes", "d untouched"}, got); d != "" {
		t.Errorf("affected (-want +got):\n%s", d)
	}
}

// Why finds the step of a path, through symlinks and layers that remove.
func TestWhy(t *testing.T) {
	w := newWorld(t)
	w.write("one", "1")
	w.write("dir/two", "22")
	if err := os.Symlink("dir", filepath.Join(w.dir, "link")); err != nil {
		t.Fatal(err)
	}
	res := w.must("FROM scratch\nCOPY . /a/\nCOPY one /a/dir/two\nWORKDIR /w\n", w.origin, func(o *Options) { o.Tags = []string{"docker.io/library/x:latest"} })
	tests := []struct {
		image, path string
		want        string
		err         error
	}{
		{"x", "/a/one", "a/one COPY 2 over 0", nil},
		{"x", "a/dir/two", "a/dir/two COPY 3 over 1", nil},
		{"x", "/a/link/two", "a/dir/two COPY 3 over 1", nil},
		{res.ImageID, "/w", "w WORKDIR 4 over 0", nil},
		{res.ImageID[7:19], "/a/link", "a/link COPY 2 over 0", nil},
		{"x", "/nothing", "", ErrNoPath},
		{"y", "/w", "", ErrNoImage},
	}
	for _, tt := range tests {
		t.Run(tt.image+" "+tt.path, func(t *testing.T) {
			m, err := Why(t.Context(), w.store, tt.image, tt.path, v1.Platform{OS: "linux", Architecture: "amd64"})
			if !errors.Is(err, tt.err) {
				t.Fatalf("error: got %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			got := fmt.Sprintf("%s %s %d over %d", m.Path, m.By.Step.Keyword(), m.By.Step.Line, len(m.Older))
			if got != tt.want {
				t.Errorf("made by: got %s, want %s", got, tt.want)
			}
		})
	}
}

// The files of a context that nobody needs: with patterns for whole directories.
func TestFindUnused(t *testing.T) {
	w := newWorld(t)
	for name, text := range map[string]string{"src/main": "1", "src/doc/big": strings.Repeat("x", 100), "src/doc/small": "y", "shipped": "3", "idle": "4", "Dockerfile": ""} {
		w.write(name, text)
	}
	const text = "FROM scratch AS a\nCOPY src /src\nFROM scratch\nCOPY --from=a /src/main /m\nCOPY shipped /\n"
	w.write("Dockerfile", text)
	w.must(text, w.origin)
	last := w.reports()[0]
	u, err := FindUnused(t.Context(), w.store, &last, v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range u.Files {
		got = append(got, f.Path+": "+f.How)
	}
	want := []string{"src/doc/big: not read", "Dockerfile: not copied", "idle: not copied", "shipped: shipped", "src/doc/small: not read", "src/main: shipped"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("unused (-want +got):\n%s", d)
	}
	got = nil
	for _, f := range u.Patterns() {
		got = append(got, f.Path)
	}
	if d := cmp.Diff([]string{"src/doc/", "Dockerfile", "idle"}, got); d != "" {
		t.Errorf("patterns (-want +got):\n%s", d)
	}
	w.write("Dockerfile", text+"RUN x\n")
	if _, err := FindUnused(t.Context(), w.store, &last, v1.Platform{OS: "linux", Architecture: "amd64"}); !errors.Is(err, ErrStale) {
		t.Errorf("with a step that nobody did: got %v, want %v", err, ErrStale)
	}
}

// Reports go with what is pruned.
func TestReportsArePruned(t *testing.T) {
	w := newWorld(t)
	w.must("FROM scratch\nWORKDIR /x\n", w.origin)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	testenv.Tick(t) // what is not older than the next process, by the coarse clock of a file system, stays
	var err error
	if w.store, err = cache.Open(t.Context(), w.store.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Prune(t.Context(), cache.PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.reports()); n != 0 {
		t.Errorf("after prune --all: got %d reports, want none", n)
	}
}

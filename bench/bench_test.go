package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []float64
		want float64
	}{
		{"one", []float64{3}, 3},
		{"odd, not in order", []float64{9, 1, 4}, 4},
		{"even", []float64{4, 1, 2, 9}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.in); got != tt.want {
				t.Errorf("median(%v): got %v, want %v", tt.in, got, tt.want)
			}
		})
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: got %v, want NaN", got)
	}
}

// The ranks and coverages are those of printed tables of the sign test.
func TestInterval(t *testing.T) {
	for _, tt := range []struct {
		n              int
		low, high, cov float64
	}{
		{1, 1, 1, 0},
		{2, 1, 2, 0.5},
		{5, 1, 5, 0.9375},
		{6, 1, 6, 0.96875},
		{8, 1, 8, 0.9921875},
		{9, 2, 8, 0.9609375},
		{15, 4, 12, 0.96484375},
		{20, 6, 15, 0.95861053},
	} {
		var in []float64
		for i := tt.n; i > 0; i-- {
			in = append(in, float64(i))
		}
		low, high, cov := interval(in)
		if low != tt.low || high != tt.high || math.Abs(cov-tt.cov) > 1e-6 {
			t.Errorf("interval of 1..%d: got %v to %v with %v, want %v to %v with %v", tt.n, low, high, cov, tt.low, tt.high, tt.cov)
		}
	}
}

func TestRatiosPairByRound(t *testing.T) {
	got := ratios(map[int]float64{0: 1, 1: 4, 2: 9, 5: 1}, map[int]float64{1: 2, 0: 2, 2: 0, 4: 7})
	if d := cmp.Diff([]float64{0.5, 2}, got); d != "" {
		t.Errorf("ratios (-want +got):\n%s", d)
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 150 50 30 20 20 0 3 0 12345 1000000 256 18446744073709551615 1 1\n"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	want := process{pid: 42, parent: 7, state: 'S', cpu: 2500 * time.Millisecond, rss: 256 * int64(os.Getpagesize())}
	if got != want {
		t.Errorf("parseStat: got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 2", strings.Replace(line, "150", "x", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q): got no error", bad)
		}
	}
}

func TestLastStep(t *testing.T) {
	const log = "#1 [internal] load\n#1 DONE 0.0s\n#4 [2/3] RUN npm ci\n#4 CACHED\n#5 [3/3] RUN make\n#5 0.1 RUN\n#5 DONE 12.4s\n#6 exporting\n#6 DONE 3.0s\n"
	got, err := lastStep(log)
	if err != nil || got != 12400*time.Millisecond {
		t.Errorf("lastStep: got %v, %v, want 12.4s", got, err)
	}
	for name, bad := range map[string]string{
		"cached": strings.Replace(log, "#5 DONE 12.4s", "#5 CACHED", 1), "no RUN": "#1 DONE 0.1s\n", "empty": "",
	} {
		if got, err := lastStep(bad); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestJournalGoesOn(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "fbuild 1", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []record{
		{Cell: "c", Side: "a", Subject: "fbuild 1", Wall: 1},
		{Cell: "c", Side: "b", Subject: "fbuild 1", Round: -1, Skip: "not there"},
		{Cell: "c", Side: "a", Subject: "fbuild 1", Wall: 2},
	} {
		if err := j.add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, runsFile)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(data, `{"cell":"killed whi`...), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err = openJournal(dir, "fbuild 1", false)
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	if !j.has("c", "a", 0) || j.has("c", "a", 1) || j.has("c", "b", -1) {
		t.Errorf("has: got %v %v %v, want true false false", j.has("c", "a", 0), j.has("c", "a", 1), j.has("c", "b", -1))
	}
	if err := j.add(record{Cell: "c", Side: "a", Round: 1, Subject: "fbuild 1"}); err != nil {
		t.Fatal(err)
	}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	runs, err := readRuns(dir)
	if err != nil || len(runs) != 3 || runs[0].Wall != 2 {
		t.Errorf("runs: got %+v, %v, want three, the first as measured last", runs, err)
	}
	for name, open := range map[string]func() (*journal, error){
		"another fbuild": func() (*journal, error) { return openJournal(dir, "fbuild 2", false) },
		"another size":   func() (*journal, error) { return openJournal(dir, "fbuild 1", true) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestComplete(t *testing.T) {
	g := group{name: "run-apt", rounds: 2, phases: []string{""}}
	run := func(side string, round int) record { return record{Cell: "run-apt", Side: side, Round: round} }
	all := []record{run("fbuild", 0), run("fbuild", 1), run("overlay", 0), run("overlay", 1), run(walkSide, 0)}
	for _, tt := range []struct {
		name string
		runs []record
		want bool
	}{
		{"nothing", nil, false},
		{"all", all, true},
		{"one missing", all[1:], false},
		{"a side was skipped", append([]record{{Cell: "run-apt", Side: "docker", Round: -1, Skip: "no"}}, all...), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &env{journal: &journal{runs: map[runKey]record{}}}
			for _, r := range tt.runs {
				e.journal.runs[runKey{r.Cell, r.Side, r.Round}] = r
			}
			if got := e.complete(g); got != tt.want {
				t.Errorf("complete: got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReport(t *testing.T) {
	h := host{Kernel: "6.1", CPU: "a CPU", Processors: 2, MemoryMiB: 1024, System: "Debian", Disk: "ext4 on vda", Versions: map[string]string{"runc": "1.1", "fbuild": "fbuild 1"}}
	var runs []record
	for round := range 6 {
		f, d := 1+0.1*float64(round), 2.0
		runs = append(runs,
			record{Cell: "small/cold", Side: "fbuild", Round: round, Wall: f, CPU: f, RSS: 50 << 20, Time: "2"},
			record{Cell: "small/cold", Side: "docker", Round: round, Wall: d, CPU: 3, RSS: 200 << 20, Noisy: round == 3, Time: "2"})
	}
	runs = append(runs,
		record{Cell: "small", Side: "docker", Round: -1, Skip: "was not there at first", Time: "1"},
		record{Cell: "small", Side: "buildah", Round: -1, Skip: "not installed\nmore", Time: "1"},
		record{Cell: "mem-pull", Side: "fbuild", Wall: 0.0123, RSS: 99 << 20})
	got := renderReport(h, runs)
	want := `Debian, 2 processors (a CPU), 1024 MiB of memory, Linux 6.1, ext4 on vda.

Versions: fbuild: fbuild 1; runc: 1.1.

| cell | side | runs | wall s: median (lowest to highest) | CPU s | peak MiB | fbuild / side [95 % interval] |
|---|---|--:|--:|--:|--:|--:|
| small context, cold | fbuild | 6 | 1.25 (1.00 to 1.50) | 1.25 | 50 |  |
|  | docker | 6 (1 noisy) | 2.00 (2.00 to 2.00) | 3.00 | 200 | 0.62 [0.50, 0.75] |
| pull of a layer of 1 GiB | fbuild | 1 | 0.012 (0.012 to 0.012) | 0.000 | 99 |  |

Not measured, or not to the end:

- small of buildah: not installed
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
}

func TestReportIntoDocument(t *testing.T) {
	dir := t.TempDir()
	doc := filepath.Join(dir, "figures.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(doc, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := (host{Kernel: "6.1", Versions: map[string]string{}}).write(dir); err != nil {
		t.Fatal(err)
	}
	write("# Method\n" + beginMark + "\nold\n" + endMark + "\nafter\n")
	for range 2 { // the second time changes nothing
		if err := writeReport(dir, doc, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	h, err := readHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Method\n" + beginMark + "\n\n" + renderReport(h, nil) + "\n" + endMark + "\nafter\n"
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("document (-want +got):\n%s", d)
	}
	write("no marks")
	if err := writeReport(dir, doc, nil); err == nil {
		t.Error("document without marks: got no error")
	}
}

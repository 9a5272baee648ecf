package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// yardRuns are three rounds in which fbuild wins the cold build, loses the push to
// buildah, and one side is missing.
func yardRuns() []record {
	var out []record
	add := func(cell, side string, round int, wall float64) {
		out = append(out, record{Cell: cell, Side: side, Round: round, Wall: wall, CPU: wall, RSS: 64 << 20, Time: "2026"})
	}
	for round := range 3 {
		add("files/cold", "fbuild", round, 1)
		add("files/cold", kitSide, round, 2)
		add("files/cold", "buildah-rootless", round, 4)
		add("files/push", "fbuild", round, 2)
		add("files/push", kitSide, round, 3)
		add("files/push", "buildah-rootless", round, 1)
	}
	add("files/cold", "kaniko", 0, 300)
	out[len(out)-1].Capped = true
	for i, x := range []float64{0.125, 0.5, 1, 2} {
		add("growth-base/"+[]string{"0.125", "0.5", "1", "2"}[i], "fbuild", 0, 1+x)
	}
	return append(out, record{Cell: "files", Side: "dind", Round: -1, Skip: "dockerd is not installed\nmore"})
}

func TestYardstick(t *testing.T) {
	r := newResults(host{System: "Debian", Kernel: "6.1", Versions: map[string]string{}}, yardRuns())
	text := r.render("plots", map[string]bool{"summary": true, "growth-base": true})
	for _, want := range []string{
		"| 30,000 small files | 3.00 | 5.00 | 5.00 |  | buildah-rootless | 0.60 [0.60, 0.60] (75 %) |",
		"- 30,000 small files, push: 2.00 s against 1.00 s of buildah-rootless, 2.00 [2.00, 2.00] (75 %) times.",
		"1 of 2 cells",
		"| cold | 1.00 (1.00-1.00) | 2.00 (2.00-2.00) | 4.00 (4.00-4.00) | > 300 | 0.50 [0.50, 0.50] (75 %) buildkit-rootless |",
		"| one RUN on a base of x GiB | fbuild | 0.125 - 2 GiB | 1.12 - 3.00 | 1 + 1 per GiB |",
		"![one RUN on a base of x GiB](plots/growth-base.svg)",
		"- files of dind: dockerd is not installed\n",
		"- growth: growth-base, growth-layers, ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("report: it lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Plots are drawn of what there is, and the document keeps what is around the marks.
func TestYardstickIntoDocument(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range yardRuns() {
		if err := j.add(r); err != nil {
			t.Fatal(err)
		}
	}
	doc := filepath.Join(dir, "benchmarks.md")
	err = os.WriteFile(doc, []byte("# Before\n"+yardBegin+"\nold\n"+yardEnd+"\nafter\n"), 0o600)
	if err == nil {
		err = (host{Versions: map[string]string{}}).write(dir)
	}
	if err == nil {
		err = writeYardstick(dir, doc, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.HasPrefix(s, "# Before\n") || !strings.HasSuffix(s, "\nafter\n") || strings.Contains(s, "\nold\n") {
		t.Errorf("document: got %q", s)
	}
	for _, name := range []string{"summary.svg", "growth-base.svg"} {
		svg, err := os.ReadFile(filepath.Join(dir, "benchmarks", name))
		if err != nil || !strings.Contains(string(svg), "<svg") || !strings.Contains(string(svg), "fbuild") {
			t.Errorf("%s: got %d bytes, %v, want a drawing with fbuild in it", name, len(svg), err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "benchmarks", "growth-files.svg")); err == nil {
		t.Error("growth-files.svg was drawn, of nothing")
	}
}

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// fakeGroup is a group whose sides note what is done with them.
func fakeGroup(log *[]string, fail func(side, phase string, round int) error) group {
	g := group{name: "g", rounds: 2, phases: []string{"cold", "push"}, sides: []string{"fbuild", "peer"}}
	g.open = func(context.Context, *env, group) (*bench, error) {
		b := &bench{}
		for _, name := range g.sides {
			b.sides = append(b.sides, side{
				name:  name,
				reset: func(context.Context, int) error { *log = append(*log, "reset "+name); return nil },
				before: func(_ context.Context, phase string, _ int) error {
					if phase == "push" && name == "peer" && fail == nil {
						return notYetError{"it cannot"}
					}
					return nil
				},
				run: func(ctx context.Context, _ meter, phase string, round int) (sample, error) {
					*log = append(*log, name+" "+phase)
					if fail != nil {
						if err := fail(name, phase, round); err != nil {
							<-ctx.Done()
							return sample{}, err
						}
					}
					return sample{usage: usage{wall: time.Second}}, nil
				},
			})
		}
		return b, nil
	}
	return g
}

func fakeEnv(t *testing.T, dir string) *env {
	t.Helper()
	j, err := openJournal(dir, "fbuild 1", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.file.Close() })
	return &env{options: options{out: dir}, journal: j, registry: &registryServer{}, host: host{Versions: map[string]string{"fbuild": "fbuild 1"}}}
}

// A phase that a builder does not have is no failure, runs are taken in turns
// whose order changes, and what was measured is not measured again.
func TestMeasureInTurnsAndGoOn(t *testing.T) {
	dir := t.TempDir()
	var log []string
	e := fakeEnv(t, dir)
	failed, err := e.measureGroup(t.Context(), fakeGroup(&log, nil))
	if err != nil || len(failed) > 0 {
		t.Fatalf("measure: got %v, %v", failed, err)
	}
	want := []string{
		"reset fbuild", "reset peer", "fbuild cold", "peer cold", "fbuild push",
		"reset peer", "reset fbuild", "peer cold", "fbuild cold", "fbuild push",
	}
	if d := cmp.Diff(want, log); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
	log = nil
	if _, err := fakeEnv(t, dir).measureGroup(t.Context(), fakeGroup(&log, nil)); err != nil || len(log) > 0 {
		t.Errorf("again: got %v and runs %q, want none", err, log)
	}
}

// A run over its limit is written down as that, and the side is left out from then on.
func TestMeasureEndsAtTheLimit(t *testing.T) {
	dir := t.TempDir()
	var log []string
	g := fakeGroup(&log, func(side, phase string, _ int) error {
		if side == "peer" && phase == "cold" {
			return errors.New("killed")
		}
		return nil
	})
	g.limit = 50 * time.Millisecond
	failed, err := fakeEnv(t, dir).measureGroup(t.Context(), g)
	if err != nil || len(failed) != 1 {
		t.Fatalf("measure: got %v, %v, want one side that failed", failed, err)
	}
	runs, err := readRuns(dir)
	if err != nil {
		t.Fatal(err)
	}
	capped := 0
	for _, r := range runs {
		if r.Side == "peer" && r.Capped {
			capped++
			if r.Wall != g.limit.Seconds() {
				t.Errorf("wall of the capped run: got %v, want %v", r.Wall, g.limit.Seconds())
			}
		}
	}
	if capped != 1 || strings.Count(strings.Join(log, ","), "peer cold") != 1 {
		t.Errorf("capped runs: got %d, want 1; log %q", capped, log)
	}
}

// What does not fit into the time that is left is not begun.
func TestBudget(t *testing.T) {
	var log []string
	e := fakeEnv(t, t.TempDir())
	e.deadline = time.Now().Add(time.Minute)
	long, short := fakeGroup(&log, nil), fakeGroup(&log, nil)
	long.name, short.name = "long", "short"
	items := []item{{group: long, cost: time.Hour}, {group: short, cost: time.Second}}
	if _, err := e.measureItems(t.Context(), items, nil); err != nil {
		t.Fatal(err)
	}
	if !e.journal.has("short/cold", "fbuild", 0) || e.journal.has("long/cold", "fbuild", 0) {
		t.Errorf("runs: got %v, want those of the short group only", e.journal.runs)
	}
}

func TestProfiles(t *testing.T) {
	quick, err := profile("quick", kitSide)
	if err != nil {
		t.Fatal(err)
	}
	var sum time.Duration
	for _, it := range quick {
		sum += it.cost * time.Duration(it.group.rounds)
		if len(it.group.sides) != 3 || it.group.sides[0] != fbuildSide {
			t.Errorf("%s: got sides %q, want fbuild and two peers", it.group.name, it.group.sides)
		}
	}
	if len(quick) != 3 || sum > 5*time.Minute {
		t.Errorf("quick: got %d workloads in %v, want three in five minutes", len(quick), sum)
	}
	full, err := profile("full", kitSide)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range full {
		for _, s := range it.group.sides {
			known := s == nativeSide
			for _, p := range peers {
				known = known || p.name == s
			}
			if !known {
				t.Errorf("%s: side %q is not known", it.group.name, s)
			}
		}
	}
	for _, w := range workloads {
		for _, file := range []string{"Dockerfile", "native"} {
			if _, err := os.Stat(filepath.Join("workloads", w.name, file)); err != nil {
				t.Errorf("%s: %v", w.name, err)
			}
		}
	}
}

func TestEdited(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want string }{
		{"source", "main.ts", "let a\n", "let a\n// bench edit 7\n"},
		{"again", "main.go", "x\n// bench edit 6\n", "x\n// bench edit 7\n"},
		{"no newline at the end", "source", "x", "x\n# bench edit 7\n"},
		{"module", "go.mod", "module m\n", "module m\n// bench edit 7\n"},
		{"manifest", "package.json", `{"name": "n", "description": "old"}`, "{\n  \"description\": \"7\",\n  \"name\": \"n\"\n}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := edited(tt.file, tt.text, "7")
			if err != nil || got != tt.want {
				t.Errorf("edited: got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := edited("package.json", "no JSON", "7"); err == nil {
		t.Error("broken manifest: got no error")
	}
}

func TestParseDiskstats(t *testing.T) {
	const data = " 253       0 vda 1 2 3 4 5 6 2048 8 0 9 10\n 253      16 vdb 1 2 3 4 5 6 x 8 0 9 10\n"
	if got, err := parseDiskstats([]byte(data), "253 0"); err != nil || got != 1<<20 {
		t.Errorf("vda: got %d, %v, want 1 MiB", got, err)
	}
	for _, dev := range []string{"253 16", "253 1"} {
		if _, err := parseDiskstats([]byte(data), dev); err == nil {
			t.Errorf("%s: got no error", dev)
		}
	}
}

// What one side pushed is not there for another, but the blobs of bases are.
func TestPushedBlobsBelongToTheirRepository(t *testing.T) {
	ctx := t.Context()
	r := newRepoBlobs(t.TempDir())
	if err := openDirs(filepath.Join(r.dir, ".."), filepath.Join(r.dir, "..", "bases")); err != nil {
		t.Fatal(err)
	}
	put := func(repo, text string) v1.Hash {
		t.Helper()
		h, _, err := v1.SHA256(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		// The handler names the repository of an upload so.
		if err := r.Put(ctx, repo+"/blobs", h, io.NopCloser(strings.NewReader(text))); err != nil {
			t.Fatal(err)
		}
		return h
	}
	base, mine := put("debian", "base"), put("out/a/0/w", "layer")
	for _, tt := range []struct {
		name, repo string
		blob       v1.Hash
		want       bool
	}{
		{"base for a builder", "out/a/0/w", base, true},
		{"own", "out/a/0/w", mine, true},
		{"of another builder", "out/b/0/w", mine, false},
		{"of another round", "out/a/1/w", mine, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := r.Stat(ctx, tt.repo, tt.blob)
			if got := err == nil && n > 0; got != tt.want {
				t.Errorf("there: got %v (%v), want %v", got, err, tt.want)
			}
		})
	}
	if err := r.forget("out/a/0/w"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stat(ctx, "out/a/0/w", mine); err == nil {
		t.Error("a forgotten blob is there")
	}
}

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// noisyRuns are runs of a cell with a spread of some 3 per cent.
func noisyRuns(seed uint64, cell, side string, n int, seconds float64) []record {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out []record
	for round := range n {
		out = append(out, record{Cell: cell, Side: side, Round: round, Wall: seconds * (1 + 0.03*rng.NormFloat64())})
	}
	return out
}

// A program that is a tenth slower must be caught with the rounds that short cells
// have, and the same program must not be.
func TestCompareRuns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rounds int
		factor float64
		want   string
	}{
		{"a tenth slower", 15, 1.10, "slower"},
		{"a tenth faster", 15, 0.90, "faster"},
		{"the same", 15, 1, "same"},
		{"less than the tolerance", 15, 1.005, "same"},
		{"twice as slow in three runs", 3, 2, "slower"},
		{"two runs say nothing", 2, 2, "too few runs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(20) {
				old := noisyRuns(seed, "steps/cold", "fbuild", tt.rounds, 1)
				now := noisyRuns(seed+1000, "steps/cold", "fbuild", tt.rounds, tt.factor)
				vs := compareRuns(old, now, measures["wall"], 0.02, false)
				if len(vs) != 1 || vs[0].what != tt.want {
					t.Errorf("seed %d: got %+v, want one that is %s", seed, vs, tt.want)
				}
			}
		})
	}
}

func TestCompareLeavesOut(t *testing.T) {
	old := append(noisyRuns(1, "a", "fbuild", 3, 1), noisyRuns(2, "a", "docker", 3, 1)...)
	old = append(old, record{Cell: "b", Side: "fbuild", Round: -1, Skip: "not there"}, record{Cell: "a/end", Side: "fbuild"})
	old = append(old, noisyRuns(3, "only old", "fbuild", 3, 1)...)
	now := append(noisyRuns(4, "a", "fbuild", 3, 1), noisyRuns(5, "a", "docker", 3, 9)...)
	if vs := compareRuns(old, now, measures["wall"], 0.02, false); len(vs) != 1 || vs[0].cell != "a" || vs[0].side != "fbuild" {
		t.Errorf("fbuild alone: got %+v, want cell a of fbuild", vs)
	}
	if vs := compareRuns(old, now, measures["wall"], 0.02, true); len(vs) != 2 {
		t.Errorf("all: got %+v, want two", vs)
	}
}

func TestPrintVerdicts(t *testing.T) {
	var b strings.Builder
	slow := verdict{cell: "c", side: "fbuild", what: "slower", old: 1, new: 2, ratio: 2, low: 1.9, high: 2.1}
	if err := printVerdicts(&b, []verdict{slow}); err == nil || !strings.Contains(b.String(), "SLOWER") {
		t.Errorf("slower: got error %v and %q, want both to say so", err, b.String())
	}
	other := slow
	other.side = "docker"
	same := slow
	same.what = "same"
	if err := printVerdicts(&b, []verdict{other, same}); err != nil {
		t.Errorf("another builder became slower: got %v, want no error", err)
	}
	if err := printVerdicts(&b, nil); err == nil {
		t.Error("nothing in common: got no error")
	}
}

func TestBootstrap(t *testing.T) {
	low, high := bootstrap([]float64{1, 1, 1}, []float64{2, 2, 2})
	if low != 2 || high != 2 {
		t.Errorf("no spread: got %v to %v, want 2 to 2", low, high)
	}
	// About 95 of 100 intervals hold the truth; the draws are the same every time.
	held := 0
	for seed := range uint64(200) {
		old, now := noisyRuns(seed, "c", "s", 15, 1), noisyRuns(seed+500, "c", "s", 15, 1.2)
		walls := func(rs []record) []float64 { return column(rs, func(r record) float64 { return r.Wall }) }
		if low, high := bootstrap(walls(old), walls(now)); low <= 1.2 && 1.2 <= high {
			held++
		}
	}
	if held < 180 || held == 200 {
		t.Errorf("intervals that hold the truth: got %d of 200, want about 190", held)
	}
}

func TestFit(t *testing.T) {
	for _, tt := range []struct {
		name string
		y    func(x float64) float64
		want line
		pow  float64
	}{
		{"constant", func(float64) float64 { return 3 }, line{3, 0}, 0},
		{"proportional", func(x float64) float64 { return 2 * x }, line{0, 2}, 1},
		{"quadratic", func(x float64) float64 { return x * x }, line{-7, 6}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			xs := []float64{1, 2, 3, 4, 5}
			var ys []float64
			for _, x := range xs {
				ys = append(ys, tt.y(x))
			}
			got := fit(xs, ys)
			if fmt.Sprintf("%.6f %.6f", got.a, got.b) != fmt.Sprintf("%.6f %.6f", tt.want.a, tt.want.b) {
				t.Errorf("fit: got %+v, want %+v", got, tt.want)
			}
			if p := power(xs, ys); p < tt.pow-1e-9 || p > tt.pow+1e-9 {
				t.Errorf("power: got %v, want %v", p, tt.pow)
			}
		})
	}
}

// In turns a machine that becomes slower while it is measured does not hide a
// tenth, and is not taken for one.
func TestComparePairs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		factor float64
		want   string
	}{{"a tenth slower", 1.1, "slower"}, {"the same", 1, "same"}} {
		t.Run(tt.name, func(t *testing.T) {
			old, now := noisyRuns(1, "c", oldSide, 15, 1), noisyRuns(2, "c", fbuildSide, 15, tt.factor)
			for i := range old {
				old[i].Wall *= 1 + 0.2*float64(i)
				now[i].Wall *= 1 + 0.2*float64(i)
			}
			vs := comparePairs(append(old, now...), measures["wall"], 0.02)
			if len(vs) != 1 || vs[0].what != tt.want {
				t.Errorf("got %+v, want one that is %s", vs, tt.want)
			}
		})
	}
}

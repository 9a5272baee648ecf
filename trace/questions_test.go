package trace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuestions(t *testing.T) {
	for name, list := range map[string][]Question{
		"none": nil,
		"root": {{Path: "", Kind: Entry}},
		"kinds": {
			{Path: "", Kind: Entry},
			{Path: "", Kind: Names},
			{Path: "etc", Kind: List},
			{Path: "etc/abc", Kind: Entry},
			{Path: "etc/a\xffb", Kind: Content},
			{Path: "etc-", Kind: Xattr},
			{Root: 1, Path: "", Kind: Link},
			{Root: 7, Path: "etc", Kind: Entry},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := EncodeQuestions(list)
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeQuestions(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]Question{}, list...), got); diff != "" {
				t.Errorf("questions (-want +got):\n%s", diff)
			}
			for n := range b {
				if _, err := DecodeQuestions(b[:n]); !errors.Is(err, ErrCorrupt) {
					t.Errorf("first %d of %d bytes: got %v, want ErrCorrupt", n, len(b), err)
				}
			}
		})
	}
	if _, err := EncodeQuestions([]Question{{Path: strings.Repeat("x", maxPath+1), Kind: Entry}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("long path: got %v, want ErrTooLarge", err)
	}
}

// TestQuestionsCorrupt: what EncodeQuestions never writes.
func TestQuestionsCorrupt(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":        {},
		"out of order":   {2, 0, 0, 1, 'b', 1, 0, 0, 1, 'a', 1},
		"twice":          {2, 0, 0, 1, 'a', 1, 0, 1, 0, 2},
		"no kind":        {1, 0, 0, 1, 'a', 0},
		"unknown kind":   {1, 0, 0, 1, 'a', 0x80, 1},
		"shared nothing": {1, 0, 1, 1, 'a', 1},
		"bytes behind":   {1, 0, 0, 1, 'a', 1, 0},
		"long list":      {200, 1, 0},
		"far root":       {1, 0xff, 0xff, 0x7f, 0, 1, 'a', 1},
	} {
		if list, err := DecodeQuestions(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, %v, want ErrCorrupt", name, list, err)
		}
	}
}

// TestQuestionsAreSmall: a hundred thousand questions are no message of megabytes.
func TestQuestionsAreSmall(t *testing.T) {
	b, err := EncodeQuestions(many(100_000))
	if err != nil {
		t.Fatal(err)
	}
	if want := 12 * 100_000 / 2; len(b) > want {
		t.Errorf("size: got %d bytes, want at most %d", len(b), want)
	}
}

// many are n questions, two of each file.
func many(n int) []Question {
	var list []Question
	for i := range n / 2 {
		p := fmt.Sprintf("usr/lib/node_modules/package%04d/lib/file%02d.js", i/20, i%20)
		list = append(list, Question{Path: p, Kind: Entry}, Question{Path: p, Kind: Content})
	}
	return list
}

func FuzzDecodeQuestions(f *testing.F) {
	for _, list := range [][]Question{nil, many(6), {{Root: 3, Path: "a", Kind: Names}}} {
		b, err := EncodeQuestions(list)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := DecodeQuestions(b)
		if err != nil {
			return
		}
		if !slices.IsSortedFunc(list, Question.Compare) {
			t.Fatal("not sorted")
		}
		again, err := EncodeQuestions(list)
		if err != nil {
			t.Fatalf("encode again: %v", err)
		}
		got, err := DecodeQuestions(again)
		if err != nil || !slices.Equal(got, list) {
			t.Fatalf("round trip: got %v, %v, want %v", got, err, list)
		}
	})
}

func BenchmarkQuestions(b *testing.B) {
	list := many(100_000)
	b.ReportAllocs()
	for b.Loop() {
		data, err := EncodeQuestions(list)
		if err == nil {
			_, err = DecodeQuestions(data)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

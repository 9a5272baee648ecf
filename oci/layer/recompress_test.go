package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
)

// Another compression of a layer is the same tar, whoever wrote it.
func TestRecompress(t *testing.T) {
	cs, p := realistic(8)
	foreign := gzipped(t, tarOf(t, dir("d", 0o755), file("d/f", "hello"), link("l", "below")))
	ours, _ := seal(t, cs, p, Options{})
	for name, blob := range map[string][]byte{"foreign": foreign, "ours": ours} {
		want, _, _ := mustRead(t, ours)
		if name == "foreign" {
			want, _, _ = mustRead(t, foreign)
		}
		_, info, _ := mustRead(t, blob)
		for _, codec := range []string{"gzip", "zstd", "uncompressed"} {
			var out bytes.Buffer
			s, err := Recompress(context.Background(), &out, bytes.NewReader(blob), Limits{}, Options{Compression: codec})
			if err != nil {
				t.Fatalf("%s, %s: %v", name, codec, err)
			}
			got, gotInfo, _ := mustRead(t, out.Bytes())
			if s.DiffID != info.DiffID || gotInfo.DiffID != info.DiffID || len(got) != len(want) {
				t.Errorf("%s, %s: got %+v, want the diffID %s", name, codec, s, info.DiffID)
			}
		}
	}
	if _, err := Recompress(context.Background(), io.Discard, bytes.NewReader(ours[:len(ours)/2]), Limits{}, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut short: got %v, want %v", err, ErrCorrupt)
	}
	bomb := gzipped(t, make([]byte, 8<<20))
	if _, err := Recompress(context.Background(), io.Discard, bytes.NewReader(bomb), Limits{MaxSize: 1 << 20}, Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a bomb: got %v, want %v", err, ErrTooLarge)
	}
	boom := errors.New("boom")
	if _, err := Recompress(context.Background(), io.Discard, io.MultiReader(bytes.NewReader(ours[:5000]), errReader{boom}), Limits{}, Options{}); !errors.Is(err, boom) {
		t.Errorf("error of the blob: got %v, want %v", err, boom)
	}
}

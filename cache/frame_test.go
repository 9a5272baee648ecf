package cache

import (
	"strings"
	"testing"

	"github.com/fbuild/fbuild/tree"
)

// A frame is found where it was put last, by another Store as well; a lost or damaged
// index only forgets it (LAWS 30).
func TestFrames(t *testing.T) {
	s := open(t, t.TempDir())
	f := Frame{Blob: tree.Digest("sha256:" + strings.Repeat("ab", 32)), Off: 12, Len: 1 << 40, Size: 3, CRC: 0xfeedbeef, Sum: 1<<63 + 5}
	k := FrameKey{1, 2, 3}
	if _, ok := s.FindFrame(k); ok {
		t.Fatal("found in an empty store")
	}
	g := f
	g.Off = 99
	s.AddFrames(map[FrameKey]Frame{k: g})
	s.AddFrames(map[FrameKey]Frame{k: f, {9}: {Blob: "sha256:short"}})
	if got, ok := s.FindFrame(k); !ok || got != f {
		t.Errorf("got %+v, %v, want %+v", got, ok, f)
	}
	if _, ok := s.FindFrame(FrameKey{9}); ok {
		t.Error("found a frame in a blob without a digest")
	}
	s.DropFrame(k)
	if _, ok := s.FindFrame(k); ok {
		t.Error("found after it was dropped")
	}
	b := encodeFrame(k, f)
	for i := range b {
		bad := append([]byte(nil), b...)
		bad[i] ^= 1
		if got, err := decodeFrame(k, bad); err == nil {
			t.Errorf("byte %d damaged: got %+v", i, got)
		}
	}
	if _, err := decodeFrame(FrameKey{7}, b); err == nil {
		t.Error("the entry of another key was taken")
	}
	if _, err := decodeFrame(k, b[:5]); err == nil {
		t.Error("half an entry was taken")
	}
}

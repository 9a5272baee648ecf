package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/flate"

	"github.com/fbuild/fbuild/tree"
)

// shelf keeps the frames of sealed layers in memory.
type shelf struct {
	mu    sync.Mutex
	at    map[FrameKey]Frame
	blobs map[FrameKey][]byte
	asked int
	spoil func(f *Frame, b []byte) []byte
}

func newShelf() *shelf { return &shelf{at: map[FrameKey]Frame{}, blobs: map[FrameKey][]byte{}} }

func (s *shelf) add(blob []byte, sealed Sealed) {
	for _, f := range sealed.Frames {
		s.at[f.Key], s.blobs[f.Key] = f, blob[f.Off:f.Off+f.Len]
	}
}

func (s *shelf) Frame(k FrameKey, buf []byte) (Frame, []byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	f, ok := s.at[k]
	if !ok {
		return Frame{}, nil, false
	}
	out := slices.Concat(buf, s.blobs[k])
	if s.spoil != nil {
		out = s.spoil(&f, out)
	}
	return f, out, true
}

// realistic makes files of all sizes about the limits, with and without a digest,
// some of them twice, one sparse.
func realistic(seed uint64) (tree.Changes, packs) {
	r := rand.New(rand.NewPCG(seed, 3))
	words := strings.Fields(strings.Repeat("the quick brown fox jumps over a lazy dog and runs ", 3))
	pack := make([]byte, 0, 16<<20)
	var cs tree.Changes
	file := func(path string, size int) *tree.Node {
		off := len(pack)
		for len(pack) < off+size {
			pack = append(pack, words[r.IntN(len(words))]...)
			pack = append(pack, byte(r.IntN(256)))
		}
		n := &tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: when}, Size: int64(size), Extents: []tree.Extent{{Pack: spoolPack, Off: int64(off), Len: int64(size)}}}
		if r.IntN(2) == 0 && size > 0 {
			n.Digest = sum(pack[off : off+size])
		}
		cs = append(cs, tree.Change{Path: path, Node: n})
		return n
	}
	for i := range 100 {
		file(fmt.Sprintf("a/small%d", i), r.IntN(9000))
	}
	for i, size := range []int{64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, 1<<20 + 1, 5<<19 + 77} {
		n := file(fmt.Sprintf("b/large%d", i), size)
		if i%2 == 0 {
			continue
		}
		cs = append(cs, tree.Change{Path: fmt.Sprintf("c/again%d", i), Node: &tree.Node{Kind: tree.File, Mode: 0o755, Size: n.Size, Extents: n.Extents, Digest: n.Digest}})
	}
	all := int64(len(pack)) // large enough for a frame of zstd
	cs = append(cs, tree.Change{Path: "e/all", Node: &tree.Node{Kind: tree.File, Mode: 0o600, Size: all, Extents: []tree.Extent{{Pack: spoolPack, Len: all}}}})
	sparse := file("d/sparse", 300<<10)
	sparse.Size, sparse.Digest = sparse.Size+8<<20, ""
	sparse.Extents = append([]tree.Extent{{Len: 8 << 20}}, sparse.Extents...)
	cs.Sort()
	return cs, packs{spoolPack: pack}
}

// LAWS 27: what is sealed does not depend on the frames that are there, on the
// cores, or on what else is sealed meanwhile.
func TestFramesDoNotShow(t *testing.T) {
	for _, codec := range []string{"gzip", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			cs, p := realistic(1)
			o := Options{Compression: codec}
			want, first := seal(t, cs, p, o)
			if first.Stats.Reused > 0 || first.Stats.Frames < 3 {
				t.Errorf("first: got %+v, want some frames, none of them reused", first.Stats)
			}
			full := newShelf()
			full.add(want, first)
			o.Frames, o.Workers = full, NewWorkers()
			var wg sync.WaitGroup
			for range 3 { // at once, on the same workers
				wg.Go(func() {
					var blob bytes.Buffer
					s, err := Seal(context.Background(), &blob, cs, slowContents{p}, o)
					if err != nil || !bytes.Equal(blob.Bytes(), want) {
						t.Errorf("with a full store: got %s, %v, want %s", s.Digest, err, first.Digest)
					}
					if s.Stats.Reused < len(first.Frames) {
						t.Errorf("with a full store: got %d of %d frames reused", s.Stats.Reused, len(first.Frames))
					}
				})
			}
			wg.Wait()
			some := newShelf() // of another layer that shares some files
			other, _ := realistic(1)
			blob, sealed := seal(t, other[len(other)/2:], p, Options{Compression: codec})
			some.add(blob, sealed)
			for _, procs := range []int{1, 2, 7} {
				old := runtime.GOMAXPROCS(procs)
				got, s := seal(t, cs, p, Options{Compression: codec, Frames: some})
				runtime.GOMAXPROCS(old)
				if !bytes.Equal(got, want) || s.Stats.Reused == 0 {
					t.Errorf("with another layer's frames and %d processors: got %s, %d reused, want %s", procs, s.Digest, s.Stats.Reused, first.Digest)
				}
			}
		})
	}
}

// The frames of a level, a codec or a kind of run are no other's.
func TestFrameKeysDiffer(t *testing.T) {
	cs, p := realistic(2)
	full := newShelf()
	for _, o := range []Options{{}, {Level: 1}, {Level: LevelNone}, {Compression: "zstd"}, {Compression: "zstd", Level: 9}} {
		o.Frames = full
		blob, s := seal(t, cs, p, o)
		if d := s.Stats.Reused; d > 0 {
			t.Errorf("%+v: got %d frames of another codec or level", o, d)
		}
		full.add(blob, s)
	}
	c, err := newGzipCodec(0)
	if err != nil {
		t.Fatal(err)
	}
	if c.frameKey(runFile, "d", 0) == c.frameKey(runGroup, "d", 0) {
		t.Error("a group and a file of the same digest have one key")
	}
}

// LAWS 30: a frame that is not what it was never enters a layer.
func TestSpoiledFrames(t *testing.T) {
	cs, p := realistic(3)
	want, first := seal(t, cs, p, Options{})
	for name, spoil := range map[string]func(f *Frame, b []byte) []byte{
		"a bit":       func(_ *Frame, b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut short":   func(_ *Frame, b []byte) []byte { return b[:len(b)-1] },
		"longer":      func(_ *Frame, b []byte) []byte { return append(b, 0) },
		"length":      func(f *Frame, b []byte) []byte { f.Len++; return b },
		"size":        func(f *Frame, b []byte) []byte { f.Size++; return b },
		"other frame": func(_ *Frame, b []byte) []byte { return append(b[:0], 0, 0, 0, 0xff, 0xff) },
	} {
		s := newShelf()
		s.add(want, first)
		s.spoil = spoil
		got, sealed := seal(t, cs, p, Options{Frames: s})
		if !bytes.Equal(got, want) || sealed.Stats.Reused > 0 {
			t.Errorf("%s: got %s with %d frames reused, want %s and none", name, sealed.Digest, sealed.Stats.Reused, first.Digest)
		}
	}
	// A sound frame under the key of another: only the whole tells.
	s := newShelf()
	s.add(want, first)
	for k, f := range s.at {
		b := bytes.Repeat([]byte{'x'}, int(f.Size))
		c, err := newGzipCodec(0)
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.encoder()
		if err != nil {
			t.Fatal(err)
		}
		out, err := e.frame(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		s.blobs[k], s.at[k] = out, Frame{Key: k, Len: int64(len(out)), Size: f.Size, CRC: crc32.ChecksumIEEE(b), Sum: frameSum(out)}
		break
	}
	if _, err := Seal(context.Background(), io.Discard, cs, p, Options{Frames: s}); !errors.Is(err, ErrFrames) {
		t.Errorf("a frame of other contents: got %v, want %v", err, ErrFrames)
	}
}

// Contents that change between the two readings are noticed.
func TestContentsThatChange(t *testing.T) {
	cs, p := realistic(4)
	if _, err := Seal(context.Background(), io.Discard, cs, &fickle{packs: p}, Options{}); !errors.Is(err, ErrFrames) {
		t.Errorf("Seal: got %v, want %v", err, ErrFrames)
	}
}

// fickle gives other bytes to whoever opens a part of a file.
type fickle struct{ packs }

func (f *fickle) Open(n *tree.Node) (io.ReadCloser, error) {
	if n.Size == 1<<20 && n.Extents[0].Len == 1<<20 && n.Digest == "" && n.Mode == 0o644 {
		return io.NopCloser(bytes.NewReader(make([]byte, n.Size))), nil
	}
	return f.packs.Open(n)
}

// A file that grows in the middle of many small ones changes few groups.
func TestGroupsMeetAgain(t *testing.T) {
	p := packs{spoolPack: compressible(1 << 20)}
	files := func(changed int) tree.Changes {
		var cs tree.Changes
		for i := range 4000 {
			n := &tree.Node{Kind: tree.File, Mode: 0o644, Size: 3000, Extents: []tree.Extent{{Pack: spoolPack, Off: int64(i * 7), Len: 3000}}}
			if i == changed {
				n.Size, n.Extents = 1000, []tree.Extent{{Pack: spoolPack, Len: 1000}}
			}
			cs = append(cs, tree.Change{Path: fmt.Sprintf("dir/file%04d", i), Node: n})
		}
		return cs
	}
	blob, first := seal(t, files(-1), p, Options{})
	s := newShelf()
	s.add(blob, first)
	_, again := seal(t, files(2000), p, Options{Frames: s})
	if made := again.Stats.Frames - again.Stats.Reused; made > 4 || again.Stats.Frames < 10 {
		t.Errorf("one file of 4000 changed: got %d of %d frames made, want at most 4 of some dozens", made, again.Stats.Frames)
	}
}

// An encoder that has made other frames makes the same ones as a new one.
func TestEncodersForget(t *testing.T) {
	for _, o := range []Options{{}, {Level: 1}, {Level: 3}, {Level: 5}, {Level: 7}, {Level: 9}, {Level: LevelNone}, {Compression: "zstd"}} {
		c, _, err := codecOf(o)
		if err != nil {
			t.Fatal(err)
		}
		used, err := c.encoder()
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(5, uint64(o.Level)))
		source := compressible(1 << 20)
		for i := range 12 {
			off := r.IntN(len(source))
			b := source[off : off+r.IntN(len(source)-off)]
			fresh, err := c.encoder()
			if err != nil {
				t.Fatal(err)
			}
			got, err1 := used.frame(nil, b)
			want, err2 := fresh.frame(nil, b)
			if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
				t.Fatalf("%+v: frame %d of %d bytes: got %s, %v, want %s, %v", o, i, len(b), sum(got), err1, sum(want), err2)
			}
		}
	}
}

func TestCRCCombine(t *testing.T) {
	b := compressible(100_000)
	for _, cut := range []int{0, 1, 2, 77, 4096, 65535, 99_999, 100_000} {
		got := crcCombine(crc32.ChecksumIEEE(b[:cut]), crc32.ChecksumIEEE(b[cut:]), int64(len(b)-cut))
		if want := crc32.ChecksumIEEE(b); got != want {
			t.Errorf("cut at %d: got %08x, want %08x", cut, got, want)
		}
	}
}

// The version of the encoder is in every frame key: a new one may compress
// otherwise.
func TestCodecVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "github.com/"+codecVersion+"\n") {
		t.Errorf("codecVersion is %q, which is not what go.mod requires", codecVersion)
	}
}

// The ratio stays within 3 per cent of one plain stream of the same level.
func TestRatio(t *testing.T) {
	cs, p := realistic(6)
	var tar bytes.Buffer
	if err := WriteTar(context.Background(), &tar, cs, p, Options{}); err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	z, err := flate.NewWriter(&plain, gzipLevel)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, &tar); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, s := seal(t, cs, p, Options{})
	if limit := int64(plain.Len()) * 103 / 100; s.Size > limit {
		t.Errorf("size: got %d, one plain stream has %d", s.Size, plain.Len())
	}
}

package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/iotest"

	kflate "github.com/klauspost/compress/flate"
)

// ours decompresses all of src; left is what stands behind the stream.
func ours(src io.Reader) (out, left []byte, err error) {
	b := bufio.NewReaderSize(src, MinBuffer)
	r := NewReader(b)
	for {
		p, err := r.Next()
		out = append(out, p...)
		if errors.Is(err, io.EOF) {
			left, err = io.ReadAll(b)
			return out, left, err
		}
		if err != nil {
			return out, nil, err
		}
	}
}

// compare holds ours beside compress/flate.
func compare(t *testing.T, stream []byte) {
	t.Helper()
	src := bytes.NewReader(stream)
	want, wantErr := io.ReadAll(flate.NewReader(src))
	got, left, err := ours(bytes.NewReader(stream))
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("error: got %v, want %v", err, wantErr)
	}
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("error: got %v", err)
		}
		// What comes before the error is the same but for a few symbols: ours drops some at the
		// end of a stream that is cut, flate all that are shorter than the end of a block.
		if n := min(len(want), len(got)); !bytes.Equal(got[:n], want[:n]) || max(len(want), len(got))-n > 4096 {
			t.Fatalf("before the error: got %d bytes, want %d, or others", len(got), len(want))
		}
		return
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, want %d, or others", len(got), len(want))
	}
	if len(left) != src.Len() {
		t.Fatalf("%d bytes are left, want %d", len(left), src.Len())
	}
}

// contents are made of runs of several kinds.
func contents(rng *rand.Rand, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		switch k := 1 + rng.IntN(3000); rng.IntN(6) {
		case 0:
			for range k {
				out = append(out, byte(rng.Uint32()))
			}
		case 1:
			out = append(out, bytes.Repeat([]byte{byte(rng.Uint32())}, k)...)
		case 2:
			out = append(out, bytes.Repeat([]byte(fmt.Sprint(rng.Uint32())), 1+k/10)...)
		case 3:
			for range k { // few symbols, so that codes are short
				out = append(out, "ab"[rng.IntN(2)])
			}
		case 4:
			for range k { // many, far from equally frequent, so that some codes are long
				v := rng.Uint32() | 1<<16
				for i := byte(0); ; i++ {
					if v>>i&1 == 1 {
						out = append(out, i*7+byte(v>>28))
						break
					}
				}
			}
		default:
			if len(out) > 0 {
				at := rng.IntN(len(out))
				out = append(out, out[at:min(len(out), at+k)]...)
			}
		}
	}
	return out[:n]
}

func deflate(t testing.TB, data []byte, level, flush int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := len(data)
		if flush > 0 {
			n = min(n, flush)
		}
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		if data = data[n:]; flush > 0 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 2, 300, 70_000, 170_000} {
		data := contents(rng, size)
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6} {
			for _, flush := range []int{0, 1 + size/7} {
				stream := append(deflate(t, data, level, flush), "and what follows"...)
				for name, src := range map[string]io.Reader{
					"whole": bytes.NewReader(stream), "halves": iotest.HalfReader(bytes.NewReader(stream)), "end with data": iotest.DataErrReader(bytes.NewReader(stream)),
				} {
					got, left, err := ours(src)
					if err != nil || !bytes.Equal(got, data) || string(left) != "and what follows" {
						t.Fatalf("%d bytes, level %d, flushed %d, %s: got %d bytes, %q left, %v", size, level, flush, name, len(got), left, err)
					}
				}
			}
		}
	}
}

// TestDamage: what is cut short, changed or made up is told from what is whole as
// compress/flate tells it.
func TestDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		stream := deflate(t, contents(rng, 1+rng.IntN(5000)), []int{flate.HuffmanOnly, 0, 1, 6, 9}[rng.IntN(5)], 0)
		compare(t, stream)
		for range 30 {
			bad := bytes.Clone(stream)
			for range 1 + rng.IntN(3) {
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			}
			compare(t, bad)
			compare(t, stream[:rng.IntN(len(stream)+1)])
		}
	}
	for range 1000 {
		made := make([]byte, rng.IntN(200))
		for i := range made {
			made[i] = byte(rng.Uint32())
		}
		if len(made) > 0 && rng.IntN(2) == 0 {
			made[0] = made[0]&^7 | 4 // a block with codes of its own
		}
		compare(t, made)
	}
}

func TestSourceFails(t *testing.T) {
	fault := errors.New("the cable")
	data := deflate(t, contents(rand.New(rand.NewPCG(5, 6)), 50_000), 6, 0)
	_, _, err := ours(io.MultiReader(bytes.NewReader(data[:len(data)/2]), iotest.ErrReader(fault)))
	if !errors.Is(err, fault) {
		t.Errorf("got %v, want %v", err, fault)
	}
}

func TestReset(t *testing.T) {
	r := NewReader(bufio.NewReader(bytes.NewReader([]byte{0xff})))
	if _, err := r.Next(); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v, want ErrCorrupt", err)
	}
	r.Reset(bufio.NewReader(bytes.NewReader(deflate(t, []byte("again"), 6, 0))))
	if got, err := r.Next(); err != nil || string(got) != "again" {
		t.Errorf("got %q, %v", got, err)
	}
	// A match that leads to before the second stream is not one of the first.
	r.Reset(bufio.NewReader(bytes.NewReader([]byte{0x4b, 0x04, 0x12, 0x00})))
	if got, err := r.Next(); err != nil || string(got) != "a" {
		t.Errorf("before the match: got %q, %v", got, err)
	}
	if got, err := r.Next(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %q, %v, want ErrCorrupt", got, err)
	}
}

func FuzzInflate(f *testing.F) {
	for _, level := range []int{flate.HuffmanOnly, 0, 1, 9} {
		f.Add(deflate(f, contents(rand.New(rand.NewPCG(7, uint64(level+5))), 3000), level, 0))
	}
	f.Fuzz(func(t *testing.T, stream []byte) { compare(t, stream) })
}

// BenchmarkInflate decompresses the file INFLATE, raw, or made contents.
func BenchmarkInflate(b *testing.B) {
	data := contents(rand.New(rand.NewPCG(8, 9)), 8<<20)
	if name := os.Getenv("INFLATE"); name != "" {
		var err error
		if data, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	stream := deflate(b, data, 6, 0)
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			r := NewReader(bufio.NewReaderSize(bytes.NewReader(stream), 64<<10))
			for {
				if _, err := r.Next(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	for name, open := range map[string]func(io.Reader) io.ReadCloser{"klauspost": kflate.NewReader, "std": flate.NewReader} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := io.Copy(io.Discard, open(bufio.NewReaderSize(bytes.NewReader(stream), 64<<10))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

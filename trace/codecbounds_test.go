package trace_test

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/fbuild/fbuild/trace"
)

// LAWS 10: a trace that lies about its lengths costs no more memory than a multiple of
// its size.
func TestDecodeTakesNoMoreThanItSays(t *testing.T) {
	const size = 16 << 20
	lying := func(head ...uint64) []byte {
		b := append([]byte("fbtrace1\n"), 0)
		for _, v := range head {
			b = binary.AppendUvarint(b, v)
		}
		return append(b, make([]byte, size)...)
	}
	for name, data := range map[string][]byte{"answers": lying(size), "paths": lying(0, size)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := trace.Decode(data); err == nil {
			t.Errorf("%s: decoded", name)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 12*size {
			t.Errorf("%s: %d MiB for a trace of %d", name, got>>20, size>>20)
		}
	}
}

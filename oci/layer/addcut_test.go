package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// ADD takes a file that is no archive as it is. An archive that is cut short or damaged
// is one all the same, and fails.
func TestExtractCutArchive(t *testing.T) {
	body := make([]byte, 20_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(body) // never fails
	for name, text := range map[string][]byte{"random": body, "text": bytes.Repeat([]byte("text "), 4000)} {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		err := w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: int64(len(text))})
		if err == nil {
			_, err = w.Write(text)
		}
		if err := errors.Join(err, w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		cut := b.Bytes()[:b.Len()-30]
		_, _, err = Extract(t.Context(), bytes.NewReader(cut), "tar-00000000000000000000000000000000", io.Discard, Limits{})
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s, cut short: got %v, want %v", name, err, ErrCorrupt)
		}
	}
}

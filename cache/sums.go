package cache

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sumsName is the file in the index that says what Badger's files were when it
// was closed in order: a line "CRC-32C SIZE NAME" for each, then the CRC of the
// lines. It goes when the index is opened, so an index without it was not closed
// and is thrown away. Badger has to be kept from damaged tables: it panics over
// them on goroutines of its own (seen with 4.9.6, nil dereference in OpenTable).
const sumsName = "sums"

var errNotClosed = errors.New("index was not closed in order")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileSum is the state of one file of the index.
type fileSum struct {
	crc  uint32
	size int64
}

// takeSums checks every file of the index in dir against its sums and removes
// these. An empty or missing directory is a new index, with nothing to check.
func takeSums(dir string) (map[string]fileSum, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil {
		return nil, errNotClosed
	}
	want, err := parseSums(string(data))
	if err != nil {
		return nil, err
	}
	if len(want) != len(entries)-1 {
		return nil, errNotClosed
	}
	for name, sum := range want {
		got, err := sumFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if got != sum {
			return nil, fmt.Errorf("%w: file %s of the index", errCorrupt, name)
		}
	}
	return want, os.Remove(filepath.Join(dir, sumsName))
}

// giveSums writes the sums of a closed index. Of tables, which never change,
// those in known are not read again.
func giveSums(dir string, known map[string]fileSum) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return err
		}
		sum, ok := known[e.Name()]
		if !ok || sum.size != fi.Size() || filepath.Ext(e.Name()) != ".sst" {
			if sum, err = sumFile(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%08x %d %s\n", sum.crc, sum.size, e.Name())
	}
	fmt.Fprintf(&b, "%08x\n", crc32.Checksum([]byte(b.String()), castagnoli))
	return os.WriteFile(filepath.Join(dir, sumsName), []byte(b.String()), 0o600)
}

func parseSums(text string) (map[string]fileSum, error) {
	const last = 9 // the CRC and the newline
	if len(text) < last || text[len(text)-last:] != fmt.Sprintf("%08x\n", crc32.Checksum([]byte(text[:len(text)-last]), castagnoli)) {
		return nil, fmt.Errorf("%w: sums of the index", errCorrupt)
	}
	out := map[string]fileSum{}
	for line := range strings.Lines(text[:len(text)-last]) {
		var sum fileSum
		var name string
		if _, err := fmt.Sscanf(line, "%x %d %s\n", &sum.crc, &sum.size, &name); err != nil {
			return nil, fmt.Errorf("%w: sums of the index", errCorrupt)
		}
		out[name] = sum
	}
	return out, nil
}

func sumFile(name string) (fileSum, error) {
	f, err := os.Open(name)
	if err != nil {
		return fileSum{}, err
	}
	defer func() { _ = f.Close() }() // only read
	h := crc32.New(castagnoli)
	size, err := io.Copy(h, f)
	return fileSum{h.Sum32(), size}, err
}

package layer

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// span is one run of data in a sparse file.
type span struct{ off, n int64 }

// sparse finds the data of a sparse file in any of GNU's four forms and sets
// the file's real name and size. With ok false the file is not sparse. For old
// GNU and format 1.0 it reads the rest of the map from the archive.
func (a *archive) sparse(e *entry, b *block) (spans []span, ok bool, err error) {
	if e.typ == typeGNUSparse {
		if !b.magic(magicGNU) {
			return nil, false, errHeader // STAR has the type, in another form
		}
		spans, err = a.oldGNUMap(e, b)
		return spans, true, err
	}
	var inData bool
	switch version := e.pax[paxSparseMajor] + "." + e.pax[paxSparseMinor]; {
	case version == "1.0":
		inData = true
	case version == "0.0", version == "0.1":
	case version == "." && e.pax[paxSparseMap] != "":
	default:
		return nil, false, nil
	}
	if name := e.pax[paxSparseName]; name != "" {
		e.name = name
	}
	physical := e.size
	size := e.pax[paxSparseSize]
	if size == "" {
		size = e.pax[paxSparseReal]
	}
	if size != "" {
		if e.size, err = strconv.ParseInt(size, 10, 64); err != nil {
			return nil, false, errPax
		}
	}
	if inData {
		e.stored = physical
		spans, err = a.map10(e)
		return spans, true, err
	}
	spans, err = map01(e.pax)
	return spans, true, err
}

// oldGNUMap reads four entries from the header and more from the blocks behind
// it, which no size counts.
func (a *archive) oldGNUMap(e *entry, b *block) ([]span, error) {
	size, err := numeric(b[483:495])
	if err != nil {
		return nil, err
	}
	e.size = size
	var spans []span
	table, more := b[386:482], b[482]
	for total := 0; total < maxSpecial; total += blockSize {
		for ; len(table) >= 24 && table[0] != 0; table = table[24:] {
			off, err := numeric(table[:12])
			if err != nil {
				return nil, err
			}
			n, err := numeric(table[12:24])
			if err != nil {
				return nil, err
			}
			spans = append(spans, span{off, n})
		}
		if more == 0 {
			return spans, nil
		}
		var next block
		if err := a.must(next[:]); err != nil {
			return nil, err
		}
		table, more = next[:504], next[504]
	}
	return nil, errTooMany
}

// map10 reads the map at the start of the data: decimal lines in whole blocks.
func (a *archive) map10(e *entry) ([]span, error) {
	var buf bytes.Buffer
	lines := 0
	number := func() (int64, error) {
		for lines == 0 {
			if buf.Len() > maxSpecial {
				return 0, errTooMany
			}
			if e.stored < blockSize {
				return 0, errPax
			}
			var b block
			if err := a.must(b[:]); err != nil {
				return 0, err
			}
			e.stored -= blockSize
			buf.Write(b[:])
			lines = bytes.Count(b[:], []byte{'\n'})
		}
		lines--
		line, err := buf.ReadString('\n')
		if err != nil {
			return 0, errPax
		}
		return decimal(strings.TrimSuffix(line, "\n"))
	}
	count, err := number()
	if err != nil {
		return nil, err
	}
	var spans []span
	for range count {
		if len(spans) >= maxSpecial/4 {
			return nil, errTooMany
		}
		off, err := number()
		if err != nil {
			return nil, err
		}
		n, err := number()
		if err != nil {
			return nil, err
		}
		spans = append(spans, span{off, n})
	}
	return spans, nil
}

// map01 parses the map that stands in the PAX records.
func map01(recs map[string]string) ([]span, error) {
	count, err := decimal(recs[paxSparseBlocks])
	if err != nil {
		return nil, err
	}
	var spans []span
	rest, ok := recs[paxSparseMap], recs[paxSparseMap] != ""
	for ok {
		var s string
		s, rest, ok = strings.Cut(rest, ",")
		off, err := decimal(s)
		if err != nil || !ok {
			return nil, errPax
		}
		s, rest, ok = strings.Cut(rest, ",")
		n, err := decimal(s)
		if err != nil {
			return nil, err
		}
		spans = append(spans, span{off, n})
	}
	if int64(len(spans)) != count {
		return nil, errPax
	}
	return spans, nil
}

func decimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, errPax
	}
	return n, nil
}

// extents lays the spans of a sparse file of size bytes over its data, which
// starts at off of the pack and has stored bytes.
func (a *archive) extents(spans []span, size, off, stored int64) ([]tree.Extent, error) {
	var out []tree.Extent
	var at, last int64 // end of the data so far, and of the span before
	for _, s := range spans {
		if s.off < last || s.n < 0 || s.off > size || s.n > size-s.off || s.n > stored {
			return nil, errors.New("sparse map is out of order or too large")
		}
		last = s.off + s.n
		if s.n == 0 {
			continue
		}
		if s.off > at {
			out = append(out, tree.Extent{Len: s.off - at})
		}
		out = appendData(out, tree.Extent{Pack: a.pack, Off: off, Len: s.n})
		off, stored, at = off+s.n, stored-s.n, s.off+s.n
	}
	if stored != 0 {
		return nil, fmt.Errorf("sparse map leaves %d bytes out", stored)
	}
	if at < size {
		out = append(out, tree.Extent{Len: size - at})
	}
	return out, nil
}

// appendData appends an extent of data, joined to the one before where both are
// one run of the pack.
func appendData(out []tree.Extent, x tree.Extent) []tree.Extent {
	if k := len(out) - 1; k >= 0 && out[k].Pack == x.Pack && out[k].Off+out[k].Len == x.Off {
		out[k].Len += x.Len
		return out
	}
	return append(out, x)
}

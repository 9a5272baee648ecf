package layer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fbuild/fbuild/tree"
)

// ErrTable is returned for a table of contents that is not the one that the layer's
// descriptor promises, or that says what no reader should believe.
var ErrTable = errors.New("unusable table of contents")

// maxTable bounds a table, compressed and not: it is held in memory.
const maxTable = 128 << 20

// Seekable says where the table of contents of a layer is and what it must be. It comes
// from the annotations of a descriptor, whose manifest a digest holds.
type Seekable struct {
	zstd             bool
	digest           tree.Digest // of the table; of zstd:chunked as it is compressed
	at, packed, size int64       // zstd:chunked
}

// FindSeekable reads the annotations of a descriptor. Without a digest of the table there
// is nothing to trust.
func FindSeekable(annotations map[string]string) (Seekable, bool) {
	for _, names := range [][2]string{{chunkedChecksum, chunkedPosition}, {oldChunkedChecksum, oldChunkedPosition}} {
		d := tree.Digest(annotations[names[0]])
		if !isSHA256(d) {
			continue
		}
		if f := strings.Split(annotations[names[1]], ":"); len(f) == 4 && f[3] == "1" {
			s := Seekable{zstd: true, digest: d}
			for i, v := range []*int64{&s.at, &s.packed, &s.size} {
				n, err := strconv.ParseInt(f[i], 10, 64)
				if err != nil || n <= 0 {
					return Seekable{}, false
				}
				*v = n
			}
			return s, true
		}
	}
	if d := tree.Digest(annotations[stargzTOCDigest]); isSHA256(d) {
		return Seekable{digest: d}, true
	}
	return Seekable{}, false
}

func isSHA256(d tree.Digest) bool {
	h, ok := strings.CutPrefix(string(d), "sha256:")
	return ok && len(h) == 2*sha256.Size && strings.Trim(h, "0123456789abcdef") == ""
}

// Name tells layers apart by what their tables say: two of one name have the same files
// with the same bytes.
func (s Seekable) Name() string {
	if s.zstd {
		return "zstd:chunked " + string(s.digest)
	}
	return "estargz " + string(s.digest)
}

// OpenRange opens n bytes at off of a blob; what comes is not trusted.
type OpenRange func(ctx context.Context, off, n int64) (io.ReadCloser, error)

// Table is what a table of contents says: what Read would have made of the layer, with
// the bytes of its files in a lazy pack.
type Table struct {
	Changes tree.Changes
	Chunks  []Chunk  // by their place in the pack
	Inline  []Inline // bytes that came with the table
	Notes   []string
}

// Inline are bytes whose place in the pack is Off.
type Inline struct {
	Off  int64
	Data []byte
}

// TableSource is a seekable layer and its lazy pack.
type TableSource struct {
	Size int64 // of the blob
	Open OpenRange
	// Make makes a lazy pack for so many bytes of data and says where they begin; chunks
	// are aligned to Block there.
	Make  func(data int64) (id tree.PackID, start int64, err error)
	Block int64
}

// ReadTable reads the table of a layer. ErrTable, ErrCorrupt and ErrTooLarge say that
// the layer should be read as a whole; it was then not read at all.
func ReadTable(ctx context.Context, s Seekable, src TableSource, lim Limits) (*Table, error) {
	t, err := readTable(ctx, s, src, lim.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("read table of contents: %w", err)
	}
	return t, nil
}

func readTable(ctx context.Context, s Seekable, src TableSource, lim Limits) (*Table, error) {
	b := &tableBuilder{src: src, lim: lim, table: &Table{}}
	b.ix = newIndex(&b.notes, lim, false)
	var text []byte
	var err error
	if s.zstd {
		text, err = readChunked(ctx, s, src)
		b.end = s.at
	} else {
		text, err = b.readStargz(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	if b.entries, err = parseTable(text, lim.MaxEntries); err != nil {
		return nil, err
	}
	return b.build()
}

// section reads a part of the blob.
func section(ctx context.Context, open OpenRange, off, n int64) ([]byte, error) {
	r, err := open(ctx, off, n)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, errors.Join(err, r.Close())
}

const (
	stargzFooterSize = 51
	// tableGuess is what is asked for of the end of an eStargz layer: with luck all of
	// a small one's table.
	tableGuess = 32 << 10
)

// readStargz returns the JSON text of an eStargz table, and takes over the file of the
// layer that it is.
func (b *tableBuilder) readStargz(ctx context.Context, s Seekable) ([]byte, error) {
	size := b.src.Size
	if size < stargzFooterSize {
		return nil, fmt.Errorf("%w: the blob is too small", ErrTable)
	}
	tail, err := section(ctx, b.src.Open, size-min(size, tableGuess), min(size, tableGuess))
	if err != nil {
		return nil, err
	}
	at, ok := stargzTableAt(tail[len(tail)-stargzFooterSize:])
	if !ok || at < 0 || at >= size-stargzFooterSize || size-at > maxTable {
		return nil, fmt.Errorf("%w: no footer of eStargz", ErrTable)
	}
	b.end = at
	var packed []byte
	if from := at - (size - int64(len(tail))); from >= 0 {
		packed = tail[from : len(tail)-stargzFooterSize]
	} else if packed, err = section(ctx, b.src.Open, at, size-stargzFooterSize-at); err != nil {
		return nil, err
	}
	plain, err := unpackTable(packed, maxTable)
	if err != nil {
		return nil, err
	}
	a := &archive{pack: "table", notes: &b.notes, next: once(plain)}
	e, err := a.nextEntry()
	if err != nil || e.typ != typeFile || tree.Clean(e.name) != "stargz.index.json" || len(e.data) != 1 {
		return nil, errors.Join(fmt.Errorf("%w: no stargz.index.json", ErrTable), err)
	}
	if e.mode != 0 || e.uid != 0 || e.gid != 0 || e.mtime != (tree.Time{}) || len(e.pax) > 0 {
		return nil, fmt.Errorf("%w: stargz.index.json has attributes, which no digest promises", ErrTable)
	}
	text := plain[e.data[0].Off : e.data[0].Off+e.size]
	if sum := sha256.Sum256(text); digestOf(sum[:]) != s.digest {
		return nil, fmt.Errorf("%w: it is %s, the manifest promises %s", ErrTable, digestOf(sum[:]), s.digest)
	}
	b.last, b.text = e, text
	return text, nil
}

// once gives b, then the end.
func once(b []byte) func() ([]byte, error) {
	return func() ([]byte, error) {
		if b == nil {
			return nil, io.EOF
		}
		out := b
		b = nil
		return out, nil
	}
}

// stargzTableAt reads the footer.
func stargzTableAt(b []byte) (int64, bool) {
	const digits = 16
	if len(b) != stargzFooterSize {
		return 0, false
	}
	at, err := strconv.ParseInt(string(b[digits:2*digits]), 16, 64)
	return at, err == nil && bytes.Equal(b, stargzFooter(at))
}

// readChunked returns the JSON text of a table of zstd:chunked.
func readChunked(ctx context.Context, s Seekable, src TableSource) ([]byte, error) {
	if s.packed > maxTable || s.size > maxTable || s.at > src.Size-s.packed {
		return nil, fmt.Errorf("%w: %d bytes at %d of a blob of %d", ErrTable, s.packed, s.at, src.Size)
	}
	packed, err := section(ctx, src.Open, s.at, s.packed)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(packed); digestOf(sum[:]) != s.digest {
		return nil, fmt.Errorf("%w: it is %s, the manifest promises %s", ErrTable, digestOf(sum[:]), s.digest)
	}
	text, err := unpackTable(packed, s.size)
	if err == nil && int64(len(text)) != s.size {
		err = fmt.Errorf("%w: it has %d bytes, not %d", ErrTable, len(text), s.size)
	}
	return text, err
}

// unpackTable decompresses at most limit bytes.
func unpackTable(packed []byte, limit int64) ([]byte, error) {
	var n notes
	d, err := newDecompressor(bufio.NewReader(bytes.NewReader(packed)), &n, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	defer d.close()
	b, err := io.ReadAll(io.LimitReader(d, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrTable, describe(err))
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrTable, limit)
	}
	return b, nil
}

// tableEntry is an entry of a table that is read: also with words that we do not write.
type tableEntry struct {
	tocWords
	InnerOffset int64  `json:"innerOffset"`
	ChunkType   string `json:"chunkType"`
}

// parseTable reads the JSON text.
func parseTable(text []byte, limit int64) ([]tableEntry, error) {
	var out []tableEntry
	bad := func(err error) ([]tableEntry, error) {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return bad(errors.Join(errors.New("no JSON object"), err))
	}
	seen := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return bad(err)
		}
		if key != "entries" {
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return bad(err)
			}
			continue
		}
		if t, err := d.Token(); err != nil || t != json.Delim('[') || seen {
			return bad(errors.Join(errors.New("entries are no list"), err))
		}
		seen = true
		for d.More() {
			if int64(len(out)) >= limit {
				return nil, fmt.Errorf("%w: too many entries", ErrTooLarge)
			}
			out = append(out, tableEntry{})
			if err := d.Decode(&out[len(out)-1]); err != nil {
				return bad(err)
			}
		}
		if _, err := d.Token(); err != nil {
			return bad(err)
		}
	}
	return out, nil
}

// tableBuilder makes changes and chunks of the entries.
type tableBuilder struct {
	src     TableSource
	lim     Limits
	notes   notes
	ix      *index
	entries []tableEntry
	end     int64  // where the chunks of the blob end at the latest
	last    *entry // stargz.index.json
	text    []byte // its bytes
	table   *Table
	edges   []int64 // where chunks begin and end in the blob
	pack    tree.PackID
	at      int64 // the next place in it
}

var tarTypes = map[string]byte{
	"reg": typeFile, "hardlink": typeLink, "symlink": typeSymlink, "char": typeChar,
	"block": typeBlock, "dir": typeDir, "fifo": typeFifo,
}

func (b *tableBuilder) build() (*Table, error) {
	data, err := b.measure()
	if err != nil {
		return nil, err
	}
	start := int64(0)
	if b.pack, start, err = b.src.Make(data); err != nil {
		return nil, err
	}
	b.at = start
	for i := 0; i < len(b.entries); {
		n := 1
		for i+n < len(b.entries) && b.entries[i+n].Type == "chunk" {
			n++
		}
		if err := b.add(b.entries[i : i+n]); err != nil {
			return nil, fmt.Errorf("entry %d, %.200q: %w", i+1, b.entries[i].Name, err)
		}
		i += n
	}
	if e := b.last; e != nil {
		e.data = []tree.Extent{{Pack: b.pack, Off: b.at, Len: e.size}}
		b.table.Inline = append(b.table.Inline, Inline{b.at, b.text})
		b.at += b.blocks(e.size)
		if err := b.ix.add(e); err != nil {
			return nil, err
		}
	}
	if b.at != start+data {
		return nil, fmt.Errorf("%w: its sizes do not add up", ErrTable)
	}
	if b.table.Changes, err = b.ix.changes(); err != nil {
		return nil, err
	}
	b.table.Notes = b.notes.done()
	return b.table, nil
}

// blocks is what n bytes take in the pack.
func (b *tableBuilder) blocks(n int64) int64 {
	return (n + b.src.Block - 1) / b.src.Block * b.src.Block
}

// measure finds out how much data there is, and where chunks lie.
func (b *tableBuilder) measure() (int64, error) {
	var sum, plain int64
	b.edges = append(b.edges, b.end)
	for i := range b.entries {
		e := &b.entries[i]
		if e.Type != "reg" && e.Type != "chunk" {
			continue
		}
		n := e.ChunkSize
		if n == 0 && e.Type == "reg" {
			n = e.Size
		}
		if n == 0 && e.Type == "reg" {
			continue
		}
		if n == 0 {
			n = chunkRest(b.entries, i)
		}
		if e.ChunkType == "zeros" {
			continue
		}
		if e.Size < 0 || n <= 0 || n > 1<<50 || e.Offset < 0 || e.Offset >= b.end || e.EndOffset < 0 || e.EndOffset > b.end {
			return 0, fmt.Errorf("%w: %.200q has %d bytes at %d", ErrTable, e.Name, n, e.Offset)
		}
		e.ChunkSize = n
		b.edges = append(b.edges, e.Offset)
		if e.EndOffset > 0 {
			b.edges = append(b.edges, e.EndOffset)
		}
		sum += b.blocks(n)
		plain += n
		if plain > b.lim.MaxSize && plain/b.lim.MaxRatio > b.src.Size || sum > 1<<55 {
			return 0, fmt.Errorf("%w: more than %d bytes are to come out of %d", ErrTooLarge, plain, b.src.Size)
		}
	}
	slices.Sort(b.edges)
	b.edges = slices.Compact(b.edges)
	if b.last != nil {
		sum += b.blocks(b.last.size)
	}
	return sum, nil
}

// chunkRest is the size of a chunk that does not say it: the rest of the file.
func chunkRest(list []tableEntry, i int) int64 {
	for k := i; k >= 0; k-- {
		if list[k].Type == "reg" {
			return list[k].Size - list[i].ChunkOffset
		}
	}
	return 0
}

// add takes an entry and the chunks of its file.
func (b *tableBuilder) add(list []tableEntry) error {
	t := &list[0]
	typ, ok := tarTypes[t.Type]
	if !ok || typ != typeFile && len(list) > 1 {
		return fmt.Errorf("%w: its type is %.20q", ErrTable, t.Type)
	}
	e := &entry{
		typ: typ, name: t.Name, link: t.LinkName, mode: t.Mode, uid: t.UID, gid: t.GID,
		major: t.DevMajor, minor: t.DevMinor,
	}
	if t.ModTime != "" {
		when, err := time.Parse(time.RFC3339, t.ModTime)
		if err != nil {
			return fmt.Errorf("%w: its time is %.40q", ErrTable, t.ModTime)
		}
		e.mtime = tree.TimeOf(when)
	}
	for name, value := range t.Xattrs {
		if e.pax == nil {
			e.pax = map[string]string{}
		}
		e.pax[paxXattr+name] = string(value)
	}
	if typ == typeFile {
		e.size = t.Size
		if err := b.contents(e, list); err != nil {
			return err
		}
	}
	return b.ix.add(e)
}

// contents gives the chunks of a file their places.
func (b *tableBuilder) contents(e *entry, list []tableEntry) error {
	if e.size == 0 && len(list) == 1 {
		return nil
	}
	var done int64
	holes := false
	for i := range list {
		c := &list[i]
		n := c.ChunkSize
		if n == 0 { // of a hole
			n = e.size - c.ChunkOffset
		}
		if c.Name != list[0].Name || c.ChunkOffset != done || n <= 0 || n > e.size-done {
			return fmt.Errorf("%w: its chunks do not follow each other", ErrTable)
		}
		done += n
		if c.ChunkType == "zeros" {
			e.data, holes = append(e.data, tree.Extent{Len: n}), true
			continue
		}
		if c.ChunkType != "" && c.ChunkType != "data" {
			return fmt.Errorf("%w: a chunk of type %.20q", ErrTable, c.ChunkType)
		}
		d := c.ChunkDigest
		if d == "" && len(list) == 1 {
			d = c.Digest
		}
		if !isSHA256(d) || len(list) == 1 && c.Digest != d || c.InnerOffset < 0 || c.InnerOffset > maxTable {
			return fmt.Errorf("%w: a chunk without a digest that could be trusted", ErrTable)
		}
		k, _ := slices.BinarySearch(b.edges, c.Offset+1)
		b.table.Chunks = append(b.table.Chunks, Chunk{
			Off: b.at, Size: n, Blob: c.Offset, End: b.edges[k], Inner: c.InnerOffset, Digest: d,
		})
		if x := len(e.data) - 1; x >= 0 && e.data[x].Pack != "" && e.data[x].Off+e.data[x].Len == b.at {
			e.data[x].Len += n
		} else {
			e.data = append(e.data, tree.Extent{Pack: b.pack, Off: b.at, Len: n})
		}
		b.at += b.blocks(n)
	}
	if done != e.size {
		return fmt.Errorf("%w: its chunks have %d bytes of %d", ErrTable, done, e.size)
	}
	// The digest of a file in several chunks is nobody's promise until all came: who
	// wants it reads them.
	if len(list) == 1 && !holes {
		e.digest = b.table.Chunks[len(b.table.Chunks)-1].Digest
	}
	return nil
}

package layer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc64"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fbuild/fbuild/tree"
)

// A seekable layer ends with a table of contents that says where the bytes of each
// file lie, so that a reader can fetch them alone. Every file has frames of its
// own there, and holes are written as zeros. Two forms exist: eStargz, gzip with a
// member for each frame, the table a file of the tar; and zstd:chunked, with the
// table and what is needed to make the tar again in frames that readers of zstd
// skip. Their tables have the same words for nearly everything.

// tocWords are what both forms say of an entry, or of one more chunk of the file before it.
type tocWords struct {
	Type     string            `json:"type"`
	Name     string            `json:"name"`
	Size     int64             `json:"size,omitempty"`
	ModTime  string            `json:"modtime,omitempty"`
	LinkName string            `json:"linkName,omitempty"`
	Mode     int64             `json:"mode,omitempty"`
	UID      int64             `json:"uid,omitempty"`
	GID      int64             `json:"gid,omitempty"`
	DevMajor int64             `json:"devMajor,omitempty"`
	DevMinor int64             `json:"devMinor,omitempty"`
	Xattrs   map[string][]byte `json:"xattrs,omitempty"`

	Digest      tree.Digest `json:"digest,omitempty"`
	Offset      int64       `json:"offset,omitempty"`
	EndOffset   int64       `json:"endOffset,omitempty"` // zstd:chunked
	ChunkOffset int64       `json:"chunkOffset,omitempty"`
	ChunkSize   int64       `json:"chunkSize,omitempty"`
	ChunkDigest tree.Digest `json:"chunkDigest,omitempty"`
}

// tocEntry is an entry of a table that is written.
type tocEntry struct {
	tocWords

	run    *run // of a file that is not empty
	chunks []tocChunk
}

// tocChunk is a frame of a file.
type tocChunk struct {
	off, end int64 // in the blob
	size     int64
	digest   tree.Digest // "" where it is the file's
}

// toc gathers the table of a layer: the writer of the tar adds entries, the writer
// of the blob says where their chunks lie.
type toc struct {
	zstd    bool // zstd:chunked, else eStargz
	entries []*tocEntry

	split *splitter // zstd:chunked only

	mu   sync.Mutex
	of   map[*run]*tocEntry
	last *tocEntry
}

func newTOC(zstd bool) *toc {
	t := &toc{zstd: zstd, of: map[*run]*tocEntry{}}
	if zstd {
		t.split = newSplitter()
	}
	return t
}

var tocTypes = map[byte]string{
	typeFile: "reg", typeLink: "hardlink", typeSymlink: "symlink", typeChar: "char",
	typeBlock: "block", typeDir: "dir", typeFifo: "fifo",
}

// emptyDigest is that of no bytes.
const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// add takes the header of an entry.
func (t *toc) add(h *header) error {
	e := &tocEntry{tocWords: tocWords{
		Type: tocTypes[h.typ], Name: h.name, LinkName: h.link, Mode: int64(h.mode), UID: int64(h.uid), GID: int64(h.gid),
		DevMajor: int64(h.major), DevMinor: int64(h.minor), Size: h.size,
	}}
	if !utf8.ValidString(h.name) || !utf8.ValidString(h.link) {
		return fmt.Errorf("its name or target, which is not UTF-8, %w", ErrNotSeekable)
	}
	const lastYear = 253402300799 // 9999
	if h.mtime < -62135596800 || h.mtime > lastYear {
		return fmt.Errorf("its time %d %w", h.mtime, ErrNotSeekable)
	}
	if h.mtime != 0 || t.zstd {
		e.ModTime = time.Unix(h.mtime, 0).UTC().Format(time.RFC3339)
	}
	if h.typ == typeFile && h.size == 0 && !t.zstd {
		e.Digest = emptyDigest
	}
	for _, x := range h.xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string][]byte{}
		}
		e.Xattrs[x.Name] = []byte(x.Value)
	}
	t.entries = append(t.entries, e)
	t.last = e
	if t.split != nil {
		t.split.header(h)
	}
	return nil
}

// file says that the bytes of the last entry become the frames of r.
func (t *toc) file(r *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last.run = r
	t.of[r] = t.last
}

// chunk says where the next frame of a file lies.
func (t *toc) chunk(r *run, c tocChunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.of[r]
	e.chunks = append(e.chunks, c)
}

// list returns the table once all frames are written.
func (t *toc) list() []*tocEntry {
	var out []*tocEntry
	for _, e := range t.entries {
		out = append(out, e)
		if e.run == nil {
			continue
		}
		e.Digest = e.run.digest
		first := e
		for i, c := range e.chunks {
			if i > 0 {
				e = &tocEntry{tocWords: tocWords{Type: "chunk", Name: first.Name, ChunkOffset: first.ChunkSize * int64(i)}}
				out = append(out, e)
			}
			e.Offset = c.off
			if len(first.chunks) > 1 {
				e.ChunkSize, e.ChunkDigest = c.size, c.digest
			} else if !t.zstd {
				e.ChunkDigest = first.Digest
			}
			if t.zstd {
				first.EndOffset = c.end
			}
		}
	}
	return out
}

// splitter writes what tar-split calls the metadata of a tar: the bytes between
// files, and where files come, one JSON object on each line. With it and the files
// a reader makes the tar again, to the last byte.
type splitter struct {
	out      bytes.Buffer
	segment  []byte
	name     string
	size     int64
	open     bool // a header was written whose file is not
	crc      uint64
	position int
}

var crcISO = crc64.MakeTable(crc64.ISO)

func newSplitter() *splitter { return &splitter{} }

// The types of splitEntry.
const (
	splitFile    = 1
	splitSegment = 2
)

type splitEntry struct {
	Type     int    `json:"type"`
	Name     string `json:"name,omitempty"`
	Size     int64  `json:"size,omitempty"`
	Payload  []byte `json:"payload"` // of a file the CRC-64
	Position int    `json:"position"`
}

func (s *splitter) write(e splitEntry) error {
	e.Position = s.position
	s.position++
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write table of contents: %w", err)
	}
	s.out.Write(b)
	s.out.WriteByte('\n')
	return nil
}

// between takes bytes that belong to no file.
func (s *splitter) between(b []byte) error {
	if err := s.endFile(); err != nil {
		return err
	}
	s.segment = append(s.segment, b...)
	return nil
}

// header says that the header of an entry is complete.
func (s *splitter) header(h *header) { s.name, s.size, s.open, s.crc = h.name, h.size, true, 0 }

// content takes bytes of the file of the last header.
func (s *splitter) content(b []byte) { s.crc = crc64.Update(s.crc, crcISO, b) }

func (s *splitter) endFile() error {
	if !s.open {
		return nil
	}
	s.open = false
	if err := s.endSegment(); err != nil {
		return err
	}
	e := splitEntry{Type: splitFile, Name: s.name, Size: s.size}
	if s.size > 0 {
		e.Payload = binary.BigEndian.AppendUint64(nil, s.crc)
	}
	return s.write(e)
}

func (s *splitter) endSegment() error {
	if len(s.segment) == 0 {
		return nil
	}
	err := s.write(splitEntry{Type: splitSegment, Payload: s.segment})
	s.segment = s.segment[:0]
	return err
}

// done returns everything.
func (s *splitter) done() ([]byte, error) {
	if err := s.endFile(); err != nil {
		return nil, err
	}
	if err := s.endSegment(); err != nil {
		return nil, err
	}
	return s.out.Bytes(), nil
}

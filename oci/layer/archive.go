package layer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// entry is one entry of a tar as its headers describe it.
type entry struct {
	at           int64 // offset of its first header
	typ          byte
	name, link   string
	mode         int64
	uid, gid     int64
	size         int64 // of the file, holes included
	stored       int64 // bytes of data in the archive
	mtime        tree.Time
	major, minor int64
	pax          map[string]string
	data         []tree.Extent
	digest       tree.Digest // of the file's bytes; "" where it has none, or too many in holes
}

// headerOnly reports whether no data follows, whatever the size says.
func (e *entry) headerOnly() bool {
	switch e.typ {
	case typeLink, typeSymlink, typeChar, typeBlock, typeDir, typeFifo:
		return true
	}
	return false
}

// archive reads the entries of a tar without its contents. It reads what
// archive/tar reads, and in addition knows where in the stream the bytes of a
// file lie and where its holes are.
type archive struct {
	pack  tree.PackID
	notes *notes
	// next returns the next run of the stream, valid until the next call, and
	// io.EOF at its end.
	next func() ([]byte, error)
	cur  []byte
	off  int64 // bytes taken from the stream
	last string
	sum  contentSum
}

// corrupt wraps err with the place, unless it comes from outside.
func (a *archive) corrupt(at int64, err error) error {
	if errors.Is(err, errOutside) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends early")
	}
	where := "at its start"
	if a.last != "" {
		where = fmt.Sprintf("after %q", a.last)
	}
	return fmt.Errorf("%w: tar header at %d, %s: %w", ErrCorrupt, at, where, err)
}

// errOutside marks errors of next: the end of the call, not a fault of the tar.
var errOutside = errors.New("reading stopped")

// fill makes sure that cur holds something. It returns io.EOF at the end.
func (a *archive) fill() error {
	for len(a.cur) == 0 {
		b, err := a.next()
		if err == io.EOF {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errOutside, err)
		}
		a.cur = b
	}
	return nil
}

// read fills p: io.EOF where the stream ends before its first byte,
// io.ErrUnexpectedEOF where it ends inside.
func (a *archive) read(p []byte) error {
	for done := 0; done < len(p); {
		if err := a.fill(); err == io.EOF && done > 0 {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		n := copy(p[done:], a.cur)
		a.cur, a.off, done = a.cur[n:], a.off+int64(n), done+n
	}
	return nil
}

// must is read where the end of the stream is a fault.
func (a *archive) must(p []byte) error {
	err := a.read(p)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// skip passes over n bytes.
func (a *archive) skip(n int64) error { return a.take(n, func([]byte) {}) }

// take hands the next n bytes to fn, run by run.
func (a *archive) take(n int64, fn func([]byte)) error {
	for n > 0 {
		if err := a.fill(); err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		k := min(n, int64(len(a.cur)))
		fn(a.cur[:k])
		a.cur, a.off, n = a.cur[k:], a.off+k, n-k
	}
	return nil
}

// pad passes over what fills the last block; a stream that ends there is
// complete (archive/tar accepts it).
func (a *archive) pad(n int64) error {
	if err := a.skip(-n & (blockSize - 1)); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
}

// special reads the data of an extended header.
func (a *archive) special(size int64) (string, error) {
	if size < 0 || size > maxSpecial {
		return "", fmt.Errorf("extended header of %d bytes", size)
	}
	buf := make([]byte, size)
	if err := a.must(buf); size > 0 && err != nil {
		return "", err
	}
	return string(buf), a.pad(size)
}

// header reads the next header block; io.EOF at the end of the archive.
func (a *archive) header(b *block) error {
	if err := a.read(b[:]); err != nil {
		return err
	}
	if *b == zeroBlock {
		if err := a.read(b[:]); err != nil {
			return err
		}
		if *b == zeroBlock {
			return io.EOF
		}
		return errHeader
	}
	if !b.valid() {
		return errHeader
	}
	return nil
}

// nextEntry returns the next entry, its data already passed over, or io.EOF.
func (a *archive) nextEntry() (*entry, error) {
	at := a.off
	e, err := a.readEntry()
	if err == io.EOF {
		return nil, err
	}
	if err != nil {
		return nil, a.corrupt(at, err)
	}
	e.at, a.last = at, e.name
	return e, nil
}

func (a *archive) readEntry() (*entry, error) {
	var recs map[string]string
	var longName, longLink string
	for {
		var b block
		if err := a.header(&b); err != nil {
			return nil, err
		}
		e, err := b.entry()
		if err != nil {
			return nil, err
		}
		switch e.typ {
		case typePax, typePaxGlobal, typeGNUName, typeGNULink:
		default:
			return e, a.finish(e, &b, recs, longName, longLink)
		}
		s, err := a.special(e.size)
		if err != nil {
			return nil, err
		}
		switch e.typ {
		case typePax:
			recs, err = parsePax(s)
		case typePaxGlobal:
			recs, longName, longLink = nil, "", ""
			err = a.global(s)
		case typeGNUName:
			longName = cstring([]byte(s))
		case typeGNULink:
			longLink = cstring([]byte(s))
		}
		if err != nil {
			return nil, err
		}
	}
}

// global reads a global header, which docker and containerd ignore; git writes
// one that holds a comment only.
func (a *archive) global(s string) error {
	recs, err := parsePax(s)
	for k := range recs {
		if k != "comment" {
			a.notes.add("global PAX record %q is ignored, as docker does", k)
		}
	}
	return err
}

// finish completes an entry from its extended headers and passes over its data.
func (a *archive) finish(e *entry, b *block, recs map[string]string, longName, longLink string) error {
	if err := e.merge(recs); err != nil {
		return err
	}
	if longName != "" {
		e.name = longName
	}
	if longLink != "" {
		e.link = longLink
	}
	if e.typ == typeOldFile {
		e.typ = typeFile
		if strings.HasSuffix(e.name, "/") {
			e.typ = typeDir // before USTAR a slash was all that told
		}
	}
	if e.headerOnly() {
		e.size = 0
	}
	e.stored = e.size
	spans, ok, err := a.sparse(e, b)
	switch {
	case err != nil:
		return err
	case e.size < 0 || e.stored < 0:
		return errors.New("size is negative")
	case ok && e.headerOnly():
		return errors.New("a sparse map without a file")
	case ok:
		if e.data, err = a.extents(spans, e.size, a.off, e.stored); err != nil {
			return err
		}
	case e.size > 0:
		e.data = []tree.Extent{{Pack: a.pack, Off: a.off, Len: e.size}}
	}
	if err := a.contents(e); err != nil {
		return err
	}
	return a.pad(e.stored)
}

// contents passes over the data of a file and hashes it on the way.
func (a *archive) contents(e *entry) error {
	if e.typ != typeFile && e.typ != typeGNUSparse || e.size == 0 || !a.sum.begin(e.size-e.stored) {
		return a.skip(e.stored)
	}
	for i := range e.data {
		if e.data[i].Pack == "" {
			a.sum.zeros(e.data[i].Len)
			continue
		}
		if err := a.take(e.data[i].Len, a.sum.write); err != nil {
			return err
		}
	}
	e.digest = a.sum.end()
	return nil
}

// drain passes over what stands behind the end of the archive.
func (a *archive) drain() error {
	for {
		a.off += int64(len(a.cur))
		a.cur = nil
		if err := a.fill(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// A pack of the origin "lazy" gets its bytes bit by bit, as they are read. It says
// itself which it has, and nobody reads others: they would be zeros.
//
// On-disk format, in blocks of 4 KiB:
//
//	block 0   magic "fblazy1\n"; 1 if nothing is missing, else 0; 7 zeros;
//	          bytes of the file, little endian; the boot under which it was marked
//	map       from block 1: a byte for each block of the file, 1 if its bytes are here
//	data
//
// Bytes are written first and marked then. A mark is true as long as the kernel lives
// that took the bytes; under another boot everything marked is to be checked (Lazy.Boot).

// ErrPartial is returned for bytes of a pack that are not here.
var ErrPartial = errors.New("these contents are not here")

// LazyBlock is what a lazy pack counts in: what is marked begins and ends with one.
const LazyBlock = 4096

const (
	lazyMagic  = "fblazy1\n"
	lazyOrigin = "lazy"
	lazyState  = 8
	lazyLen    = 16
	lazyBoot   = 24
	lazyHead   = 96
)

// isLazy tells by the name.
func isLazy(id tree.PackID) bool { return strings.HasPrefix(string(id), lazyOrigin+"-") }

// Grows reports whether a pack may get bytes after it has its name.
func Grows(id tree.PackID) bool { return isLazy(id) }

// LazyStart is where the data of a lazy pack with so many bytes of it begins.
func LazyStart(data int64) int64 {
	blocks := LazyBlocks(data) + 1
	marks := int64(1)
	for marks*LazyBlock < blocks+marks {
		marks = (blocks + marks + LazyBlock - 1) / LazyBlock
	}
	return (1 + marks) * LazyBlock
}

// LazyBlocks is how many blocks n bytes take.
func LazyBlocks(n int64) int64 { return (n + LazyBlock - 1) / LazyBlock }

// CreateLazy starts a lazy pack for so many bytes of data, none of which is there.
func CreateLazy(dir string, data int64, boot string) (*Writer, *Lazy, error) {
	w, err := Create(dir, lazyOrigin)
	if err != nil {
		return nil, nil, err
	}
	l := &Lazy{f: w.f, size: LazyStart(data) + LazyBlocks(data)*LazyBlock}
	head := make([]byte, lazyHead)
	copy(head, lazyMagic)
	binary.LittleEndian.PutUint64(head[lazyLen:], uint64(l.size))
	copy(head[lazyBoot:], boot)
	if err = w.f.Truncate(l.size); err == nil {
		_, err = w.f.WriteAt(head, 0)
	}
	if err != nil {
		w.Abort()
		return nil, nil, fmt.Errorf("create pack %s: %w", w.id, err)
	}
	return w, l, nil
}

// Lazy is a lazy pack that is being filled.
type Lazy struct {
	f    *os.File
	size int64
}

// OpenLazy opens a lazy pack to fill it, with a lease on it until Close.
func OpenLazy(dir string, id tree.PackID) (*Lazy, error) {
	if !Valid(id) || !isLazy(id) {
		return nil, fmt.Errorf("open pack %q: not a lazy one", id)
	}
	f, err := openLeased(filepath.Join(dir, string(id)), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	size, _, err := lazyHeader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Lazy{f: f, size: size}, nil
}

// lazyHeader reads the first block.
func lazyHeader(f *os.File) (size int64, whole bool, err error) {
	head := make([]byte, lazyHead)
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0, false, fmt.Errorf("read pack %s: %w", filepath.Base(f.Name()), err)
	}
	st, err := f.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("read pack: %w", err)
	}
	size = int64(binary.LittleEndian.Uint64(head[lazyLen:]))
	if !bytes.HasPrefix(head, []byte(lazyMagic)) || size != st.Size() {
		return 0, false, fmt.Errorf("read pack %s: its head is damaged", filepath.Base(f.Name()))
	}
	return size, head[lazyState] == 1, nil
}

// lazyHere reports whether all n bytes at off are in a lazy pack.
func lazyHere(f *os.File, off, n int64) (bool, error) {
	if n <= 0 {
		return true, nil
	}
	marks := make([]byte, (off+n-1)/LazyBlock-off/LazyBlock+1)
	if _, err := f.ReadAt(marks, LazyBlock+off/LazyBlock); err != nil {
		return false, fmt.Errorf("read pack %s: %w", filepath.Base(f.Name()), err)
	}
	for _, m := range marks {
		if m != 1 {
			return false, nil
		}
	}
	return true, nil
}

// Here reports whether all n bytes at off are in the pack.
func (l *Lazy) Here(off, n int64) (bool, error) { return lazyHere(l.f, off, n) }

// WriteAt puts bytes in their place, not yet marked.
func (l *Lazy) WriteAt(p []byte, off int64) (int, error) { return l.f.WriteAt(p, off) }

// ReadAt reads what may not be marked.
func (l *Lazy) ReadAt(p []byte, off int64) (int, error) { return l.f.ReadAt(p, off) }

// Mark says that the n bytes at off, the first of a block, were written and are
// right. What is left of the last block is nobody's.
func (l *Lazy) Mark(off, n int64) error { return l.mark(off, n, 1) }

// Forget takes a mark back.
func (l *Lazy) Forget(off, n int64) error { return l.mark(off, n, 0) }

func (l *Lazy) mark(off, n int64, v byte) error {
	if n <= 0 {
		return nil
	}
	if off%LazyBlock != 0 || off < LazyStart(0) || off+n > l.size {
		return fmt.Errorf("mark pack: %d bytes at %d are no blocks of it", n, off)
	}
	if _, err := l.f.WriteAt(bytes.Repeat([]byte{v}, int(LazyBlocks(n))), LazyBlock+off/LazyBlock); err != nil {
		return fmt.Errorf("mark pack: %w", err)
	}
	return nil
}

// Whole reports whether nothing is missing.
func (l *Lazy) Whole() (bool, error) {
	_, whole, err := lazyHeader(l.f)
	return whole, err
}

// Finish makes a pack in which everything is marked durable and whole.
func (l *Lazy) Finish() error {
	err := l.f.Sync()
	if err == nil {
		_, err = l.f.WriteAt([]byte{1}, lazyState)
	}
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("finish pack: %w", err)
	}
	return nil
}

// Boot is the boot under which the pack was marked.
func (l *Lazy) Boot() (string, error) {
	b := make([]byte, lazyHead-lazyBoot)
	if _, err := l.f.ReadAt(b, lazyBoot); err != nil {
		return "", fmt.Errorf("read pack: %w", err)
	}
	return string(bytes.TrimRight(b, "\x00")), nil
}

// SetBoot says that what is marked holds under a boot.
func (l *Lazy) SetBoot(boot string) error {
	b := make([]byte, lazyHead-lazyBoot)
	copy(b, boot)
	if _, err := l.f.WriteAt(b, lazyBoot); err != nil {
		return fmt.Errorf("write pack: %w", err)
	}
	return nil
}

// Close gives the lease up.
func (l *Lazy) Close() error { return l.f.Close() }

// A Filler makes n bytes at off of a lazy pack be there.
type Filler func(id tree.PackID, off, n int64) error

// filler is one of a Set.
type filler struct {
	id tree.PackID // "" for all
	fn Filler
}

// AddFiller makes fn responsible for one lazy pack, or for all where id is "": who
// reads what is not there waits for it. The last one added counts. remove takes it back.
func (s *Set) AddFiller(id tree.PackID, fn Filler) (remove func()) {
	x := &filler{id, fn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fillers = append(s.fillers, x)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, y := range s.fillers {
			if y == x {
				s.fillers = append(s.fillers[:i:i], s.fillers[i+1:]...)
				return
			}
		}
	}
}

func (s *Set) filler(id tree.PackID) Filler {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range slices.Backward(s.fillers) {
		if x.id == "" || x.id == id {
			return x.fn
		}
	}
	return nil
}

// here reports whether n bytes at off of a leased pack can be read.
func (s *Set) here(id tree.PackID, f *os.File, off, n int64) (bool, error) {
	if !isLazy(id) {
		return true, nil
	}
	s.mu.Lock()
	whole := s.whole[id]
	s.mu.Unlock()
	if whole {
		return true, nil
	}
	return lazyHere(f, off, n)
}

// Waits reports whether reading n bytes at off of a pack would wait for a Filler. Whatever
// else is wrong with the pack, the reader finds out.
func (s *Set) Waits(id tree.PackID, off, n int64) bool {
	if !isLazy(id) {
		return false
	}
	f, err := s.lease(id)
	if err != nil {
		return false
	}
	here, err := s.here(id, f, off, n)
	return err == nil && !here
}

// At is File of a pack of which n bytes at off will be read, which are there then: where a
// lazy one lacks them its Filler gets them first. ErrPartial is returned where it has none.
func (s *Set) At(id tree.PackID, off, n int64) (*os.File, error) {
	f, err := s.lease(id)
	if err != nil {
		return nil, err
	}
	here, err := s.here(id, f, off, n)
	if here || err != nil {
		return f, err
	}
	fill := s.filler(id)
	if fill == nil {
		return nil, fmt.Errorf("read pack %s at %d: %w", id, off, ErrPartial)
	}
	if err := fill(id, off, n); err != nil {
		return nil, err
	}
	if here, err = lazyHere(f, off, n); err == nil && !here {
		err = fmt.Errorf("read pack %s at %d: %w", id, off, ErrPartial)
	}
	return f, err
}

// checkWhole notes whether a lazy pack has everything.
func (s *Set) checkWhole(id tree.PackID, f *os.File) error {
	if !isLazy(id) || s.whole[id] {
		return nil
	}
	_, whole, err := lazyHeader(f)
	if err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("open pack %s: %w", id, ErrPartial)
	}
	s.whole[id] = true
	return nil
}

// Read fills p with the bytes at off of a pack.
func (s *Set) Read(id tree.PackID, p []byte, off int64) error {
	f, err := s.At(id, off, int64(len(p)))
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(p, off); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read pack %s at %d: %w", id, off, err)
	}
	return nil
}

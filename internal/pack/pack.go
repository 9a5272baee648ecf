// Package pack reads and writes packs: files that hold uncompressed contents,
// written once and read at offsets.
//
// Owns: what a pack is on the disk, how a writer's half-made pack is told from a
// finished one, and the lease that keeps a pack while somebody reads it.
//
// Invariants (LAWS 18): a pack is opened, locked shared, then checked to be
// still linked, before its first byte is served; it is read with pread, never
// mapped; a short read is an error, never zeros.
//
// On-disk format: DIR/ID is a finished pack and never changes its bytes; ID is
// a word for the origin (tar, spool, copy, lazy), a dash and 32 hex digits. DIR/ID.part
// is being written by a process that holds its exclusive flock. A lazy pack (lazy.go)
// gets its bytes later, each once.
//
// Concurrency: a Set and its readers are for any number of goroutines; a Writer
// for one, but WriteAt of its File may be called from several.
package pack

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// PartSuffix ends the name of a pack that is being written.
const PartSuffix = ".part"

// ErrGone is returned for a pack that is not there (any more).
var ErrGone = errors.New("pack is gone")

// Valid reports whether id can name a pack, so that a hostile index cannot lead
// out of the directory.
func Valid(id tree.PackID) bool {
	origin, digits, ok := strings.Cut(string(id), "-")
	if !ok || len(digits) != 32 || strings.Trim(digits, "0123456789abcdef") != "" {
		return false
	}
	return origin == "tar" || origin == "spool" || origin == "copy" || origin == lazyOrigin
}

// Set gives access to the packs of one directory and keeps a lease on each that
// it opened until Close.
type Set struct {
	dir string

	mu      sync.Mutex
	files   map[tree.PackID]*os.File
	whole   map[tree.PackID]bool // lazy packs of which nothing is missing
	fillers []*filler
}

// NewSet returns a Set over the packs in dir. Nothing is opened yet.
func NewSet(dir string) *Set {
	return &Set{dir: dir, files: map[tree.PackID]*os.File{}, whole: map[tree.PackID]bool{}}
}

// Dir returns the directory of the packs.
func (s *Set) Dir() string { return s.dir }

// Close releases every lease. Readers made before it fail afterwards.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id, f := range s.files {
		errs = append(errs, f.Close())
		delete(s.files, id)
	}
	return errors.Join(errs...)
}

// File returns the open, leased pack, all of whose bytes may be read. The caller must
// not close it. ErrGone is returned where there is none, ErrPartial where bytes are missing.
func (s *Set) File(id tree.PackID) (*os.File, error) {
	f, err := s.lease(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return f, s.checkWhole(id, f)
}

// Lease keeps a pack, whether or not all of it is here.
func (s *Set) Lease(id tree.PackID) error {
	_, err := s.lease(id)
	return err
}

func (s *Set) lease(id tree.PackID) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[id]; f != nil {
		return f, nil
	}
	if !Valid(id) {
		return nil, fmt.Errorf("open pack %q: not a pack name", id)
	}
	f, err := openLeased(filepath.Join(s.dir, string(id)), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	s.files[id] = f
	return f, nil
}

func openLeased(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, flags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open pack %s: %w", filepath.Base(name), ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	var st unix.Stat_t
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err == nil && st.Nlink == 0 {
		err = ErrGone
	}
	if err != nil {
		_ = f.Close() // the error before counts
		return nil, fmt.Errorf("lease pack %s: %w", filepath.Base(name), err)
	}
	return f, nil
}

// ReadAt fills p with n's bytes at off. It returns fewer bytes, with io.EOF,
// only at the end of the file; anything missing before is an error.
func (s *Set) ReadAt(n *tree.Node, p []byte, off int64) (int, error) {
	if off >= n.Size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > n.Size-off {
		p, eof = p[:n.Size-off], io.EOF
	}
	done, start := 0, int64(0)
	for i := 0; i < len(n.Extents) && done < len(p); i++ {
		x := &n.Extents[i]
		if skip := off + int64(done) - start; skip < x.Len {
			part := p[done:min(len(p), done+int(min(x.Len-skip, int64(len(p)))))]
			if err := s.readExtent(x, part, skip); err != nil {
				return done, err
			}
			done += len(part)
		}
		start += x.Len
	}
	if done < len(p) {
		return done, fmt.Errorf("read contents: extents end %d bytes early", len(p)-done)
	}
	return done, eof
}

func (s *Set) readExtent(x *tree.Extent, p []byte, skip int64) error {
	if x.Pack == "" {
		clear(p)
		return nil
	}
	return s.Read(x.Pack, p, x.Off+skip)
}

// Open returns a reader over the bytes of file node n from its start. Its first
// pack is leased before Open returns.
func (s *Set) Open(n *tree.Node) (io.ReadCloser, error) {
	if n.Kind != tree.File {
		return nil, errors.New("open contents: not a file")
	}
	for i := range n.Extents {
		if id := n.Extents[i].Pack; id != "" {
			if err := s.Lease(id); err != nil {
				return nil, err
			}
		}
	}
	return io.NopCloser(io.NewSectionReader(nodeReader{s, n}, 0, n.Size)), nil
}

type nodeReader struct {
	s *Set
	n *tree.Node
}

func (r nodeReader) ReadAt(p []byte, off int64) (int, error) { return r.s.ReadAt(r.n, p, off) }

// Writer is a pack in the making.
type Writer struct {
	id   tree.PackID
	dir  string
	f    *os.File
	size int64
	done bool
}

// Create starts a pack in dir; origin is "tar", "spool" or "copy" (CreateLazy for the
// fourth).
func Create(dir, origin string) (*Writer, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("name pack: %w", err)
	}
	id := tree.PackID(origin + "-" + hex.EncodeToString(raw[:]))
	if !Valid(id) {
		return nil, fmt.Errorf("create pack: unknown origin %q", origin)
	}
	f, err := os.OpenFile(filepath.Join(dir, string(id)+PartSuffix), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create pack: %w", err)
	}
	w := &Writer{id: id, dir: dir, f: f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		w.Abort()
		return nil, fmt.Errorf("lock pack: %w", err)
	}
	return w, nil
}

// ID returns the name that extents use.
func (w *Writer) ID() tree.PackID { return w.id }

// File returns the file itself, for a recorder that writes at offsets of its
// own choice and punches holes. Mixing that with Write is the caller's affair.
func (w *Writer) File() *os.File { return w.f }

// Offset returns where the next Write lands.
func (w *Writer) Offset() int64 { return w.size }

// Write appends p.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.size)
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write pack %s: %w", w.id, err)
	}
	return n, nil
}

// Commit gives the pack its final name. It does not sync: Sync does, before a
// record may name the pack (LAWS 33). The writer is closed in any case.
func (w *Writer) Commit() error {
	if w.done {
		return errors.New("commit pack: already closed")
	}
	w.done = true
	name := filepath.Join(w.dir, string(w.id))
	err := os.Rename(name+PartSuffix, name)
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("commit pack: %w", err)
	}
	return nil
}

// Abort throws the pack away. After Commit it does nothing.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	_ = os.Remove(w.f.Name()) // a leftover is swept later
	_ = w.f.Close()
}

// Sync makes a committed pack and its name durable.
func (s *Set) Sync(id tree.PackID) error {
	f, err := s.lease(id)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync pack %s: %w", id, err)
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync packs: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync packs: %w", err)
	}
	return nil
}

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// ErrDigest is returned for bytes that are not what their digest says.
var ErrDigest = errors.New("digest differs")

func (s *Store) blobPath(d tree.Digest) string { return s.path("blobs", "sha256", d.Hex()) }

// HasBlob reports whether the store holds the blob; it stays while this Store is
// open.
func (s *Store) HasBlob(d tree.Digest) bool {
	if checkDigest(d) != nil {
		return false
	}
	unlock, err := s.gate(unix.LOCK_SH)
	if err != nil {
		return false
	}
	defer unlock()
	return s.use(s.blobPath(d)) == nil
}

// OpenBlob opens a blob for reading, with a lease on it until it is closed. It
// returns ErrNotFound where the store has none.
func (s *Store) OpenBlob(d tree.Digest) (*os.File, error) {
	if err := checkDigest(d); err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	unlock, err := s.gate(unix.LOCK_SH)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	defer unlock()
	if err := s.use(s.blobPath(d)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotFound
		}
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	f, err := os.OpenFile(s.blobPath(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	if err := flock(f, unix.LOCK_SH); err != nil {
		_ = f.Close() // the error before counts
		return nil, fmt.Errorf("lease blob %s: %w", d, err)
	}
	return f, nil
}

// BlobWriter is a blob in the making. Write it, then Commit or Abort it.
type BlobWriter struct {
	s    *Store
	f    *os.File
	hash hash.Hash
	size int64
	sent int64 // how much of it is on its way to the disk
	pass bool
	err  error
	done bool
}

// sendAt is how much of a blob is gathered before the disk gets it: Commit then has
// little to wait for.
const sendAt = 16 << 20

// CreateBlob starts a blob. Nothing has its name before Commit.
func (s *Store) CreateBlob() (*BlobWriter, error) {
	f, err := os.CreateTemp(s.lease.dir, "blob-")
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return &BlobWriter{s: s, f: f, hash: sha256.New()}, nil
}

// PutBlob stores what r gives, as one blob, and returns its digest: want, where that
// is given. The caller closes r.
func (s *Store) PutBlob(r io.Reader, want tree.Digest) (tree.Digest, error) {
	w, err := s.CreateBlob()
	if err != nil {
		return "", err
	}
	defer w.Abort()
	if _, err := io.Copy(w, r); err != nil {
		return "", err
	}
	d, _, err := w.Commit(want)
	return d, err
}

// Write appends p. After an error the blob cannot be committed.
func (w *BlobWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write blob: %w", err)
	}
	if w.size-w.sent >= sendAt {
		_ = unix.SyncFileRange(int(w.f.Fd()), w.sent, w.size-w.sent, unix.SYNC_FILE_RANGE_WRITE) // Commit syncs
		if w.pass {                                                                              // what was sent the time before has arrived meanwhile
			_ = unix.Fadvise(int(w.f.Fd()), 0, w.sent, unix.FADV_DONTNEED) // only advice
		}
		w.sent = w.size
	}
	return n, w.err
}

// Pass says that nobody will read the blob soon: its pages are given back as they reach
// the disk, and serve what is written next. New ones cost more than the copy where a
// machine is virtual.
func (w *BlobWriter) Pass() { w.pass = true }

// Verify returns ErrDigest where what was written is not want.
func (w *BlobWriter) Verify(want tree.Digest) error {
	if got := w.Digest(); got != want {
		return fmt.Errorf("blob %s: %w: got %s", want, ErrDigest, got)
	}
	return nil
}

// Digest is the digest of all that was written so far.
func (w *BlobWriter) Digest() tree.Digest {
	return tree.Digest("sha256:" + hex.EncodeToString(w.hash.Sum(nil)))
}

// Name is the file that holds what was written, until Commit or Abort.
func (w *BlobWriter) Name() string { return w.f.Name() }

// Commit makes the blob durable under its digest and returns that and the size.
// It returns ErrDigest, and nothing is kept, where want is given and differs.
// The writer is closed in any case.
func (w *BlobWriter) Commit(want tree.Digest) (tree.Digest, int64, error) {
	if w.done {
		return "", 0, errors.New("commit blob: already closed")
	}
	if w.err != nil {
		w.Abort()
		return "", 0, w.err
	}
	got := w.Digest()
	if want != "" && want != got {
		w.Abort()
		return "", 0, fmt.Errorf("commit blob %s: %w: got %s", want, ErrDigest, got)
	}
	if err := w.commit(w.s.blobPath(got)); err != nil {
		return "", 0, fmt.Errorf("commit blob %s: %w", got, err)
	}
	return got, w.size, nil
}

// commit renames over an equal blob: that may be a damaged one.
func (w *BlobWriter) commit(name string) error {
	w.done = true
	err := w.f.Sync()
	if err == nil {
		err = w.f.Chmod(0o644)
	}
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = publish(w.f.Name(), name, true)
	}
	if err != nil {
		_ = os.Remove(w.f.Name()) // the error before counts
	}
	return err
}

// Abort throws the blob away. After Commit it does nothing.
func (w *BlobWriter) Abort() {
	if w.done {
		return
	}
	w.done = true
	_ = w.f.Close() // nothing of it is kept
	_ = os.Remove(w.f.Name())
}

package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// Record is a result under a key: a value that only the caller understands, and
// what must stay as long as the record does. Blobs and layers that the store
// does not hold may be named; the caller asks for them when it needs them.
type Record struct {
	Value  []byte
	Blobs  []tree.Digest
	Layers []tree.Digest // diffIDs; with a layer index stay the packs it needs
}

// KindImage is the kind of the records of images, named or not: the config's digest
// in hex is the key, a JSON string with it the value, and the manifest's the first of
// the blobs.
const KindImage = "image"

// The kinds that the store keeps for itself.
const (
	kindLayer = "layer" // files of tree.Encode, no records
	kindTar   = "tar"
)

// KindLazy are the records of layers whose contents may be missing, under the name of
// the layer's index: Verify does not look for these.
const KindLazy = "lazy"

// checkKind accepts a word in lower case that is not the store's own.
func checkKind(kind string) error {
	if kind == "" || kind == kindLayer || kind == kindTar || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("record kind %q: not a word of lower-case letters, or taken", kind)
	}
	return nil
}

func (s *Store) recordPath(kind, key string) string {
	name := keyName(key)
	return s.path("records", kind, name[:2], name)
}

// Record returns the record of a kind under key. It returns ErrNotFound where
// there is none, and for one that does not verify, which it removes. What the
// record names stays while this Store is open.
func (s *Store) Record(kind, key string) (Record, error) {
	if err := checkKind(kind); err != nil {
		return Record{}, err
	}
	return s.record(kind, key)
}

func (s *Store) record(kind, key string) (Record, error) {
	unlock, err := s.gate(unix.LOCK_SH)
	if err != nil {
		return Record{}, fmt.Errorf("read record %s %s: %w", kind, key, err)
	}
	defer unlock()
	name := s.recordPath(kind, key)
	if err := s.use(name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotFound
		}
		return Record{}, fmt.Errorf("read record %s %s: %w", kind, key, err)
	}
	k, r, err := readRecord(name, kind)
	if err == nil && k != key {
		err = errCorrupt
	}
	if errors.Is(err, errCorrupt) {
		_ = os.Remove(name) // it is a miss either way
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read record %s %s: %w", kind, key, err)
	}
	return r, nil
}

// readRecord reads a record file, checks that it is of its kind, and returns the
// key as well.
func readRecord(name, kind string) (key string, r Record, err error) {
	fi, err := os.Lstat(name)
	if err != nil {
		return "", Record{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxRecord {
		return "", Record{}, fmt.Errorf("%w: impossible size", errCorrupt)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", Record{}, err
	}
	k, key, r, err := decodeRecord(data)
	if err == nil && k != kind {
		err = fmt.Errorf("%w: of kind %q", errCorrupt, k)
	}
	return key, r, err
}

// PutRecord stores a record in place of an older one. Its blobs and layers must
// be in the store already, or not be the store's to keep.
func (s *Store) PutRecord(kind, key string, r Record) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	return s.putRecord(kind, key, r, true)
}

// PutNote stores a record as PutRecord does, without waiting for the disk: after a
// power loss it may be the older one, or none.
func (s *Store) PutNote(kind, key string, r Record) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	return s.putRecord(kind, key, r, false)
}

func (s *Store) putRecord(kind, key string, r Record, durable bool) error {
	for _, list := range [][]tree.Digest{r.Blobs, r.Layers} {
		for _, d := range list {
			if err := checkDigest(d); err != nil {
				return fmt.Errorf("write record %s %s: %w", kind, key, err)
			}
		}
	}
	data := encodeRecord(kind, key, r)
	if len(data) > maxRecord {
		return fmt.Errorf("write record %s %s: %d bytes, more than %d", kind, key, len(data), maxRecord)
	}
	name := s.recordPath(kind, key)
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) && s.use(name) == nil {
		return nil // and nothing to sync
	}
	if err := writeFile(s.lease.dir, name, data, durable); err != nil {
		return fmt.Errorf("write record %s %s: %w", kind, key, err)
	}
	return nil
}

// DeleteRecord removes a record. One that is not there needs no removing.
func (s *Store) DeleteRecord(kind, key string) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	if err := ignoreNotExist(os.Remove(s.recordPath(kind, key))); err != nil {
		return fmt.Errorf("delete record %s %s: %w", kind, key, err)
	}
	return nil
}

// Records yields the records of a kind that verify, in no order. They do not count as
// used.
func (s *Store) Records(kind string) iter.Seq2[string, Record] {
	return func(yield func(string, Record) bool) {
		if checkKind(kind) != nil {
			return
		}
		for name := range s.recordFiles(kind) {
			key, r, err := readRecord(name, kind)
			if err == nil && !yield(key, r) {
				return
			}
		}
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/fbuild/fbuild/tree"
)

// FindContent returns where the store has the size bytes with digest d. The
// packs are leased. Not to have an index and not to find anything are the same.
func (s *Store) FindContent(d tree.Digest, size int64) ([]tree.Extent, bool) {
	if checkDigest(d) != nil || size < 0 {
		return nil, false
	}
	if size == 0 {
		return nil, true
	}
	x := s.index
	db := x.get()
	if db == nil {
		return nil, false
	}
	data, ok := x.lookup(db, d)
	if !ok {
		return nil, false
	}
	ex, err := decodeEntry(d, data)
	if err != nil {
		x.fail(true)
		return nil, false
	}
	if !s.holds(ex, size) {
		x.set(db, d, nil)
		return nil, false
	}
	return ex, true
}

// holds leases the packs of ex and checks that they are long enough.
func (s *Store) holds(ex []tree.Extent, size int64) bool {
	for _, x := range ex {
		size -= x.Len
		if x.Pack == "" {
			continue
		}
		f, err := s.packs.File(x.Pack)
		if err != nil {
			return false
		}
		fi, err := f.Stat()
		if err != nil || fi.Size() < x.Off+x.Len {
			return false
		}
	}
	return size == 0
}

// AddContent tells the index where the bytes with digest d are. The packs must
// be committed.
func (s *Store) AddContent(d tree.Digest, ex []tree.Extent) {
	if checkDigest(d) != nil || len(ex) == 0 {
		return
	}
	if db := s.index.get(); db != nil {
		if data := encodeEntry(d, ex); len(data) <= maxEntry {
			s.index.set(db, d, data)
		}
	}
}

func (x *contentIndex) lookup(db *badger.DB, d tree.Digest) ([]byte, bool) {
	x.mu.Lock()
	data, ok := x.pending[d]
	if !ok {
		data, ok = x.flushing[d]
	}
	x.mu.Unlock()
	if ok {
		return data, data != nil
	}
	data, err := x.ask(db, contentKey(d))
	switch {
	case err == nil:
		return data, true
	case errors.Is(err, badger.ErrKeyNotFound):
	case errors.Is(err, context.DeadlineExceeded):
		x.fail(false)
	default:
		x.fail(true)
	}
	return nil, false
}

// set gathers an entry, nil to delete it, and starts writing when enough have
// come together. It never waits for the disk.
func (x *contentIndex) set(db *badger.DB, d tree.Digest, data []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.off || x.closed || len(x.pending) >= dropAt {
		return
	}
	x.pending[d] = data
	if len(x.pending) < flushAt || x.flushing != nil {
		return
	}
	x.flushing, x.pending = x.pending, map[tree.Digest][]byte{}
	x.wg.Go(func() { x.flush(db) })
}

// flush writes what stands in x.flushing.
func (x *contentIndex) flush(db *badger.DB) {
	x.write(db, x.flushing)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flushing = nil
}

// write puts entries into the database and turns the index off where that fails.
func (x *contentIndex) write(db *badger.DB, entries map[tree.Digest][]byte) {
	if !x.room() {
		x.fail(false)
		return
	}
	if err := writeBatch(db, entries); err != nil {
		x.fail(true)
	}
}

func writeBatch(db *badger.DB, entries map[tree.Digest][]byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("write index: %v", p)
		}
	}()
	batch := db.NewWriteBatch()
	defer batch.Cancel()
	for d, data := range entries {
		if data == nil {
			err = batch.Delete(contentKey(d))
		} else {
			err = batch.Set(contentKey(d), data)
		}
		if err != nil {
			return err
		}
	}
	return batch.Flush()
}

// ask reads a value, waiting no longer than indexWait.
func (x *contentIndex) ask(db *badger.DB, key []byte) ([]byte, error) {
	type answer struct {
		value []byte
		err   error
	}
	done := make(chan answer, 1)
	ok := x.spawn(func() {
		var a answer
		a.value, a.err = readValue(db, key)
		done <- a
	})
	if !ok {
		return nil, badger.ErrKeyNotFound
	}
	timer := time.NewTimer(indexWait)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.value, a.err
	case <-timer.C:
		return nil, context.DeadlineExceeded
	}
}

// readValue reads one value; a panic over damaged files is an error.
func readValue(db *badger.DB, key []byte) (value []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read index: %v", p)
		}
	}()
	err = db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// The index is Badger under index/. One process at a time has it: the one that
// holds the flock of tmp/locks/index.
//
//	"c" + 32 bytes of content digest  ->  extents (entry.go), self-verifying
//	"built"                           ->  "1": every layer index of the store
//	                                      was read into it once
const builtKey = "built"

const (
	// indexWait bounds what a caller waits for the index, opening or asking.
	indexWait = 250 * time.Millisecond
	// closeWait bounds what Close waits for Badger.
	closeWait = 5 * time.Second
	// flushAt is how many entries are gathered before they are written, and
	// dropAt how many may wait for a slow disk before new ones are dropped.
	flushAt, dropAt = 2048, 65536
	// indexRoom is the free space below which the index is left alone: Badger
	// writes through mappings, where a full disk kills the process.
	indexRoom = 64 << 20
)

// contentIndex is the index, or the lack of one.
type contentIndex struct {
	s      *Store
	dir    string
	ready  chan struct{} // closed when the opening is over, however it ended
	wg     sync.WaitGroup
	ctx    context.Context // of the work in the background, see close
	cancel context.CancelFunc

	mu       sync.Mutex
	opened   time.Time // zero: not asked for yet
	db       *badger.DB
	unlock   func()
	sums     map[string]fileSum // of the files as they were opened
	off      bool               // something went wrong: not asked again
	discard  bool               // it was wrong in itself: removed on close
	closed   bool
	pending  map[tree.Digest][]byte // not written yet; nil value: to be deleted
	flushing map[tree.Digest][]byte // being written
}

func newContentIndex(ctx context.Context, s *Store) *contentIndex {
	x := &contentIndex{s: s, dir: s.path("index"), ready: make(chan struct{}), pending: map[tree.Digest][]byte{}}
	x.ctx, x.cancel = context.WithCancel(ctx)
	return x
}

// get returns the database, or nil where there is none (yet). The first call
// opens it; all calls together wait no longer than indexWait.
func (x *contentIndex) get() *badger.DB {
	x.mu.Lock()
	if x.off || x.closed {
		x.mu.Unlock()
		return nil
	}
	if x.opened.IsZero() {
		x.opened = time.Now()
		x.wg.Go(x.open)
	}
	wait := indexWait - time.Since(x.opened)
	x.mu.Unlock()
	select {
	case <-x.ready:
	default:
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-x.ready:
		case <-timer.C:
			return nil
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.off || x.closed {
		return nil
	}
	return x.db
}

// open opens the index, throwing a damaged one away, and fills a new one.
func (x *contentIndex) open() {
	db, unlock, err := x.openDB()
	x.mu.Lock()
	x.db, x.unlock, x.off = db, unlock, err != nil
	x.mu.Unlock()
	close(x.ready)
	if db != nil {
		x.rebuild(db)
	}
}

var errNoRoom = errors.New("no room for the index")

func (x *contentIndex) openDB() (*badger.DB, func(), error) {
	if !x.room() {
		return nil, nil, errNoRoom
	}
	unlock, err := lockFile(x.s.path("tmp", "locks", "index"), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return nil, nil, err
	}
	var db *badger.DB
	x.sums, err = takeSums(x.dir)
	if err == nil {
		db, err = openBadger(x.dir)
	}
	if err != nil {
		x.sums = nil
		if err = os.RemoveAll(x.dir); err == nil {
			db, err = openBadger(x.dir)
		}
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return db, unlock, nil
}

func (x *contentIndex) room() bool {
	var st unix.Statfs_t
	return unix.Statfs(x.s.dir, &st) == nil && st.Bavail*uint64(st.Bsize) > indexRoom
}

// openBadger opens Badger as small as it gets; a panic over damaged files is an
// error.
func openBadger(dir string) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("open index: %v", p)
		}
	}()
	o := badger.DefaultOptions(dir).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithBypassLockGuard(true). // our own flock keeps others out
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(8).
		WithNumCompactors(2).
		WithNumGoroutines(2).
		WithValueLogFileSize(1 << 20).
		WithValueThreshold(1 << 20). // every value stands in the tree itself
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithDetectConflicts(false).
		WithSyncWrites(false)
	return badger.Open(o)
}

// spawn runs fn in the background unless the index is closed.
func (x *contentIndex) spawn(fn func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	x.wg.Go(fn)
	return true
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

// fail turns the index off for this Store; damaged means for ever.
func (x *contentIndex) fail(damaged bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.off = true
	x.discard = x.discard || damaged
}

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

// close writes what is gathered and closes the index. A disk that hangs is not
// waited for: what Badger did not write is built again.
func (x *contentIndex) close() {
	x.cancel()
	x.mu.Lock()
	used := !x.opened.IsZero()
	x.closed = true
	x.mu.Unlock()
	if !used {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.wg.Wait()
		x.shut()
	}()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (x *contentIndex) shut() {
	if x.db == nil {
		return
	}
	if len(x.pending) > 0 && !x.off {
		x.flushing = x.pending
		x.flush(x.db)
	}
	// Without its sums the index is thrown away by whoever opens it next.
	if err := x.closeDB(); err == nil && !x.discard {
		_ = giveSums(x.dir, x.sums)
	}
	x.unlock()
}

func (x *contentIndex) closeDB() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("close index: %v", p)
		}
	}()
	return x.db.Close()
}

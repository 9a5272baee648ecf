package cache

import (
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
	s     *Store
	dir   string
	ready chan struct{} // closed when the opening is over, however it ended
	wg    sync.WaitGroup
	stop  chan struct{} // closed to end the work in the background

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

func newContentIndex(s *Store) *contentIndex {
	return &contentIndex{
		s: s, dir: s.path("index"), pending: map[tree.Digest][]byte{},
		ready: make(chan struct{}), stop: make(chan struct{}),
	}
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

// fail turns the index off for this Store; damaged means for ever.
func (x *contentIndex) fail(damaged bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.off = true
	x.discard = x.discard || damaged
}

// close writes what is gathered and closes the index. A disk that hangs is not
// waited for: what Badger did not write is built again.
func (x *contentIndex) close() {
	close(x.stop)
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
	if !x.room() {
		// Closing writes, through mappings. The lock is held until the process
		// ends, and then the index is thrown away: it was not closed.
		return
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

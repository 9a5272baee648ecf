package cache

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// badgerTable is the index where this process has it.
type badgerTable struct {
	x      *contentIndex
	db     *badger.DB
	sums   map[string]fileSum // of the files as they were opened
	server *indexServer
	unlock func()
}

// openBadger opens Badger as small as it gets; a panic over damaged files is an
// error.
func openBadger(dir string) (db *badger.DB, err error) {
	defer recovered("open", &err)
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

func (t *badgerTable) get(key string) (value []byte, err error) {
	defer recovered("read", &err)
	err = t.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte(key))
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		err = errNoEntry
	}
	return value, err
}

func (t *badgerTable) put(entries map[string][]byte) (err error) {
	defer recovered("write", &err)
	batch := t.db.NewWriteBatch()
	defer batch.Cancel()
	for key, data := range entries {
		if data == nil {
			err = batch.Delete([]byte(key))
		} else {
			err = batch.Set([]byte(key), data)
		}
		if err != nil {
			return err
		}
	}
	return batch.Flush()
}

// close is called when nobody asks any more.
func (t *badgerTable) close(whole bool) {
	if !t.x.room() {
		// Closing writes, through mappings. The lock is held until the process
		// ends, and then the index is thrown away: it was not closed.
		return
	}
	// Without its sums the index is thrown away by whoever opens it next.
	if err := t.closeDB(); err == nil && whole {
		_ = giveSums(t.x.dir, t.sums)
	}
	t.unlock()
}

func (t *badgerTable) closeDB() (err error) {
	defer recovered("close", &err)
	return t.db.Close()
}

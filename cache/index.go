package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The index is Badger under index/. One process at a time has it: the one that
// holds the flock of tmp/locks/index. It answers the others at a socket
// (indexserver.go), and when it ends or is killed one of them takes its place.
//
//	"c" + 32 bytes of content digest  ->  extents (entry.go), self-verifying
//	"f" + 32 bytes of frame key       ->  a place in a blob (frame.go), likewise
//	"built"                           ->  "1": every layer index of the store
//	                                      was read into it once
const builtKey = "built"

const (
	// indexWait bounds what a caller waits for the index, opening or asking.
	indexWait = 250 * time.Millisecond
	// indexPause is how long an index that could not be had is left alone.
	indexPause = time.Second
	// closeWait bounds what Close waits for Badger.
	closeWait = 5 * time.Second
	// flushAt is how many entries are gathered before they are written, and
	// dropAt how many may wait for a slow disk before new ones are dropped.
	flushAt, dropAt = 2048, 65536
	// indexRoom is the free space below which the index is left alone: Badger
	// writes through mappings, where a full disk kills the process.
	indexRoom = 64 << 20
)

// table is where the entries are: Badger, or the process that has it.
type table interface {
	// get returns the value of a key. It returns errNoEntry where there is none,
	// errTableGone where another process had the table and does not any more, and
	// context.DeadlineExceeded where that process does not answer. So does put.
	get(key string) ([]byte, error)
	// put writes entries; nil deletes.
	put(entries map[string][]byte) error
	// close ends it; whole says that everything put is to be kept.
	close(whole bool)
}

var (
	errNoEntry   = errors.New("no such entry")
	errTableGone = errors.New("the process that has the index is gone")
	errTaken     = errors.New("another process has the index and does not answer")
	errNoRoom    = errors.New("no room for the index")
)

// contentIndex is the index, or the lack of one.
type contentIndex struct {
	s    *Store
	dir  string
	wg   sync.WaitGroup
	stop chan struct{} // closed to end the work in the background
	// wait and closeWait are indexWait and closeWait; tests have more patience.
	wait, closeWait time.Duration

	mu       sync.Mutex
	opening  chan struct{} // closed when the opening under way, or the last one, is over; nil before the first
	patience time.Time     // until when the first opening is waited for
	pause    time.Time     // until when no other opening begins
	table    table
	off      bool // something went wrong: not asked again
	discard  bool // it was wrong in itself: removed on close
	closed   bool
	pending  map[string][]byte // not written yet; nil value: to be deleted
	flushing map[string][]byte // being written
}

func newContentIndex(s *Store) *contentIndex {
	return &contentIndex{s: s, dir: s.path("index"), pending: map[string][]byte{}, stop: make(chan struct{}), wait: indexWait, closeWait: closeWait}
}

// get returns the table, or nil where there is none (yet). The first call opens
// it; all calls together wait for that no longer than indexWait.
func (x *contentIndex) get() table {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.off || x.closed {
		return nil
	}
	if x.table == nil {
		x.begin()
		x.await()
	}
	if x.off || x.closed {
		return nil
	}
	return x.table
}

// begin starts to open the index, unless that is under way or has just failed.
// x.mu is held.
func (x *contentIndex) begin() {
	now := time.Now()
	if x.opening != nil {
		select {
		case <-x.opening:
		default:
			return
		}
		if now.Before(x.pause) {
			return
		}
	} else {
		x.patience = now.Add(x.wait)
	}
	opening := make(chan struct{})
	x.opening, x.pause = opening, now.Add(indexPause)
	x.wg.Go(func() { x.open(opening) })
}

// await waits for the first opening as long as patience lasts. x.mu is held, and
// released meanwhile.
func (x *contentIndex) await() {
	opening, wait := x.opening, time.Until(x.patience)
	if wait <= 0 {
		return
	}
	x.mu.Unlock()
	defer x.mu.Lock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-opening:
	case <-timer.C:
	}
}

// open has the index, throwing a damaged one away and filling a new one, or finds
// the process that has it.
func (x *contentIndex) open(opening chan struct{}) {
	t, own, err := x.openTable()
	x.mu.Lock()
	// Who does not answer may do so later, or end; whatever else is wrong stays wrong.
	x.table, x.off = t, x.off || err != nil && !errors.Is(err, errTaken)
	x.mu.Unlock()
	close(opening)
	if own != nil {
		x.rebuild(own)
	}
}

// openTable returns the table, and as own the same where it is this process's.
func (x *contentIndex) openTable() (_ table, own *badgerTable, err error) {
	if !x.room() {
		return nil, nil, errNoRoom
	}
	for deadline := time.Now().Add(x.wait); ; {
		unlock, err := lockFile(x.s.path("tmp", "locks", "index"), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			t, err := x.openOwn(unlock)
			if err != nil {
				unlock()
				return nil, nil, err
			}
			return t, t, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil, err
		}
		if t := dialIndex(x.s.path("tmp", "locks"), x.wait); t != nil {
			return t, nil, nil
		}
		// It opens the index just now, or closes it.
		if time.Now().After(deadline) || !x.sleep(indexWait/25) {
			return nil, nil, errTaken
		}
	}
}

// openOwn opens Badger under the lock and answers for it at the socket.
func (x *contentIndex) openOwn(unlock func()) (*badgerTable, error) {
	sums, err := takeSums(x.dir)
	t := &badgerTable{x: x, sums: sums, unlock: unlock}
	if err == nil {
		t.db, err = openBadger(x.dir)
	}
	if err != nil {
		t.sums = nil
		if err = os.RemoveAll(x.dir); err == nil {
			t.db, err = openBadger(x.dir)
		}
	}
	if err != nil {
		return nil, err
	}
	t.server = serveIndex(x.s.path("tmp", "locks"), x)
	return t, nil
}

// sleep reports whether the index is still wanted after d.
func (x *contentIndex) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-x.stop:
		return false
	case <-timer.C:
		return true
	}
}

func (x *contentIndex) room() bool {
	var st unix.Statfs_t
	return unix.Statfs(x.s.dir, &st) == nil && st.Bavail*uint64(st.Bsize) > indexRoom
}

// find returns the value of a key; in doubt there is none.
func (x *contentIndex) find(key string) ([]byte, bool) {
	t := x.get()
	if t == nil {
		return nil, false
	}
	if data, ok := x.gathered(key); ok {
		return data, data != nil
	}
	data, err := x.ask(t, key)
	switch {
	case err == nil:
		return data, true
	case errors.Is(err, errNoEntry):
	case errors.Is(err, errTableGone):
		x.lost(t)
	case errors.Is(err, context.DeadlineExceeded):
		x.fail(false)
	default:
		x.fail(true)
	}
	return nil, false
}

// gathered returns what is to become of a key; nil data: it goes.
func (x *contentIndex) gathered(key string) (data []byte, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	data, ok = x.pending[key]
	if !ok {
		data, ok = x.flushing[key]
	}
	return data, ok
}

// ask reads a value, waiting no longer than indexWait.
func (x *contentIndex) ask(t table, key string) ([]byte, error) {
	type answer struct {
		value []byte
		err   error
	}
	done := make(chan answer, 1)
	ok := x.spawn(func() {
		var a answer
		a.value, a.err = t.get(key)
		done <- a
	})
	if !ok {
		return nil, errNoEntry
	}
	timer := time.NewTimer(x.wait)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.value, a.err
	case <-timer.C:
		return nil, context.DeadlineExceeded
	}
}

// set gathers an entry, nil to delete it, and starts writing when enough have
// come together. It never waits for the disk.
func (x *contentIndex) set(key string, data []byte) {
	t := x.get()
	x.mu.Lock()
	defer x.mu.Unlock()
	if t == nil || x.off || x.closed || len(x.pending) >= dropAt {
		return
	}
	x.pending[key] = data
	if len(x.pending) < flushAt || x.flushing != nil {
		return
	}
	x.flushing, x.pending = x.pending, map[string][]byte{}
	x.wg.Go(func() { x.flush(t) })
}

// flush writes what stands in x.flushing.
func (x *contentIndex) flush(t table) {
	x.write(t, x.flushing)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flushing = nil
}

// write puts entries into the table and turns the index off where that fails.
func (x *contentIndex) write(t table, entries map[string][]byte) {
	if !x.room() {
		x.fail(false)
		return
	}
	switch err := t.put(entries); {
	case errors.Is(err, errTableGone):
		x.lost(t)
	case errors.Is(err, context.DeadlineExceeded):
		x.fail(false)
	case err != nil:
		x.fail(true)
	}
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

// lost drops a table whose process is gone, and looks for the next one at once.
func (x *contentIndex) lost(t table) {
	t.close(false)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.table != t || x.closed {
		return
	}
	x.table, x.pause = nil, time.Time{}
	x.begin()
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
	used := x.opening != nil
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
	timer := time.NewTimer(x.closeWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// shut is the end of what is in the background: nobody else has x any more.
func (x *contentIndex) shut() {
	if x.table == nil {
		return
	}
	if own, ok := x.table.(*badgerTable); ok {
		own.server.close() // who has something to write has written it, or keeps it
	}
	if len(x.pending) > 0 && !x.off {
		x.flushing = x.pending
		x.flush(x.table)
	}
	if x.table != nil { // it is not lost
		x.table.close(!x.discard)
	}
}

// stopped reports whether the work in the background shall end.
func (x *contentIndex) stopped() bool {
	select {
	case <-x.stop:
		return true
	default:
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.off
}

// rebuild reads every layer index of the store into a new index. It is done when
// the mark is written; until then the next process starts it again.
func (x *contentIndex) rebuild(t *badgerTable) {
	if _, err := t.get(builtKey); err == nil {
		return
	}
	for name := range x.s.recordFiles(kindLayer) {
		if x.stopped() {
			return
		}
		if cs, err := readLayer(name); err == nil {
			x.write(t, layerEntries(cs))
		}
	}
	if x.stopped() {
		return
	}
	x.write(t, map[string][]byte{builtKey: {'1'}})
}

// recovered makes a panic over damaged files an error.
func recovered(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s index: %v", what, p)
	}
}

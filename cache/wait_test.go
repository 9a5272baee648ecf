package cache

import (
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// LAWS 30: an index that does not open in time is gone without.
func TestIndexThatDoesNotOpen(t *testing.T) {
	s := open(t, t.TempDir())
	n := putPack(t, s, []byte("contents"))
	s.index.opening, s.index.patience = make(chan struct{}), time.Now().Add(indexWait) // and nobody opens it
	s.AddContent(n.Digest, n.Extents)
	if _, ok := s.FindContent(n.Digest, n.Size); ok {
		t.Error("got ok from an index that is not open")
	}
}

// LAWS 30: an index that does not answer in time is not asked again.
func TestIndexThatDoesNotAnswer(t *testing.T) {
	s := open(t, t.TempDir())
	n := putPack(t, s, []byte("contents"))
	s.AddContent(n.Digest, n.Extents)
	if !find(t, s, n) {
		t.Fatal("not found before")
	}
	s = reopen(t, s) // what was added is in Badger now, and must be asked for
	own, ok := s.index.get().(*badgerTable)
	if !ok {
		t.Fatal("no index")
	}
	unlock := stall(own.db)
	defer unlock()
	s.index.wait, s.index.closeWait = indexWait, closeWait
	for range 3 {
		if _, ok := s.FindContent(n.Digest, n.Size); ok {
			t.Error("got ok from an index that hangs")
		}
	}
	if s.index.get() != nil {
		t.Error("the index that hangs is asked again")
	}
}

// stall holds the lock that every reader of Badger takes.
func stall(db *badger.DB) (unlock func()) {
	f := reflect.ValueOf(db).Elem().FieldByName("lock")
	mu := (*sync.RWMutex)(unsafe.Pointer(f.UnsafeAddr()))
	mu.Lock()
	return mu.Unlock
}

// LAWS 30: an index that was not closed in order, or whose files are not those
// that were closed, is not believed: Badger panics over some of them on
// goroutines of its own.
func TestIndexNotClosedInOrder(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(dir string) error
		want  bool
	}{
		{"closed in order", func(string) error { return nil }, true},
		{"no sums", func(dir string) error { return os.Remove(filepath.Join(dir, sumsName)) }, false},
		{"sums changed", func(dir string) error { return appendByte(filepath.Join(dir, sumsName)) }, false},
		{"a file more", func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o600) }, false},
		{"another manifest", func(dir string) error { return appendByte(filepath.Join(dir, "MANIFEST")) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			n := putPack(t, s, []byte("contents")) // in no layer: only the index knows it
			s.AddContent(n.Digest, n.Extents)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(s.index.dir); err != nil {
				t.Fatal(err)
			}
			s = open(t, s.Dir())
			if s.index.get() == nil {
				t.Fatal("no index")
			}
			if _, ok := s.FindContent(n.Digest, n.Size); ok != tt.want {
				t.Errorf("found: got %v, want %v", ok, tt.want)
			}
		})
	}
}

func appendByte(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(data, 'x'), 0o600)
}

// LAWS 31: file systems on which the probes would pass but mean nothing are
// refused by their kind, without being tried.
func TestOpenRefusesKnownFileSystems(t *testing.T) {
	for _, magic := range []uint32{unix.NFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC} {
		if refused[magic] == "" {
			t.Errorf("file system %#x: got none, want it refused", magic)
		}
	}
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	refused[uint32(st.Type)] = "a test"
	defer delete(refused, uint32(st.Type))
	if err := create(filepath.Join(dir, "store")); err == nil {
		t.Error("open on a refused file system: got no error")
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "store")); len(entries) > 0 {
		t.Errorf("store: got %d entries, want none", len(entries))
	}
}

package fusefs

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// BenchmarkTreeAfter is the end of a RUN that wrote 30,000 files, from the last answer to the changes.
func BenchmarkTreeAfter(b *testing.B) {
	s := changed(b, 30000)
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.collect(nil)
		if err != nil {
			b.Fatal(err)
		}
		if c.live != 3000000 {
			b.Fatal("bytes are missing")
		}
		if err := recorder.SendChanges(func(tree.Piece) error { return nil }, c.count, c.each); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMemoryOfChangedFiles bounds what 100,000 files of a step take.
func TestMemoryOfChangedFiles(t *testing.T) {
	inUse := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := inUse()
	s := changed(t, 100000)
	const most = 80 << 20
	if got := inUse() - before; got > most {
		t.Errorf("100,000 changed files: got %d MiB, want at most %d", got>>20, most>>20)
	} else {
		t.Logf("100,000 changed files: %d MiB", got>>20)
	}
	runtime.KeepAlive(s)
}

// changed is a step that wrote n small files, 20 to a directory, without a mount.
func changed(t testing.TB, n int) *step {
	t.Helper()
	p, err := pack.Create(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	packs := pack.NewSet(t.TempDir())
	t.Cleanup(func() {
		p.Abort()
		if err := packs.Close(); err != nil {
			t.Error(err)
		}
	})
	s := newStep(tree.Empty(), packs, newSpool(p))
	var dir uint64
	for i := range n {
		if i%20 == 0 {
			var out fuse.EntryOut
			in := fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Mode: 0o755}
			if st := s.Mkdir(nil, &in, fmt.Sprint("directory", i/20), &out); st != fuse.OK {
				t.Fatal(st)
			}
			dir = out.NodeId
		}
		var out fuse.CreateOut
		in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: dir}, Mode: 0o644}
		if st := s.Create(nil, &in, fmt.Sprint("file", i), &out); st != fuse.OK {
			t.Fatal(st)
		}
		write := fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}}
		if _, st := s.Write(nil, &write, make([]byte, 100)); st != fuse.OK {
			t.Fatal(st)
		}
	}
	return s
}

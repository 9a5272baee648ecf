package fusefs

import (
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// BenchmarkTreeAfter is the end of a RUN that wrote 30,000 files, from the last answer to the changes.
func BenchmarkTreeAfter(b *testing.B) {
	p, err := pack.Create(b.TempDir(), "spool")
	if err != nil {
		b.Fatal(err)
	}
	defer p.Abort()
	packs := pack.NewSet(b.TempDir())
	defer packs.Close()
	s := newStep(tree.Empty(), packs, newSpool(p))
	var dir uint64
	for i := range 30000 {
		if i%20 == 0 {
			var out fuse.EntryOut
			in := fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Mode: 0o755}
			if st := s.Mkdir(nil, &in, fmt.Sprint("directory", i/20), &out); st != fuse.OK {
				b.Fatal(st)
			}
			dir = out.NodeId
		}
		var out fuse.CreateOut
		in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: dir}, Mode: 0o644}
		if st := s.Create(nil, &in, fmt.Sprint("file", i), &out); st != fuse.OK {
			b.Fatal(st)
		}
		write := fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}}
		if _, st := s.Write(nil, &write, make([]byte, 100)); st != fuse.OK {
			b.Fatal(st)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		child, _, err := s.result()
		if err != nil {
			b.Fatal(err)
		}
		cs, err := tree.Diff(s.parent, child, s.sameContent)
		if err != nil {
			b.Fatal(err)
		}
		truncateTimes(cs)
		if liveBytes(cs, p.ID()) != 3000000 {
			b.Fatal("bytes are missing")
		}
		_ = tree.Encode(cs)
	}
}

package fusefs

import (
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// TestLateReadAtTheEnd: a READ of contents that are still being fetched when its program is gone is waited for, however
// slow the registry is: it is not the kernel that keeps the root. LAWS 12.
func TestLateReadAtTheEnd(t *testing.T) {
	w := newWorld(t)
	const size = 10000
	p, _, err := pack.CreateLazy(w.packs.Dir(), size, "")
	if err != nil {
		t.Fatal(err)
	}
	off := pack.LazyStart(size)
	id := p.ID()
	asked, come := make(chan struct{}, 100), make(chan struct{})
	w.b.(recorder.Filler).FillWith(func(id tree.PackID, _, _ int64) error {
		asked <- struct{}{}
		<-come
		f, err := pack.OpenLazy(w.packs.Dir(), id)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if _, err := f.WriteAt([]byte(strings.Repeat("x", size)), off); err != nil {
			return err
		}
		return f.Mark(off, size)
	})
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	n := &tree.Node{Kind: tree.File, Mode: 0o644, Size: size, Extents: []tree.Extent{{Pack: id, Off: off, Len: size}}}
	r := w.mount(nil, w.layer(tree.Changes{{Path: "f", Node: n}}))
	s := w.b.(*backend).steps[r.id]
	if out, err := r.try(`python3 -c 'import os; os.posix_fadvise(os.open("f", 0), 0, 0, os.POSIX_FADV_WILLNEED)'`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	<-asked
	times := 0
	s.patience = func() time.Duration { // the READ is answered in the fourth span of time
		if times++; times < 4 {
			return time.Millisecond
		} else if times == 4 {
			close(come)
		}
		return detachTime
	}
	expect(t, r.finish(), "")
}

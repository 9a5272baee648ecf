package fusefs

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// lazyWorld is a world whose parent has one file of a lazy pack, f, and what fills it.
func lazyWorld(t *testing.T, fill func(l *pack.Lazy, off int64) error) (*world, string) {
	t.Helper()
	w := newWorld(t)
	p, _, err := pack.CreateLazy(w.packs.Dir(), 2*pack.LazyBlock, "boot")
	if err == nil {
		err = p.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := pack.OpenLazy(w.packs.Dir(), p.ID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	start := pack.LazyStart(2 * pack.LazyBlock)
	f, ok := w.b.(recorder.Filler)
	if !ok {
		t.Fatal("the recorder takes no contents that come later")
	}
	f.FillWith(func(id tree.PackID, off, _ int64) error {
		if id != p.ID() {
			t.Errorf("asked for pack %s", id)
		}
		return fill(l, off)
	})
	layer := w.layer(tree.Changes{
		{Path: "f", Node: &tree.Node{Kind: tree.File, Mode: 0o644, Size: 5, Extents: []tree.Extent{{Pack: p.ID(), Off: start, Len: 5}}}},
		{Path: "g", Node: w.file(0o644, "here\n")},
	})
	return w, layer
}

// While one READ waits for contents, everything else is answered, by one worker as well.
func TestReadWaitsAlone(t *testing.T) {
	asked, hold := make(chan struct{}, 1), make(chan struct{})
	w, layer := lazyWorld(t, func(l *pack.Lazy, off int64) error {
		asked <- struct{}{}
		<-hold
		if _, err := l.WriteAt([]byte("late\n"), off); err != nil {
			return err
		}
		return l.Mark(off, 5)
	})
	r := w.mount(nil, layer)
	read := make(chan string, 1)
	go func() { out, _ := r.try("cat f"); read <- out }()
	<-asked
	if out, err := r.try("cat g; ls; stat -c %s f; echo new > h"); err != nil || !strings.Contains(out, "here") {
		t.Errorf("beside a READ that waits: got %v, %q", err, out)
	}
	select {
	case out := <-read:
		t.Errorf("the READ did not wait: %q", out)
	default:
	}
	close(hold)
	if out := <-read; !strings.HasPrefix(out, "late\n") {
		t.Errorf("the READ that waited: got %q, want late", out)
	}
	if _, err := w.b.Finish(context.Background(), r.id); err != nil {
		t.Error(err)
	}
}

// Contents that cannot be had are EIO, never zeros, and fail the step.
func TestReadNeverComes(t *testing.T) {
	w, layer := lazyWorld(t, func(*pack.Lazy, int64) error { return errors.New("no network") })
	r := w.mount(nil, layer)
	if out, err := r.try("cat f"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("read: got %v, %q, want EIO", err, out)
	}
	if _, err := w.b.Finish(context.Background(), r.id); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("finish: got %v, want the reason", err)
	}
}

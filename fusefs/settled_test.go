package fusefs

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/fbuild/fbuild/tree"
)

// settledSoon asks until a file is named: its bytes are written out by another thread.
func settledSoon(t *testing.T, s *step, now tree.Time) [][]tree.Extent {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got := s.settled(64<<10, 10, now); len(got) > 0 {
			return got
		}
	}
	t.Fatal("no file is done")
	return nil
}

// What a step wrote and left alone is named once, with where its bytes are.
func TestSettledFiles(t *testing.T) {
	w := newWorld(t)
	w.b.(*backend).opts.core = coreNever // each who serves has room in memory of its own, which only it fills
	r := w.mount(nil, w.parent())
	s := w.b.(*backend).steps[r.id]
	late := tree.Time{Sec: time.Now().Unix() + 1000}
	if got := s.settled(64<<10, 10, late); got != nil {
		t.Errorf("at first: got %v, want nothing", got)
	}
	r.sh(`yes some words | head -c 200000 >large
yes few | head -c 60000 >small
cp large gone; rm gone
yes holes | head -c 70000 >sparse; truncate -s 200000 sparse`)
	if got := s.settled(64<<10, 10, tree.Time{}); got != nil {
		t.Errorf("just written: got %v, want nothing", got)
	}
	if s.settling.busy.Load() {
		t.Error("nothing was given out, and somebody is said to work")
	}
	r.sh(`head -c 20000000 /dev/zero >push; rm push`) // what was in memory is written out
	got := settledSoon(t, s, late)
	if len(got) != 1 {
		t.Fatalf("got %v, want one file", got)
	}
	if !s.settling.busy.Load() {
		t.Error("a file was given out, and nobody is said to work")
	}
	pack, err := os.ReadFile(s.spool.f.Name())
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, x := range got[0] {
		text = append(text, pack[x.Off:x.Off+x.Len]...)
	}
	want := bytes.Repeat([]byte("some words\n"), 20000)[:200000]
	if !bytes.Equal(text, want) {
		t.Errorf("got %d bytes that are not those of the file", len(text))
	}
	r.sh(`echo more >>large`)
	if got := s.settled(64<<10, 10, late); got != nil {
		t.Errorf("again: got %v, want nothing", got)
	}
	if s.settling.busy.Load() {
		t.Error("asked again, somebody is still said to work")
	}
	r.finish()
	if got := w.b.(*backend).Settled(r.id, 1, 10); got != nil {
		t.Errorf("of a step that is over: got %v, want nothing", got)
	}
}

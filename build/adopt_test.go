package build

import (
	"testing"
	"time"

	"github.com/fbuild/fbuild/cache"
)

// LAWS 32: of two builds with one key one runs the step; the other waits for it
// and adopts its result.
func TestResultOfAnotherBuildIsAdopted(t *testing.T) {
	w := newWorld(t)
	other, err := cache.Open(t.Context(), w.store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}()
	first, second := w.builder(), w.builder()
	second.store = other
	key, below := newKey("test").sum(), &fsState{}
	_, unlock, err := first.reuse(t.Context(), key, below)
	if err != nil || unlock == nil {
		t.Fatalf("first build: got unlock %v, error %v, want to run the step", unlock != nil, err)
	}
	type answer struct {
		runs bool
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		_, unlock, err := second.reuse(t.Context(), key, below)
		if unlock != nil {
			unlock()
		}
		done <- answer{unlock != nil, err}
	}()
	select {
	case a := <-done:
		t.Errorf("second build did not wait: runs %v, error %v", a.runs, a.err)
		done <- a
	case <-time.After(100 * time.Millisecond):
	}
	if err := first.remember(t.Context(), key, below, stepRecord{Created: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	unlock()
	if a := <-done; a.runs || a.err != nil {
		t.Errorf("second build: runs the step %v, error %v, want it to adopt the result", a.runs, a.err)
	}
}

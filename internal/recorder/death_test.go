package recorder

import (
	"encoding/gob"
	"errors"
	"math"
	"net"
	"runtime/debug"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/testenv"
)

// LAWS 20: who waits for an answer of a recorder that dies gets an error, and so
// does everybody after him.
func TestDeathEndsEveryCall(t *testing.T) {
	ours, theirs := net.Pipe()
	c := NewClient(ours, nil)
	done := make(chan error, 1)
	go func() {
		_, err := c.Finish(t.Context(), "step")
		done <- err
	}()
	var req request
	if err := gob.NewDecoder(theirs).Decode(&req); err != nil { // the call is under way
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, ErrDied) {
			t.Errorf("call under way: got %v, want ErrDied", err)
		}
	case <-time.After(testenv.Patience):
		t.Fatal("call under way: no answer")
	}
	<-c.Dead()
	if _, err := c.Mount(t.Context(), Spec{}); !errors.Is(err, ErrDied) {
		t.Errorf("call after death: got %v, want ErrDied", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// The collector rests while a step ends, and works again, with what was set before,
// when the last of them is over.
func TestCollectorRestsWhileStepsEnd(t *testing.T) {
	before := debug.SetGCPercent(73)
	defer debug.SetGCPercent(before)
	var c collector
	c.pause()
	c.pause()
	c.resume()
	if got := percent(); got != -1 {
		t.Errorf("while one step ends: got %d%%, want -1", got)
	}
	c.resume()
	if got := percent(); got != 73 {
		t.Errorf("after all: got %d%%, want 73", got)
	}
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("memory limit: got %d, want none", got)
	}
}

func percent() int {
	p := debug.SetGCPercent(-1)
	debug.SetGCPercent(p)
	return p
}

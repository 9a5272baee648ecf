package recorder

import (
	"encoding/gob"
	"errors"
	"net"
	"testing"
	"time"
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
	case <-time.After(5 * time.Second):
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

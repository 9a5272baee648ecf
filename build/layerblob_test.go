package build

import (
	"bytes"
	"context"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Who asks for a blob that is on its way to its name waits for it, and does not fetch it
// once more; an interrupted build does not wait.
func TestBlobOnItsWay(t *testing.T) {
	w := newWorld(t)
	b := &builder{store: w.store, family: newFamily()}
	data := []byte("a layer")
	h, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	stored := b.family.storing(h)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if b.hasBlob(ended, h) {
		t.Error("interrupted: got a blob")
	}
	got := make(chan bool)
	go func() { got <- b.hasBlob(t.Context(), h) }()
	if _, err := w.store.PutBlob(bytes.NewReader(data), ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
		t.Error("answered before the blob was stored")
	default:
	}
	stored()
	if !<-got {
		t.Error("after it was stored: got none")
	}
}

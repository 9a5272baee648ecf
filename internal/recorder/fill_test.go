package recorder

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// reader is a backend whose Mount needs bytes that are not here.
type reader struct {
	Backend
	fill pack.Filler
}

func (r *reader) FillWith(fill pack.Filler) { r.fill = fill }

func (r *reader) Mount(_ context.Context, spec Spec) (string, error) {
	return "/root", r.fill(tree.PackID(spec.ID), 4096, 10)
}

func (r *reader) Close() error { return nil }

// A recorder gets contents from the build, and its words where that fails; calls and
// questions do not wait for each other.
func TestFill(t *testing.T) {
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), theirs, &reader{}) }()
	hold := make(chan struct{})
	c := NewClient(ours, func(id tree.PackID, off, n int64) error {
		switch {
		case off != 4096 || n != 10:
			return errors.New("another place")
		case id == "slow":
			<-hold
		case id == "bad":
			return errors.New("no network")
		}
		return nil
	})
	slow := make(chan error, 1)
	go func() {
		_, err := c.Mount(t.Context(), Spec{ID: "slow"})
		slow <- err
	}()
	if _, err := c.Mount(t.Context(), Spec{ID: "good"}); err != nil {
		t.Errorf("beside one that waits: %v", err)
	}
	if _, err := c.Mount(t.Context(), Spec{ID: "bad"}); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("fetching fails: got %v, want its words", err)
	}
	close(hold)
	if err := <-slow; err != nil {
		t.Errorf("slow: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// LAWS 20: a build that ends leaves no recorder waiting for contents.
func TestFillEndsWithTheBuild(t *testing.T) {
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), theirs, &reader{}) }()
	asked := make(chan struct{})
	hold := make(chan struct{})
	c := NewClient(ours, func(tree.PackID, int64, int64) error { close(asked); <-hold; return nil })
	go func() {
		_, _ = c.Mount(t.Context(), Spec{ID: "x"}) // it ends with the conversation
		close(hold)
	}()
	<-asked // Close waits for questions under way
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

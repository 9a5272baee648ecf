package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// teller is a backend that tells what a test says, and whose Abort does nothing.
type teller struct {
	Backend
	tell func(ctx context.Context, to Sink) (Result, error)
}

func (b *teller) FinishTo(ctx context.Context, _ string, to Sink) (Result, error) {
	return b.tell(ctx, to)
}
func (b *teller) Abort(string) error { return nil }
func (b *teller) Close() error       { return nil }

// told starts a recorder and returns its client.
func told(t *testing.T, tell func(ctx context.Context, to Sink) (Result, error)) (*Client, io.Closer) {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), theirs, &teller{tell: tell}) }()
	c := NewClient(ours, nil)
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
	return c, theirs
}

// manyChanges are more than a few pieces.
func manyChanges() tree.Changes {
	cs := tree.Changes{{Path: "d", Node: &tree.Node{Kind: tree.Dir, Mode: 0o755}}}
	for k := range 10000 {
		cs = append(cs, tree.Change{Path: fmt.Sprintf("d/%05d", k), Node: &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: "target", Size: 6}})
	}
	return cs
}

// The tree is there when the step is known to be good, before its questions are.
func TestTreeComesBeforeQuestions(t *testing.T) {
	cs, hold := manyChanges(), make(chan struct{})
	pieces := 0
	c, _ := told(t, func(_ context.Context, to Sink) (Result, error) {
		// What is taken back does not count.
		err := errors.Join(SendChanges(to.Piece, 0, Each(cs[:3])), to.Again())
		if err != nil {
			return Result{}, err
		}
		err = SendChanges(func(p tree.Piece) error { pieces++; return to.Piece(p) }, len(cs), Each(cs))
		if err == nil {
			err = to.Whole(Result{Pack: "spool-1", Notes: []string{"note"}})
		}
		<-hold
		return Result{Questions: []trace.Question{{Path: "d", Kind: trace.Entry}}, Doubt: "why"}, err
	})
	end, err := c.FinishOn(t.Context(), "step", tree.Empty())
	if err != nil {
		t.Fatal(err)
	}
	if pieces < 4 {
		t.Errorf("got %d pieces: nothing is told while the rest is found out", pieces)
	}
	if got, want := string(tree.Encode(end.Result.Changes)), string(tree.Encode(cs)); got != want {
		t.Error("the changes are others")
	}
	if n := end.After.Lookup("d/09999"); n == nil || n.Target != "target" || len(end.After.Lookup("d").Names()) != 10000 {
		t.Error("the tree after lacks something")
	}
	if end.Result.Pack != "spool-1" || len(end.Result.Notes) != 1 {
		t.Errorf("got %v, want pack and note", end.Result)
	}
	close(hold)
	asked, doubt, err := end.Questions(t.Context())
	if err != nil || len(asked) != 1 || doubt != "why" {
		t.Errorf("questions: got %v, %q, %v", asked, doubt, err)
	}
}

// LAWS 12, 17, 20: of a step that fails while its changes are told nothing is used.
func TestHalfAResultIsNone(t *testing.T) {
	var cut io.Closer
	some := func(to Sink) error { return SendChanges(to.Piece, 6000, Each(manyChanges()[:6000])) }
	for name, tt := range map[string]struct {
		tell func(context.Context, Sink) (Result, error)
		want string
	}{
		"a late error": {func(_ context.Context, to Sink) (Result, error) {
			return Result{}, errors.Join(some(to), errors.New("write spool: no space left"))
		}, "no space left"},
		"death": {func(_ context.Context, to Sink) (Result, error) {
			return Result{}, errors.Join(some(to), cut.Close())
		}, ErrDied.Error()},
		"no end": {func(_ context.Context, to Sink) (Result, error) { return Result{}, some(to) }, "no end"},
		"nonsense": {func(_ context.Context, to Sink) (Result, error) {
			return Result{}, errors.Join(to.Piece(tree.Piece{Data: []byte{0, 1, 'b', 0}}), to.Piece(tree.Piece{Data: []byte{0, 1, 'a', 0}}), to.Whole(Result{}))
		}, tree.ErrCorrupt.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			var c *Client
			c, cut = told(t, tt.tell)
			if end, err := c.FinishOn(t.Context(), "step", tree.Empty()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got a result: %v, and %v, want %q", end != nil, err, tt.want)
			}
		})
	}
}

// A recorder that says too much of one step is not listened to, and one whose listener
// left goes on with others.
func TestTooMuchAndNobodyThere(t *testing.T) {
	c, _ := told(t, func(_ context.Context, to Sink) (Result, error) {
		for range 100 {
			if err := SendChanges(to.Piece, 1000, Each(manyChanges()[:1000])); err != nil {
				return Result{}, err
			}
		}
		return Result{}, to.Whole(Result{})
	})
	c.most = 10000
	if _, err := c.FinishOn(t.Context(), "step", tree.Empty()); err == nil || !strings.Contains(err.Error(), "more than 10000 bytes") {
		t.Errorf("too much: got %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.FinishOn(gone, "step", tree.Empty()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if err := c.Abort(t.Context(), "other"); err != nil {
		t.Errorf("after those: %v", err)
	}
}

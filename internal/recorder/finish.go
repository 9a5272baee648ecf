package recorder

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// finish is FinishTo of any backend.
func finish(ctx context.Context, b Backend, id string, to Sink) (Result, error) {
	if s, ok := b.(Streamer); ok {
		return s.FinishTo(ctx, id, to)
	}
	res, err := b.Finish(ctx, id)
	if err != nil {
		return res, err
	}
	if err := SendChanges(to.Piece, len(res.Changes), Each(res.Changes)); err != nil {
		return res, err
	}
	return res, to.Whole(res)
}

// pieceSize is about how much is told at a time: little waits for the first, and the
// memory of one is used again for the next.
const pieceSize = 32 << 10

// SendChanges encodes what each calls with, count changes in order, and gives it to a sink
// piece by piece. shared says that a node stands in several.
func SendChanges(to func(tree.Piece) error, count int, each func(add func(path string, n *tree.Node, shared bool) error) error) error {
	s := NewSender(to, count)
	if err := each(s.Add); err != nil {
		return err
	}
	return s.End()
}

// Sender encodes changes and gives them to a sink piece by piece.
type Sender struct {
	p  *tree.Pieces
	to func(tree.Piece) error
}

// NewSender returns a sender of about count changes.
func NewSender(to func(tree.Piece) error, count int) *Sender {
	return &Sender{p: tree.NewPieces(count, pieceSize+4<<10), to: to}
}

// Add adds a change, as tree.Pieces.Add does.
func (s *Sender) Add(path string, n *tree.Node, shared bool) error {
	s.p.Add(path, n, shared)
	if s.p.Len() < pieceSize {
		return nil
	}
	return s.to(s.p.Take())
}

// End sends what is left.
func (s *Sender) End() error {
	if s.p.Len() == 0 {
		return nil
	}
	return s.to(s.p.Take())
}

// Each calls with changes that are all known.
func Each(cs tree.Changes) func(add func(path string, n *tree.Node, shared bool) error) error {
	return func(add func(string, *tree.Node, bool) error) error {
		for k := range cs {
			if err := add(cs[k].Path, cs[k].Node, true); err != nil {
				return err
			}
		}
		return nil
	}
}

// maxChanges bounds what a recorder may say of one step.
const maxChanges = 1 << 30

// Finish is Backend.Finish.
func (c *Client) Finish(ctx context.Context, id string) (Result, error) {
	end, err := c.finish(ctx, id, tree.Gather)
	if err != nil {
		return Result{}, err
	}
	end.Result.Questions, end.Result.Doubt, err = end.Questions(ctx)
	return end.Result, err
}

// FinishOn is Finish of a step whose parent tree is t. It returns as soon as the tree after
// is known.
func (c *Client) FinishOn(ctx context.Context, id string, t tree.Tree) (*End, error) {
	return c.finish(ctx, id, t.Grow)
}

// End is what is known of a step, but for its questions, which come later.
type End struct {
	Result Result    // without questions and doubt
	After  tree.Tree // of FinishOn
	w      *waiting
}

// finish collects the changes. What has come of a step that fails is dropped.
func (c *Client) finish(ctx context.Context, id string, begin func() *tree.Growing) (_ *End, err error) {
	g := begin()
	w, err := c.ask(request{Op: "finish", ID: id})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			close(w.gone)
		}
	}()
	rest := sync.OnceFunc(resting.pause) // but not while the command's last writes are waited for
	defer func() {
		rest()
		resting.resume()
	}()
	for size := 0; ; {
		resp, err := w.next(ctx)
		rest()
		switch {
		case err != nil:
			return nil, err
		case !resp.More:
			return nil, errors.New("read changes from recorder: they have no end")
		case resp.Again:
			g = begin()
			continue
		case resp.Piece == nil:
			end := &End{Result: Result{Pack: resp.Pack, Notes: resp.Notes}, w: w}
			if end.Result.Changes, end.After, err = g.End(); err != nil {
				return nil, fmt.Errorf("read changes from recorder: %w", err)
			}
			return end, nil
		}
		if size += len(resp.Piece.Data); size > c.most {
			return nil, fmt.Errorf("read changes from recorder: more than %d bytes", c.most)
		}
		if err := g.Add(*resp.Piece); err != nil {
			return nil, fmt.Errorf("read changes from recorder: %w", err)
		}
	}
}

// Questions waits for what the step asked, and why that may not be all: Result.Questions
// and Result.Doubt. It is called once.
func (e *End) Questions(ctx context.Context) ([]trace.Question, string, error) {
	resp, err := e.w.next(ctx)
	if err != nil {
		return nil, "", err
	}
	if len(resp.Asked) == 0 {
		return nil, resp.Doubt, nil
	}
	asked, err := trace.DecodeQuestions(resp.Asked)
	if err != nil {
		return nil, "", fmt.Errorf("read questions from recorder: %w", err)
	}
	return asked, resp.Doubt, nil
}

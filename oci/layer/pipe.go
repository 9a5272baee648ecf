package layer

import (
	"context"
	"sync/atomic"
)

// chunk is a run of a stream that several goroutines read; the last of them
// gives it back.
type chunk struct {
	b    []byte
	n    int
	refs atomic.Int32
}

// pipe hands the chunks of one producer to each of its consumers, in order. It
// holds a fixed number of chunks, so the slowest consumer sets the pace.
type pipe struct {
	size int
	free chan *chunk
	outs []chan *chunk
}

func newPipe(chunks, size, consumers int) *pipe {
	p := &pipe{size: size, free: make(chan *chunk, chunks), outs: make([]chan *chunk, consumers)}
	for range chunks {
		p.free <- &chunk{}
	}
	for i := range p.outs {
		p.outs[i] = make(chan *chunk, chunks)
	}
	return p
}

// get returns an empty chunk.
func (p *pipe) get(ctx context.Context) (*chunk, error) {
	select {
	case c := <-p.free:
		if c.b == nil {
			c.b = make([]byte, p.size)
		}
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// put hands c to every consumer. There is room for all chunks in each channel.
func (p *pipe) put(c *chunk) {
	c.refs.Store(int32(len(p.outs)))
	for _, out := range p.outs {
		out <- c
	}
}

// close tells the consumers that the stream is complete. A producer that fails
// does not close: its error ends the context.
func (p *pipe) close() {
	for _, out := range p.outs {
		close(out)
	}
}

func (p *pipe) release(c *chunk) {
	if c != nil && c.refs.Add(-1) == 0 {
		p.free <- c
	}
}

// take returns the next chunk for consumer i, nil at the end of the stream.
func (p *pipe) take(ctx context.Context, i int) (*chunk, error) {
	select {
	case c := <-p.outs[i]:
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// each calls fn with every run of the stream for consumer i.
func (p *pipe) each(ctx context.Context, i int, fn func([]byte) error) error {
	for {
		c, err := p.take(ctx, i)
		if c == nil || err != nil {
			return err
		}
		err = fn(c.b[:c.n])
		p.release(c)
		if err != nil {
			return err
		}
	}
}

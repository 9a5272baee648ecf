package layer

import (
	"context"
	"runtime"
)

// maxWorkers bounds what is under way on machines with many cores: a worker with
// its buffers takes about 7 MiB.
const maxWorkers = 16

// Workers compress frames for any number of layers at once, with bounded memory:
// one for each core, 16 at most.
type Workers struct {
	idle chan *worker // one entry for each worker
	// slots hold frames that were dispatched and not written yet, groups the bytes
	// between large files. Both are buffers, nil until they are used for the first
	// time.
	slots, groups chan []byte
}

// worker is what one goroutine needs to compress. It keeps the encoder of the
// last codec.
type worker struct {
	block []byte
	codec string
	enc   encoder
}

// NewWorkers makes the workers that Seals of one process share.
func NewWorkers() *Workers {
	n := min(runtime.GOMAXPROCS(0), maxWorkers)
	w := &Workers{idle: make(chan *worker, n), slots: make(chan []byte, 2*n+2), groups: make(chan []byte, 2*n+2)}
	for range n {
		w.idle <- &worker{}
	}
	for range cap(w.slots) {
		w.slots <- nil
		w.groups <- nil
	}
	return w
}

// receive is a receive that ends with the context.
func receive[T any](ctx context.Context, c <-chan T) (T, error) {
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// send is a send that ends with the context.
func send[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

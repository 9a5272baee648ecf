package layer

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// maxWorkers bounds what is under way on machines with many cores.
	maxWorkers = 16
	// leastMemory and mostMemory bound each of the two sums of Workers: with the
	// largest blocks, those of zstd, 3 or 8 of each.
	leastMemory, mostMemory = 24 << 20, 64 << 20
)

// Workers compress frames for any number of layers at once, with bounded memory:
// one for each core, 16 at most.
type Workers struct {
	idle chan *worker // one entry for each worker
	// results bounds the bytes of frames that were dispatched and not written yet,
	// groups those between large files that wait for a worker.
	results, groups *semaphore.Weighted
	buffers         sync.Pool // *[]byte of any size
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
	memory := int64(min(max(leastMemory, (2*n+2)<<20), mostMemory))
	w := &Workers{idle: make(chan *worker, n), results: semaphore.NewWeighted(memory), groups: semaphore.NewWeighted(memory)}
	for range n {
		w.idle <- &worker{}
	}
	return w
}

// buffer returns an empty buffer with room for n bytes.
func (w *Workers) buffer(n int64) []byte {
	if b, ok := w.buffers.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return (*b)[:0]
	}
	return make([]byte, 0, n)
}

// recycle takes a buffer back.
func (w *Workers) recycle(b []byte) {
	if cap(b) > 0 {
		w.buffers.Put(&b)
	}
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

package layer

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// maxWorkers bounds what is under way on machines with many cores.
	maxWorkers = 16
	// leastMemory and mostMemory bound each of the two sums of Workers: with the
	// largest blocks, those of zstd, 3 or 8 of each.
	leastMemory, mostMemory = 30 << 20, 80 << 20
)

// Workers compress frames for any number of layers at once, with bounded memory:
// one for each core, 16 at most.
type Workers struct {
	idle chan *worker // one entry for each worker
	// results bounds the bytes of frames that were dispatched and not written yet,
	// groups those between large files that wait for a worker.
	results, groups *semaphore.Weighted

	mu      sync.Mutex
	users   int      // calls of Seal
	buffers [][]byte // that nobody uses; a pool of the runtime's would forget them under way
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

// begin says that a layer is being sealed. What it returns is called at its end, and
// the last one lets go of the memory.
func (w *Workers) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.users--; w.users > 0 {
			return
		}
		w.buffers = nil
	}
}

// buffer returns an empty buffer with room for n bytes.
func (w *Workers) buffer(n int64) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, b := range slices.Backward(w.buffers) {
		if int64(cap(b)) >= n {
			w.buffers = slices.Delete(w.buffers, i, i+1)
			return b[:0]
		}
	}
	w.buffers = nil // of another codec: they are too small, and would stay beside the new ones
	return make([]byte, 0, n)
}

// recycle takes a buffer back.
func (w *Workers) recycle(b []byte) {
	if cap(b) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buffers = append(w.buffers, b)
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

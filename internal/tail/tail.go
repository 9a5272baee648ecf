// Package tail keeps the end of what a child process printed, for the error that
// tells how it ended.
//
// Concurrency: a Buffer serves any number of goroutines.
package tail

import (
	"bytes"
	"sync"
)

// most is how much is kept, in bytes.
const most = 4 << 10

// Buffer is a writer that keeps the last of what was written.
type Buffer struct {
	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	b.buf = append(b.buf[:0], b.buf[max(0, len(b.buf)-most):]...)
	return len(p), nil
}

// String is the text without white space around it.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(bytes.TrimSpace(b.buf))
}

package recorder

import (
	"runtime"
	"runtime/debug"
	"sync"
)

// pauseRoom is how much memory may come before the collector works again.
const pauseRoom = 128 << 20

// resting is this process's: there is one garbage collector.
var resting collector

// collector keeps Go's garbage collector from working while a step ends: nearly all that
// it would look at is needed, and it would look at it with the processors that the
// changes wait for.
type collector struct {
	mu      sync.Mutex
	steps   int // that end at this moment
	percent int
	limit   int64
}

func (c *collector) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.steps++; c.steps > 1 {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.limit = debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(c.limit, int64(m.Sys-m.HeapReleased)+pauseRoom))
	c.percent = debug.SetGCPercent(-1)
}

func (c *collector) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.steps--; c.steps == 0 {
		debug.SetGCPercent(c.percent)
		debug.SetMemoryLimit(c.limit)
	}
}

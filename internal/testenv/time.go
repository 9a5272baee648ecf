package testenv

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a test waits for what must happen at some time: far longer than a machine that is busy with other things needs, far shorter than for ever.
const Patience = 2 * time.Minute

// Until waits for what must happen at some time.
func Until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got no %s in %v", what, Patience)
		}
	}
}

// Tick returns when a file that changes gets a later time than all that changed before: the clock of file times is a coarse one.
func Tick(t testing.TB) {
	t.Helper()
	now := time.Now()
	Until(t, "tick of the coarse clock", func() bool {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
			t.Fatal(err)
		}
		return time.Unix(ts.Unix()).After(now)
	})
}

// ProcessorTime is what fn computes on its own thread: unlike the time that passes, not what others do meanwhile.
func ProcessorTime(t testing.TB, fn func()) time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &ru); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	before := used()
	fn()
	return used() - before
}

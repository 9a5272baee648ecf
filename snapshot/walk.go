package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// walker is the rung of the recorder "walk".
type walker struct{ o Options }

func (w walker) prepare(ctx context.Context, s *step, _ []layered) error {
	stubs, err := plan(s.parent, s.spec.Stubs)
	if err != nil {
		return err
	}
	s.disk, err = materialize(ctx, s.parent, s.packs, s.root, stubs, MaterializeOptions{Workers: w.o.Workers})
	if err != nil {
		return err
	}
	return waitClock(ctx, s.spec.WorkDir, s.disk.last)
}

func (walker) finish(ctx context.Context, s *step) (recorder.Result, error) {
	res, err := s.scanner().finish(ctx, (*scanner).whole)
	res.Doubt = "the walk recorder does not trace"
	return res, err
}

func (walker) clean(s *step) error {
	if err := RemoveAll(s.root); err != nil {
		return fmt.Errorf("remove step's directory: %w", err)
	}
	return nil
}

func (walker) close() error { return nil }

// waitClock returns when a change made now gets a ctime later than LAST: the
// coarse clock has passed it, and so has what the file system of dir writes down
// (LAWS 22).
func waitClock(ctx context.Context, dir string, last tree.Time) error {
	for {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
			return fmt.Errorf("read clock: %w", err)
		}
		if last.Before(tree.Time{Sec: ts.Sec, Nsec: int32(ts.Nsec)}) {
			at, err := ctimeNow(dir)
			if err != nil {
				return err
			}
			if last.Before(at) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// ctimeNow asks a new file of dir what time it is.
func ctimeNow(dir string) (tree.Time, error) {
	f, err := os.CreateTemp(dir, "clock-")
	if err != nil {
		return tree.Time{}, fmt.Errorf("ask file system for the time: %w", err)
	}
	st, err := statAt(int(f.Fd()), "")
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return tree.Time{}, fmt.Errorf("ask file system for the time: %w", err)
	}
	return st.ctime, nil
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flock is flock(2) that goes on after a signal.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lockFile takes the flock of a lock file that is never removed, creating it.
func lockFile(name string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := flock(f, how); err != nil {
		_ = f.Close() // the error before counts
		return nil, fmt.Errorf("lock: %w", err)
	}
	return func() { _ = f.Close() }, nil // closing releases it, whatever it returns
}

// gate takes the lock between looking things up (shared) and taking them away.
func (s *Store) gate(how int) (unlock func(), err error) {
	return lockFile(s.path("tmp", "locks", "gate"), how)
}

// Lock waits until this caller alone holds the lock named key, over all
// processes on the store; the death of a process releases its locks. It returns
// the cause of ctx when that ends first.
func (s *Store) Lock(ctx context.Context, key string) (unlock func(), err error) {
	name := s.path("tmp", "locks", "key-"+keyName(key))
	wait := time.Millisecond
	for {
		unlock, ok, err := tryLock(name)
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", key, err)
		}
		if ok {
			return unlock, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %q: %w", key, context.Cause(ctx))
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

// tryLock takes the lock file exclusively without waiting. The holder removes
// the file before it lets go, so a lock counts only while its name leads to it.
func tryLock(name string) (unlock func(), ok bool, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // the error before counts
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, false, nil
		}
		return nil, false, err
	}
	if !sameFile(f, name) {
		return nil, false, f.Close()
	}
	return func() {
		_ = os.Remove(name) // a file that stays is an unlocked lock
		_ = f.Close()
	}, true, nil
}

// sameFile reports whether name still leads to f.
func sameFile(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

// lockObject takes the exclusive flock of a file or directory without waiting;
// nil, nil means that somebody uses it.
func lockObject(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // the error before counts
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	if !sameFile(f, name) {
		_ = f.Close()
		return nil, os.ErrNotExist
	}
	return f, nil
}

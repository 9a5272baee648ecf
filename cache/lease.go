package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
)

const (
	leasePrefix = "run-"
	// sweepAge keeps a sweep off what was made just now and is not locked yet.
	sweepAge = 10 * time.Second
)

// lease is a directory under tmp/ whose flock says that its owner lives.
type lease struct {
	dir   string
	f     *os.File
	start time.Time // nothing that the owner used or made has an earlier time
}

func newLease(tmp string) (*lease, error) {
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("name lease: %w", err)
	}
	dir := filepath.Join(tmp, "new-"+hex.EncodeToString(raw[:]))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create lease: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("create lease: %w", err)
	}
	l := &lease{dir: dir, f: f}
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		err = unsuitable(fmt.Sprintf("no locks (%v)", err))
	} else if again, tryErr := lockObject(dir); again != nil || tryErr != nil {
		if again != nil {
			_ = again.Close() // only tried
		}
		err = unsuitable("a lock does not keep others out")
	}
	if err == nil {
		err = l.begin(tmp)
	}
	if err != nil {
		_ = l.close() // the error before counts
		return nil, err
	}
	return l, nil
}

// begin gives the lease the name that tells its start, by the clock of the file
// system: that of the times which it is compared with.
func (l *lease) begin(tmp string) error {
	fi, err := l.f.Stat()
	if err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	l.start = fi.ModTime()
	name := leasePrefix + strconv.FormatInt(l.start.UnixNano(), 10) + "-" + strings.TrimPrefix(filepath.Base(l.dir), "new-")
	if err := os.Rename(l.dir, filepath.Join(tmp, name)); err != nil {
		return fmt.Errorf("create lease: %w", err)
	}
	l.dir = filepath.Join(tmp, name)
	return nil
}

// close ends the lease and removes what its owner left. What cannot be removed
// is swept later, or stays for Leftovers.
func (l *lease) close() error {
	_ = os.RemoveAll(l.dir)
	return l.f.Close()
}

// ballast is space set aside for the lease of a Prune on a full disk.
func ballast(dir string) string { return filepath.Join(dir, "tmp", "locks", "ballast") }

const ballastSize = 64 << 10

// layBallast sets the space aside. A disk that has none just now goes without.
func layBallast(dir string) {
	if _, err := os.Stat(ballast(dir)); errors.Is(err, fs.ErrNotExist) {
		_ = writeFile(filepath.Join(dir, "tmp"), ballast(dir), make([]byte, ballastSize), false)
	}
}

// takeLease makes a lease, on a full disk with the space of the ballast.
func takeLease(dir string) (*lease, error) {
	l, err := newLease(filepath.Join(dir, "tmp"))
	if errors.Is(err, unix.ENOSPC) && os.Remove(ballast(dir)) == nil {
		l, err = newLease(filepath.Join(dir, "tmp"))
	}
	return l, err
}

// leaseStart reads the start from the name of a lease.
func leaseStart(name string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(name, leasePrefix)
	digits, _, found := strings.Cut(rest, "-")
	nanos, err := strconv.ParseInt(digits, 10, 64)
	return time.Unix(0, nanos), ok && found && err == nil
}

// oldestStart returns the start of the oldest lease that lives, this one
// included.
func (s *Store) oldestStart() (time.Time, error) {
	oldest := s.lease.start
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return oldest, fmt.Errorf("list leases: %w", err)
	}
	for _, e := range entries {
		start, ok := leaseStart(e.Name())
		if ok && start.Before(oldest) && leased(s.path("tmp", e.Name())) {
			oldest = start
		}
	}
	return oldest, nil
}

// leased reports whether somebody may hold the lease; it asks shared, so that
// two who ask at once do not take each other for the owner.
func leased(name string) bool {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer func() { _ = f.Close() }() // releases what was taken to ask
	return flock(f, unix.LOCK_SH|unix.LOCK_NB) != nil
}

// TempDir makes a directory that lives no longer than this Store. The next sweep
// removes what a killed process left.
func (s *Store) TempDir(prefix string) (string, error) {
	dir, err := os.MkdirTemp(s.lease.dir, prefix+"-")
	if err != nil {
		return "", fmt.Errorf("create temporary directory: %w", err)
	}
	return dir, nil
}

// Leftovers sweeps and returns the paths that nobody uses but that this process
// may not remove: files of subordinate ids. Whoever runs inside their mapping
// may remove them.
func (s *Store) Leftovers(ctx context.Context) []string { return s.sweep(ctx) }

// sweep removes what dead processes left under tmp/ and packs/, and returns what
// it may not remove.
func (s *Store) sweep(ctx context.Context) (left []string) {
	entries, _ := os.ReadDir(s.path("tmp")) // what cannot be listed is not swept
	for _, e := range entries {
		if ctx.Err() != nil {
			return left
		}
		if e.Name() == "locks" || e.Name() == filepath.Base(s.lease.dir) {
			continue
		}
		name := s.path("tmp", e.Name())
		if err := removeStale(name); errors.Is(err, fs.ErrPermission) {
			left = append(left, name)
		}
	}
	entries, _ = os.ReadDir(s.packs.Dir())
	for _, e := range entries {
		if ctx.Err() != nil {
			return left
		}
		if strings.HasSuffix(e.Name(), pack.PartSuffix) {
			name := filepath.Join(s.packs.Dir(), e.Name())
			if err := removeStale(name); errors.Is(err, fs.ErrPermission) {
				left = append(left, name)
			}
		}
	}
	return left
}

// removeStale removes a file or directory that is old enough and that nobody
// has locked. Only an error says that it should have gone and did not.
func removeStale(name string) error {
	fi, err := os.Lstat(name)
	if err != nil || time.Since(fi.ModTime()) < sweepAge {
		return nil
	}
	f, err := lockObject(name)
	if err != nil || f == nil {
		return ignoreNotExist(err)
	}
	defer func() { _ = f.Close() }()
	return os.RemoveAll(name)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// The limit of a store is a line of decimal digits, bytes on the disk, in the file
// "limit" under the root. Trim keeps it.

// trimTo is the part of the limit that Trim leaves, in per cent, so that not every
// build removes something.
const trimTo = 90

// Limit returns how many bytes the store may take on the disk, 0 for no limit.
func (s *Store) Limit() (int64, error) {
	data, err := os.ReadFile(s.path("limit"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read limit of store: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("read limit of store: %q is no number of bytes", strings.TrimSpace(string(data)))
	}
	return n, nil
}

// SetLimit sets how many bytes the store may take on the disk; 0 takes the limit away.
func (s *Store) SetLimit(bytes int64) error {
	var err error
	if bytes == 0 {
		err = ignoreNotExist(os.Remove(s.path("limit")))
	} else {
		err = writeFile(s.lease.dir, s.path("limit"), fmt.Appendf(nil, "%d\n", bytes), true)
	}
	if err != nil {
		return fmt.Errorf("set limit of store: %w", err)
	}
	return nil
}

// Trim removes the results that were not used for longest where the store takes
// more than its limit. What images and running processes need stays, this one
// among them: it is called when a build is done.
func (s *Store) Trim(ctx context.Context) (PruneReport, error) {
	limit, err := s.Limit()
	if err != nil || limit == 0 {
		return PruneReport{}, err
	}
	u, err := s.Usage(ctx)
	if err != nil || u.Total <= limit {
		return PruneReport{}, err
	}
	return s.Prune(ctx, PruneOptions{KeepBytes: limit / 100 * trimTo})
}

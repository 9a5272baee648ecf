package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How those who use a cache mount at once share it.
const (
	SharedMount  = "shared"  // everybody has the same directory
	PrivateMount = "private" // everybody has a directory of his own, kept for the next
	LockedMount  = "locked"  // one at a time
)

// MountInfo says whose a cache mount is, for people.
type MountInfo struct {
	ID string `json:"id"` // as the Dockerfile has it
}

// maxInstances bounds the directories that one private cache mount can have.
const maxInstances = 1000

// CacheMount returns the directory of the cache mount that key names, held as
// sharing says until release is called or this process dies. A directory that is
// new is empty, 0755 and the caller's; init, which may be nil, fills it before
// anybody else sees it. It waits for a holder that does not share, and returns the
// cause of ctx when that ends first.
func (s *Store) CacheMount(ctx context.Context, key, sharing string, info MountInfo, init func(dir string) error) (dir string, release func(), err error) {
	return s.CacheMountIn(ctx, s.path("mounts"), key, sharing, info, init)
}

// CacheMountIn is CacheMount among those of a directory, which is on the store's disk and
// is there: for a build that must find none of the store's.
func (s *Store) CacheMountIn(ctx context.Context, in, key, sharing string, info MountInfo, init func(dir string) error) (dir string, release func(), err error) {
	how := unix.LOCK_EX
	instances := 1
	switch sharing {
	case SharedMount:
		how = unix.LOCK_SH
	case PrivateMount:
		instances = maxInstances
	case LockedMount:
	default:
		return "", nil, fmt.Errorf("open cache mount: unknown sharing %q", sharing)
	}
	wait := time.Millisecond
	for {
		for n := range instances {
			dir, release, err = s.tryMount(ctx, filepath.Join(in, mountName(key, n)), how, info, init)
			if err != nil {
				return "", nil, fmt.Errorf("open cache mount %q: %w", info.ID, err)
			}
			if release != nil {
				return dir, release, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", nil, fmt.Errorf("wait for cache mount %q: %w", info.ID, context.Cause(ctx))
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

// mountName is the name of one instance of a cache mount below mounts/.
func mountName(key string, instance int) string {
	return keyName(key) + "." + strconv.Itoa(instance)
}

func validMount(name string) bool {
	hex, n, ok := strings.Cut(name, ".")
	_, err := strconv.ParseUint(n, 10, 16)
	return ok && err == nil && isHex(hex)
}

// tryMount takes one instance without waiting for whoever has it; release is nil
// where somebody does.
func (s *Store) tryMount(ctx context.Context, top string, how int, info MountInfo, init func(dir string) error) (string, func(), error) {
	f, err := os.OpenFile(top, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeMount(ctx, top, info, init); err != nil {
			return "", nil, err
		}
		f, err = os.OpenFile(top, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil, nil // pruned already: again
		}
	}
	if err != nil {
		return "", nil, err
	}
	err = flock(f, how|unix.LOCK_NB)
	if err == nil && !sameFile(f, top) {
		err = unix.EWOULDBLOCK // pruned meanwhile: again
	}
	if _, serr := os.Lstat(filepath.Join(top, "data")); err == nil && errors.Is(serr, fs.ErrNotExist) {
		// Where nothing can be mounted a holder moves it into a root, and this one was
		// killed there: it starts anew.
		err = s.makeMount(ctx, top, info, init)
	}
	if err == nil {
		// The time of its last use, for Prune; who holds it needs none.
		now := time.Now()
		err = os.Chtimes(top, now, now)
	}
	if err != nil {
		_ = f.Close() // the error before counts
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return "", nil, err
	}
	return filepath.Join(top, "data"), func() { _ = f.Close() }, nil
}

// makeMount makes the directory of an instance, or what one lacks that is there,
// whole before it has its name. Of several who make it one wins, and the others use
// his.
func (s *Store) makeMount(ctx context.Context, top string, info MountInfo, init func(dir string) error) error {
	unlock, err := s.Lock(ctx, "mount-"+filepath.Base(top))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(top, "data")); err == nil {
		return nil
	}
	tmp, err := s.TempDir("mount")
	if err != nil {
		return err
	}
	data := filepath.Join(tmp, "data")
	text, err := json.Marshal(info)
	if err == nil {
		err = errors.Join(os.Mkdir(data, 0o755), os.Chmod(data, 0o755), os.WriteFile(filepath.Join(tmp, "info"), text, 0o600)) //nolint:gosec // whoever a RUN runs as looks into it
	}
	if err == nil && init != nil {
		err = init(data)
	}
	if err == nil {
		err = os.Rename(tmp, top)
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = errors.Join(os.Rename(data, filepath.Join(top, "data")), os.RemoveAll(tmp))
	}
	if err != nil {
		_ = os.RemoveAll(tmp) // what stays goes with the lease
	}
	return err
}

// MountUsage is one cache mount on the disk.
type MountUsage struct {
	ID       string
	Bytes    int64 // what this process can see of it
	LastUsed time.Time
}

// CacheMounts lists the cache mounts.
func (s *Store) CacheMounts() ([]MountUsage, error) {
	entries, err := os.ReadDir(s.path("mounts"))
	if err != nil {
		return nil, fmt.Errorf("list cache mounts: %w", err)
	}
	var out []MountUsage
	for _, e := range entries {
		if !validMount(e.Name()) {
			continue
		}
		top := s.path("mounts", e.Name())
		fi, err := os.Lstat(top)
		if err != nil {
			continue // gone since it was listed
		}
		out = append(out, MountUsage{ID: mountID(top), Bytes: diskSize(top), LastUsed: fi.ModTime()})
	}
	return out, nil
}

// mountID is the id of the mount at a path as its Dockerfile has it, "" where that is
// not known.
func mountID(top string) string {
	var info MountInfo
	if data, err := os.ReadFile(filepath.Join(top, "info")); err == nil {
		_ = json.Unmarshal(data, &info) // without it the mount has no name
	}
	return info.ID
}

// removeDirectory takes the name of a cache mount or tree that nobody uses, so that
// nobody finds half of it, and then the directory: files of subordinate ids stay behind
// as a leftover without a name. It reports whether somebody uses it.
func (p *pruning) removeDirectory(obj *object) (busy bool, err error) {
	f, err := lockObject(obj.path)
	if err != nil || f == nil {
		return err == nil, ignoreNotExist(err)
	}
	trash := filepath.Join(p.s.lease.dir, "trash-"+filepath.Base(obj.path))
	err = os.Rename(obj.path, trash)
	_ = f.Close() // it has no name any more
	if err != nil {
		return false, err
	}
	err = os.RemoveAll(trash)
	if errors.Is(err, fs.ErrPermission) {
		p.report.Leftovers = append(p.report.Leftovers, trash)
		return false, nil
	}
	return false, err
}

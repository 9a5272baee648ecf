package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// treeStore keeps the directories of layers. One stands in Spec.TreeDir, named by the
// layers' contents and the id mapping (LAWS 26); it appears there whole, by a rename. It
// is held by a shared flock while this process lives (LAWS 32), and its time is that of
// its last use. It was never synced: it counts until the next boot (LAWS 33).
//
// A directory NAME holds "layer", which is the lower directory, and "info".
type treeStore struct {
	mu   sync.Mutex
	held map[string]*heldTree // by path
}

type heldTree struct {
	mu   sync.Mutex // held while it is made
	done bool
	dir  string   // the lower directory, "" for a layer that changes nothing
	lock *os.File // nil for one of a step alone
}

// treeInfo is what stands in "info", as package cache reads it.
type treeInfo struct {
	Boot    string    `json:"boot"`
	Entries int       `json:"entries"`
	Last    time.Time `json:"last"` // the last ctime of an entry
}

// layer returns the directory of the layer that makes after out of before, "" for one
// that changes nothing.
func (t *treeStore) layer(ctx context.Context, s *step, before, after layered, workers int) (string, error) {
	name, err := mappedName(after.name)
	if err != nil {
		return "", err
	}
	where := s.spec.TreeDir
	if where == "" {
		where = s.path(madeName)
		if err := os.MkdirAll(where, 0o700); err != nil {
			return "", fmt.Errorf("make directory: %w", err)
		}
	}
	h := t.tree(filepath.Join(where, name))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		return h.dir, nil
	}
	m := layerMaking{s: s, before: before, after: after, workers: workers, path: filepath.Join(where, name)}
	if s.spec.TreeDir == "" {
		_, err = m.make(ctx, m.path)
	} else {
		h.lock, err = m.open(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("make directory of layer: %w", err)
	}
	if !m.empty {
		h.dir = filepath.Join(m.path, "layer")
	}
	h.done = true
	return h.dir, nil
}

func (t *treeStore) tree(path string) *heldTree {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[path] == nil {
		t.held[path] = &heldTree{}
	}
	return t.held[path]
}

func (t *treeStore) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.held {
		if h.lock != nil {
			_ = h.lock.Close() // only held
		}
	}
	t.held = nil
	return nil
}

// mappedName is the name of a layer's directory for the ids of this namespace.
func mappedName(layer string) (string, error) {
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return "", fmt.Errorf("read id mapping: %w", err)
	}
	gids, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return "", fmt.Errorf("read id mapping: %w", err)
	}
	return nameOf(layer, string(uids), string(gids)), nil
}

// nameOf hashes a layer's name and the two mappings.
func nameOf(layer, uids, gids string) string {
	h := sha256.New()
	for _, part := range []string{layer, uids, gids} {
		_, _ = fmt.Fprintln(h, strings.Join(strings.Fields(part), " ")) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}

// layerMaking makes or finds the directory of one layer.
type layerMaking struct {
	s             *step
	before, after layered
	workers       int
	path          string
	empty         bool // the layer changes nothing; known after open or make
}

// open returns the layer's directory, held, after making it where it is missing.
func (m *layerMaking) open(ctx context.Context) (*os.File, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	for {
		f, info, err := m.hold(strings.TrimSpace(string(boot)))
		if err != nil {
			return nil, err
		}
		if f != nil {
			m.empty = info.Entries == 0
			return f, nil
		}
		if err := m.publish(ctx, strings.TrimSpace(string(boot))); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// hold takes the directory if it is there and whole; nil says that it must be made.
func (m *layerMaking) hold(boot string) (*os.File, treeInfo, error) {
	f, err := os.OpenFile(m.path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, treeInfo{}, nil
	}
	if err != nil {
		return nil, treeInfo{}, err
	}
	info, err := m.check(f, boot)
	if err != nil {
		_ = f.Close() // the error before counts
		if errors.Is(err, errStale) {
			err = m.discard()
		} else if errors.Is(err, errGoing) {
			time.Sleep(time.Millisecond)
			err = nil
		}
		return nil, treeInfo{}, err
	}
	return f, info, nil
}

var (
	errStale = errors.New("not of this boot")
	errGoing = errors.New("it is being removed")
)

func (m *layerMaking) check(f *os.File, boot string) (treeInfo, error) {
	err := ignoringEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return treeInfo{}, errGoing
	}
	if err != nil {
		return treeInfo{}, fmt.Errorf("lock: %w", err)
	}
	here, err := statAt(int(f.Fd()), "")
	if err != nil {
		return treeInfo{}, err
	}
	named, err := statAt(unix.AT_FDCWD, m.path)
	if err != nil || named.identity != here.identity {
		return treeInfo{}, errGoing
	}
	var info treeInfo
	data, err := os.ReadFile(filepath.Join(m.path, "info"))
	if err != nil || json.Unmarshal(data, &info) != nil || info.Boot != boot {
		return treeInfo{}, errStale
	}
	now := time.Now()
	return info, os.Chtimes(m.path, now, now)
}

// discard takes the name of a directory that does not count any more and removes it,
// unless somebody else is quicker.
func (m *layerMaking) discard() error {
	f, err := os.OpenFile(m.path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only held
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // somebody else does it
	}
	old, err := os.MkdirTemp(m.s.spec.WorkDir, "old-")
	if err != nil {
		return err
	}
	err = os.Rename(m.path, filepath.Join(old, "tree"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, RemoveAll(old))
}

// publish makes the directory under a name of this step and gives it its own. Of two
// processes one wins, and the other throws its work away.
func (m *layerMaking) publish(ctx context.Context, boot string) error {
	tmp, err := os.MkdirTemp(m.s.spec.WorkDir, "tree-")
	if err != nil {
		return err
	}
	info, err := m.make(ctx, tmp)
	if err == nil {
		var data []byte
		info.Boot = boot
		data, err = json.Marshal(info)
		if err == nil {
			err = os.WriteFile(filepath.Join(tmp, "info"), data, 0o600)
		}
	}
	if err == nil {
		if err = os.Rename(tmp, m.path); err == nil {
			return nil
		}
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = nil
	}
	return errors.Join(err, RemoveAll(tmp))
}

// make makes the directory at dir.
func (m *layerMaking) make(ctx context.Context, dir string) (treeInfo, error) {
	t, changed, err := layerTree(m.before.Tree, m.after.Tree)
	if err != nil {
		return treeInfo{}, err
	}
	if m.empty = !changed; m.empty {
		return treeInfo{}, os.MkdirAll(dir, 0o700)
	}
	d, err := materialize(ctx, t, m.s.packs, filepath.Join(dir, "layer"), nil, MaterializeOptions{Workers: m.workers})
	if err != nil {
		return treeInfo{}, err
	}
	for p := range d.absent {
		return treeInfo{}, fmt.Errorf("make whiteout %q: %w", p, unix.EPERM)
	}
	return treeInfo{Entries: len(d.stamps), Last: d.last.Time()}, nil
}

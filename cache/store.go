package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// ErrNotFound is returned for what the store does not hold, or holds no longer
// in a form that verifies. It matches fs.ErrNotExist.
var ErrNotFound = fmt.Errorf("not in the store: %w", fs.ErrNotExist)

// ErrVersion is returned by Open for a store of another version of fbuild, and
// for a directory that is no store and not empty.
var ErrVersion = errors.New("not a store of this version")

// versionText is the whole of the file "version". A change to anything that the
// package comment describes counts the number up.
const versionText = "fbuild store 1\n"

// folders are what Open makes under the root.
var folders = []string{
	"blobs", "blobs/sha256", "packs", "records", "index", "contexts", "trees", "mounts", "tmp", "tmp/locks",
}

// Store is one process's access to a store.
type Store struct {
	dir   string
	packs *pack.Set
	lease *lease
	index *contentIndex

	mu     sync.Mutex
	synced map[tree.PackID]bool // packs that this Store made durable

	stopSweep context.CancelFunc
	swept     sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Open opens the store at dir and creates it where there is none. It returns
// ErrUnsuitable where the file system cannot hold a store and ErrVersion where
// something else stands there.
func Open(ctx context.Context, dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := create(dir); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	l, err := takeLease(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{
		dir:    dir,
		packs:  pack.NewSet(filepath.Join(dir, "packs")),
		lease:  l,
		synced: map[tree.PackID]bool{},
	}
	ctx, s.stopSweep = context.WithCancel(ctx)
	s.index = newContentIndex(s)
	s.swept.Go(func() { s.sweep(ctx) })
	return s, nil
}

// Close releases every lease, throws away what is left of the temporary files,
// and waits for what runs in the background. It may be called again.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.stopSweep()
		s.swept.Wait()
		s.index.close()
		s.closeErr = errors.Join(s.packs.Close(), s.lease.close())
	})
	return s.closeErr
}

// Dir returns the absolute path of the root.
func (s *Store) Dir() string { return s.dir }

// Packs returns the packs with the leases on those that were opened.
func (s *Store) Packs() *pack.Set { return s.packs }

// CreatePack starts a pack for contents of a build context.
func (s *Store) CreatePack() (*pack.Writer, error) { return pack.Create(s.packs.Dir(), "copy") }

// CreateTarPack starts a pack for the uncompressed tar of a layer; PutTarLayer
// tells the store what it became.
func (s *Store) CreateTarPack() (*pack.Writer, error) { return pack.Create(s.packs.Dir(), "tar") }

// ContextFile returns the file for the stat cache of the build context at the
// absolute path dir.
func (s *Store) ContextFile(dir string) string { return s.path("contexts", keyName(dir)) }

// TreeDir is where the directories of layers stand that recorders make (package
// snapshot says how): each is held by a shared flock while it is used.
func (s *Store) TreeDir() string { return s.path("trees") }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// create makes what is missing under dir.
func create(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkFileSystem(dir); err != nil {
		return err
	}
	name := filepath.Join(dir, "version")
	switch data, err := os.ReadFile(name); {
	case err == nil && string(data) == versionText:
		return makeFolders(dir)
	case err == nil:
		return fmt.Errorf("%w: it says %q, this fbuild needs %q; choose another --root or remove it",
			ErrVersion, strings.TrimSpace(string(data)), strings.TrimSpace(versionText))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := checkOurs(dir); err != nil {
		return err
	}
	if err := makeFolders(dir); err != nil {
		return err
	}
	if err := probe(filepath.Join(dir, "tmp")); err != nil {
		return err
	}
	layBallast(dir)
	return initLayout(dir)
}

func makeFolders(dir string) error {
	for _, f := range folders {
		if err := os.Mkdir(filepath.Join(dir, f), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// checkOurs refuses a directory of somebody else; the start of a store that a
// kill interrupted passes.
func checkOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "blobs", "packs", "records", "index", "contexts", "trees", "mounts", "tmp", "oci-layout", "index.json", "version", "lost+found":
		default:
			return fmt.Errorf("%w: the directory holds %q and is no store; choose an empty one", ErrVersion, e.Name())
		}
	}
	return nil
}

// initLayout writes the files of an empty layout, the version last. Of several
// processes one does it.
func initLayout(dir string) error {
	unlock, err := lockFile(filepath.Join(dir, "tmp", "locks", "gate"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "version")); err == nil {
		return nil
	}
	for _, f := range []struct{ name, text string }{
		{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`},
		{"index.json", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`},
		{"version", versionText},
	} {
		name := filepath.Join(dir, f.name)
		if _, err := os.Stat(name); err == nil {
			continue
		}
		if err := writeFile(filepath.Join(dir, "tmp"), name, []byte(f.text), true); err != nil {
			return err
		}
	}
	return nil
}

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/tree"
)

// PutLayer stores the layer index of diffID, after making every pack that it
// names durable. All its packs must be committed.
func (s *Store) PutLayer(diffID tree.Digest, cs tree.Changes) error {
	if err := checkDigest(diffID); err != nil {
		return fmt.Errorf("write layer index: %w", err)
	}
	for _, id := range layerPacks(cs) {
		if err := s.syncPack(id); err != nil {
			return fmt.Errorf("write layer index %s: %w", diffID, err)
		}
	}
	if err := writeFile(s.lease.dir, s.recordPath(kindLayer, string(diffID)), tree.Encode(cs), true); err != nil {
		return fmt.Errorf("write layer index %s: %w", diffID, err)
	}
	return nil
}

// PutTarLayer is PutLayer for a layer whose uncompressed tar is the pack tar, so
// that Verify can check the pack against the diffID.
func (s *Store) PutTarLayer(diffID tree.Digest, cs tree.Changes, tar tree.PackID) error {
	if err := checkDigest(diffID); err != nil {
		return fmt.Errorf("write layer index: %w", err)
	}
	if err := s.putRecord(kindTar, string(tar), Record{Value: []byte(diffID)}, true); err != nil {
		return err
	}
	return s.PutLayer(diffID, cs)
}

// SyncPacks makes every pack that the changes lead to durable, so that PutLayer need
// not wait for it.
func (s *Store) SyncPacks(cs tree.Changes) error {
	for _, id := range layerPacks(cs) {
		if err := s.syncPack(id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) syncPack(id tree.PackID) error {
	s.mu.Lock()
	done := s.synced[id] && !pack.Grows(id)
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.packs.Sync(id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced[id] = true
	return nil
}

// layerPacks lists the packs that the changes lead to.
func layerPacks(cs tree.Changes) []tree.PackID {
	var out []tree.PackID
	seen := map[tree.PackID]bool{"": true}
	for i := range cs {
		if cs[i].Node == nil {
			continue
		}
		for _, x := range cs[i].Node.Extents {
			if !seen[x.Pack] {
				seen[x.Pack] = true
				out = append(out, x.Pack)
			}
		}
	}
	return out
}

// Layer returns the layer index of diffID. It returns ErrNotFound where there is
// none, and for one that does not verify, which it removes. The packs stay while
// this Store is open; whether they are all there shows when they are opened.
func (s *Store) Layer(diffID tree.Digest) (tree.Changes, error) {
	name, unlock, err := s.useLayer(diffID)
	if err != nil {
		return nil, fmt.Errorf("read layer index %s: %w", diffID, err)
	}
	defer unlock()
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read layer index %s: %w", diffID, err)
	}
	cs, err := tree.Decode(data)
	if err != nil {
		_ = os.Remove(name) // it is a miss either way
		return nil, fmt.Errorf("read layer index %s: %w: %w", diffID, ErrNotFound, err)
	}
	return cs, nil
}

// LayerFile returns the path of the layer index of diffID for a process that
// reads it itself; it stays while this Store is open. It returns ErrNotFound
// where there is none. It does not verify: Layer does.
func (s *Store) LayerFile(diffID tree.Digest) (string, error) {
	name, unlock, err := s.useLayer(diffID)
	if err != nil {
		return "", fmt.Errorf("find layer index %s: %w", diffID, err)
	}
	unlock()
	return name, nil
}

func (s *Store) useLayer(diffID tree.Digest) (name string, unlock func(), err error) {
	if err := checkDigest(diffID); err != nil {
		return "", nil, err
	}
	unlock, err = s.gate(unix.LOCK_SH)
	if err != nil {
		return "", nil, err
	}
	name = s.recordPath(kindLayer, string(diffID))
	if err := s.use(name); err != nil {
		unlock()
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotFound
		}
		return "", nil, err
	}
	return name, unlock, nil
}

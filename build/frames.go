package build

import (
	"errors"
	"os"
	"sync"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// frameStore finds frames of layers in the blobs of the store, which it keeps open
// until the build ends. It is layer.Frames.
type frameStore struct {
	store *cache.Store

	mu    sync.Mutex
	blobs map[tree.Digest]*os.File // nil: not in the store
	stats layer.Stats
}

func newFrameStore(s *cache.Store) *frameStore {
	return &frameStore{store: s, blobs: map[tree.Digest]*os.File{}}
}

// Frame reads a frame where the index says that it is. Every doubt is a miss, and
// what is not there is forgotten.
func (s *frameStore) Frame(key layer.FrameKey, buf []byte) (layer.Frame, []byte, bool) {
	at, ok := s.store.FindFrame(cache.FrameKey(key))
	if !ok {
		return layer.Frame{}, nil, false
	}
	f := layer.Frame{Key: key, Off: at.Off, Len: at.Len, Size: at.Size, CRC: at.CRC, Sum: at.Sum}
	blob := s.open(at.Blob)
	if blob == nil || f.Len > maxFrame {
		s.store.DropFrame(cache.FrameKey(key))
		return layer.Frame{}, nil, false
	}
	if int64(cap(buf)) < f.Len {
		buf = make([]byte, f.Len)
	}
	buf = buf[:f.Len]
	if _, err := blob.ReadAt(buf, f.Off); err != nil {
		s.store.DropFrame(cache.FrameKey(key))
		return layer.Frame{}, nil, false
	}
	return f, buf, true
}

// maxFrame bounds the memory that a damaged index can ask for.
const maxFrame = 24 << 20

func (s *frameStore) open(d tree.Digest) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.blobs[d]
	if !ok {
		f, _ = s.store.OpenBlob(d) // nil: gone
		s.blobs[d] = f
	}
	return f
}

// add tells the store which frames a blob of ours holds.
func (s *frameStore) add(sealed layer.Sealed) {
	frames := make(map[cache.FrameKey]cache.Frame, len(sealed.Frames))
	for _, f := range sealed.Frames {
		frames[cache.FrameKey(f.Key)] = cache.Frame{
			Blob: sealed.Digest, Off: f.Off, Len: f.Len, Size: f.Size, CRC: f.CRC, Sum: f.Sum,
		}
	}
	s.store.AddFrames(frames)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Add(sealed.Stats)
}

func (s *frameStore) close() error {
	var errs []error
	for _, f := range s.blobs {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

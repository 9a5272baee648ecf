package build

import (
	"errors"
	"maps"
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
	// ahead are frames that were made while RUNs ran, in files without names.
	ahead map[layer.FrameKey]aheadFrame
	files []*os.File
}

// aheadFrame is a frame that no layer has yet.
type aheadFrame struct {
	layer.Frame
	file *os.File
}

func newFrameStore(s *cache.Store) *frameStore {
	return &frameStore{store: s, blobs: map[tree.Digest]*os.File{}, ahead: map[layer.FrameKey]aheadFrame{}}
}

// Frame reads a frame where the index says that it is. Every doubt is a miss, and
// what is not there is forgotten.
func (s *frameStore) Frame(key layer.FrameKey, buf []byte) (layer.Frame, []byte, bool) {
	if f, out, ok := s.early(key, buf); ok {
		return f, out, true
	}
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

// early reads a frame that was made ahead.
func (s *frameStore) early(key layer.FrameKey, buf []byte) (layer.Frame, []byte, bool) {
	s.mu.Lock()
	f, ok := s.ahead[key]
	s.mu.Unlock()
	if !ok {
		return layer.Frame{}, nil, false
	}
	if int64(cap(buf)) < f.Len {
		buf = make([]byte, f.Len)
	}
	buf = buf[:f.Len]
	if _, err := f.file.ReadAt(buf, f.Off); err != nil {
		return layer.Frame{}, nil, false
	}
	f.Ahead = true
	return f.Frame, buf, true
}

// has says that a frame need not be made.
func (s *frameStore) has(key layer.FrameKey) bool {
	s.mu.Lock()
	_, ok := s.ahead[key]
	s.mu.Unlock()
	if !ok {
		_, ok = s.store.FindFrame(cache.FrameKey(key))
	}
	return ok
}

// keepOpen makes f the store's to close.
func (s *frameStore) keepOpen(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

// addAhead enters frames of a file.
func (s *frameStore) addAhead(file *os.File, frames []layer.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range frames {
		s.ahead[f.Key] = aheadFrame{f, file}
	}
}

// dropAhead forgets the frames of a file, whose layer is sealed, and empties it: somebody
// may be reading. nil is no file.
func (s *frameStore) dropAhead(file *os.File) {
	if file == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.ahead, func(_ layer.FrameKey, f aheadFrame) bool { return f.file == file })
	_ = file.Truncate(0) // it has no name: this only saves room
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
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	for _, f := range s.blobs {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

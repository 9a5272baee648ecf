package cache

import "github.com/fbuild/fbuild/tree"

// FindContent returns where the store has the size bytes with digest d. The
// packs are leased. Not to have an index and not to find anything are the same.
func (s *Store) FindContent(d tree.Digest, size int64) ([]tree.Extent, bool) {
	if checkDigest(d) != nil || size < 0 {
		return nil, false
	}
	if size == 0 {
		return nil, true
	}
	data, ok := s.index.find(contentKey(d))
	if !ok {
		return nil, false
	}
	ex, err := decodeEntry(d, data)
	if err != nil {
		s.index.fail(true)
		return nil, false
	}
	if !s.holds(ex, size) {
		s.index.set(contentKey(d), nil)
		return nil, false
	}
	return ex, true
}

// holds leases the packs of ex and checks that they are long enough.
func (s *Store) holds(ex []tree.Extent, size int64) bool {
	for _, x := range ex {
		size -= x.Len
		if x.Pack == "" {
			continue
		}
		f, err := s.packs.File(x.Pack)
		if err != nil {
			return false
		}
		fi, err := f.Stat()
		if err != nil || fi.Size() < x.Off+x.Len {
			return false
		}
	}
	return size == 0
}

// AddContent tells the index where the bytes with digest d are. The packs must
// be committed.
func (s *Store) AddContent(d tree.Digest, ex []tree.Extent) {
	if checkDigest(d) != nil || len(ex) == 0 {
		return
	}
	if data := encodeEntry(d, ex); len(data) <= maxEntry {
		s.index.set(contentKey(d), data)
	}
}

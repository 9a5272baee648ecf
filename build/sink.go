package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// smallFile is how much of a file is read before the pack is taken: most files
// are smaller, and several can then be read at once.
const smallFile = 1 << 20

// sink stores the files of a build context in one pack, each content once. It is
// buildctx.Sink.
type sink struct {
	b     *builder
	mu    sync.Mutex
	pack  *pack.Writer // made by the first content that is new
	added map[tree.Digest][]tree.Extent
	small sync.Pool

	// A step that takes long shows how much it has read.
	step  *progress.Step // nil for none
	begun time.Time
	shown time.Time
	moved int64
}

const (
	showAfter = 2 * time.Second // before that nobody waits
	showEvery = 100 * time.Millisecond
)

// moving counts n bytes more. The mutex is held.
func (s *sink) moving(n int64) {
	s.moved += n
	now := time.Now()
	if s.step == nil || now.Sub(s.begun) < showAfter || now.Sub(s.shown) < showEvery {
		return
	}
	s.shown = now
	s.step.Status(transferring, s.moved, 0, false)
}

// movingWriter counts what is written to it. The mutex is held.
type movingWriter struct{ s *sink }

func (w movingWriter) Write(p []byte) (int, error) {
	w.s.moving(int64(len(p)))
	return len(p), nil
}

func newSink(b *builder) *sink {
	return &sink{b: b, begun: time.Now(), added: map[tree.Digest][]tree.Extent{}, small: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
}

// Find returns where the store has a content already. It is leased from now on.
func (s *sink) Find(d tree.Digest, size int64) ([]tree.Extent, bool) {
	s.mu.Lock()
	ex, ok := s.added[d]
	s.mu.Unlock()
	if ok {
		return ex, true
	}
	ex, ok = s.b.store.FindContent(d, size)
	for _, x := range ex {
		if x.Pack == "" {
			continue
		}
		if _, err := s.b.store.Packs().File(x.Pack); err != nil {
			return nil, false
		}
	}
	return ex, ok
}

// Put stores everything that r yields and returns its digest and place.
func (s *sink) Put(ctx context.Context, r io.Reader) (tree.Digest, int64, []tree.Extent, error) {
	if s.b.planning() {
		h := sha256.New()
		n, err := io.Copy(h, ctxReader{ctx, r})
		return sum(h), n, nil, err
	}
	buf, _ := s.small.Get().(*bytes.Buffer)
	defer s.small.Put(buf)
	buf.Reset()
	h := sha256.New()
	n, err := io.CopyN(io.MultiWriter(buf, h), r, smallFile)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", 0, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moving(n)
	if err != nil { // all of it is in the buffer
		d := sum(h)
		if ex, ok := s.added[d]; ok {
			return d, n, ex, nil
		}
	}
	if s.pack == nil {
		var perr error
		if s.pack, perr = s.b.store.CreatePack(); perr != nil {
			return "", 0, nil, perr
		}
	}
	off := s.pack.Offset()
	if _, werr := s.pack.Write(buf.Bytes()); werr != nil {
		return "", 0, nil, werr
	}
	if err == nil {
		more, cerr := io.Copy(io.MultiWriter(s.pack, h, movingWriter{s}), ctxReader{ctx, r})
		if cerr != nil {
			return "", 0, nil, cerr
		}
		n += more
	}
	d := sum(h)
	var ex []tree.Extent
	if n > 0 {
		ex = []tree.Extent{{Pack: s.pack.ID(), Off: off, Len: n}}
	}
	s.added[d] = ex
	return d, n, ex, nil
}

func sum(h hash.Hash) tree.Digest {
	return tree.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// bytes stores a text and returns a node with its contents.
func (s *sink) bytes(ctx context.Context, text string) (tree.Node, error) {
	d, n, ex, err := s.Put(ctx, strings.NewReader(text))
	if err != nil {
		return tree.Node{}, fmt.Errorf("store heredoc: %w", err)
	}
	return tree.Node{Size: n, Digest: d, Extents: ex}, nil
}

// commit gives the pack its name, so that its contents can be read.
func (s *sink) commit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.shown.IsZero() {
		s.step.Status(transferring, s.moved, s.moved, true)
	}
	if s.pack == nil {
		return nil
	}
	w := s.pack
	s.pack = nil
	if len(s.added) == 0 {
		w.Abort()
		return nil
	}
	return w.Commit()
}

// abort throws away what was not committed.
func (s *sink) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pack != nil {
		s.pack.Abort()
		s.pack = nil
	}
}

// ctxReader ends with the context.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // lives for one io.Copy
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// same compares the bytes of two files of equal size, for tree.Diff.
func (b *builder) same(x, y *tree.Node) (bool, error) {
	if b.planning() { // where bytes need not be here
		return x.Digest != "" && x.Digest == y.Digest, nil
	}
	rx, err := b.store.Packs().Open(x)
	if err != nil {
		return false, err
	}
	defer func() { _ = rx.Close() }() // only read
	ry, err := b.store.Packs().Open(y)
	if err != nil {
		return false, err
	}
	defer func() { _ = ry.Close() }() // only read
	bx, by := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errx := io.ReadFull(rx, bx)
		m, erry := io.ReadFull(ry, by)
		if n != m || !bytes.Equal(bx[:n], by[:m]) {
			return false, nil
		}
		endx, endy := atEnd(errx), atEnd(erry)
		if endx && endy {
			return true, nil
		}
		if errx != nil && !endx {
			return false, errx
		}
		if erry != nil && !endy {
			return false, erry
		}
		if endx != endy {
			return false, nil
		}
	}
}

func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

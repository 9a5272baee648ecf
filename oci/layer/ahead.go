package layer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fbuild/fbuild/tree"
)

// mostAhead is the largest block of a codec that is used ahead of time: this is done
// beside a RUN, and in little memory.
const mostAhead = 1 << 20

// Ahead makes frames of files before anybody knows what layer they will be in. They are
// those that Seal makes of the same bytes with the same options, under the same keys, so
// that whoever offers them to it changes nothing but the time that it takes (LAWS 27).
//
// It is for one goroutine.
type Ahead struct {
	codec   *frameCodec
	enc     encoder
	in, out []byte
}

// NewAhead returns nil for a compression in which nothing can be made ahead.
func NewAhead(o Options) (*Ahead, error) {
	c, _, err := codecOf(o)
	if err != nil || c == nil || c.block > mostAhead {
		return nil, err
	}
	enc, err := c.encoder()
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return &Ahead{codec: c, enc: enc}, nil
}

// Least is the size from which a file has frames that can be looked for.
func (a *Ahead) Least() int64 { return max(a.codec.large, keyed) }

// First is the key of the first frame of a file with that digest.
func (a *Ahead) First(d tree.Digest) FrameKey { return a.codec.frameKey(runFile, d, 0) }

// File writes the frames of the file of size bytes that r gives to w, one after the
// other, and returns them: their places count from where w stood. Their keys are of the
// bytes that r gave, whatever the file is by now.
func (a *Ahead) File(w io.Writer, r io.Reader, size int64) ([]Frame, error) {
	if size < a.Least() {
		return nil, errors.New("compress ahead: the file shares its frames with others")
	}
	if a.in == nil {
		a.in, a.out = make([]byte, a.codec.block), make([]byte, 0, a.codec.most())
	}
	sum := sha256.New()
	var frames []Frame
	var at int64
	for off := int64(0); off < size; off += a.codec.block {
		in := a.in[:min(a.codec.block, size-off)]
		if _, err := io.ReadFull(r, in); err != nil {
			return nil, fmt.Errorf("read contents: %w", err)
		}
		sum.Write(in)
		var err error
		if a.out, err = a.enc.frame(a.out[:0], in); err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		if _, err := w.Write(a.out); err != nil {
			return nil, fmt.Errorf("write frame: %w", err)
		}
		n := int64(len(a.out))
		frames = append(frames, Frame{Off: at, Len: n, Size: int64(len(in)), CRC: crc32.ChecksumIEEE(in), Sum: frameSum(a.out)})
		at += n
	}
	d := digest(sum)
	for i := range frames {
		frames[i].Key = a.codec.frameKey(runFile, d, int64(i))
	}
	return frames, nil
}

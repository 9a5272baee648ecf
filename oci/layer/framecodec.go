package layer

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// codecVersion is the version of both encoders, which decides what a frame's
// bytes are; a test compares it with go.mod.
const codecVersion = "klauspost/compress v1.20.2"

// LevelNone as Options.Level asks for gzip without compression; 0 is the default.
const LevelNone = -1

const (
	gzipLevel = 6
	zstdLevel = 3
)

// frameCodec says how a tar is cut and what a run becomes.
type frameCodec struct {
	name, version string
	level         int
	// large is the size from which a file has frames of its own, each of at most
	// block bytes; what lies between such files is cut where a name says so,
	// between least and block bytes.
	large, block, least int64

	head    []byte                              // before the frames of a blob
	tail    func(crc uint32, size int64) []byte // behind them
	encoder func() (encoder, error)

	// Of seekable layers: what stands around each frame, and what ends the blob.
	zstd   bool
	wrap   func(crc uint32, size int64) (before, after []byte)
	finish func(*sealing, encoder) error
}

// most is what a frame takes, and a little more, where nothing can be compressed.
func (c *frameCodec) most() int64 { return c.block + c.block>>8 }

// encoder makes frames, one at a time.
type encoder interface {
	// frame appends the frame of b to out.
	frame(out, b []byte) ([]byte, error)
}

// newGzipCodec gives one gzip member (LAWS 28): a header with neither time nor
// name nor operating system, frames of raw DEFLATE, an empty last block.
func newGzipCodec(level int) (*frameCodec, error) {
	switch {
	case level == 0:
		level = gzipLevel
	case level == LevelNone:
		level = flate.NoCompression
	case level < 1 || level > 9:
		return nil, fmt.Errorf("gzip has levels 1 to 9, not %d", level)
	}
	return &frameCodec{
		name: "deflate", version: codecVersion, level: level,
		large: 64 << 10, block: 1 << 20, least: 256 << 10,
		head: gzipHeader(level),
		tail: func(crc uint32, size int64) []byte {
			b := []byte{3, 0} // an empty last block
			b = binary.LittleEndian.AppendUint32(b, crc)
			return binary.LittleEndian.AppendUint32(b, uint32(size))
		},
		encoder: func() (encoder, error) {
			e := &deflater{}
			var err error
			e.z, err = flate.NewWriter(&e.out, level)
			return e, err
		},
	}, nil
}

func gzipHeader(level int) []byte {
	var speed byte
	switch level {
	case flate.BestSpeed:
		speed = 4
	case flate.BestCompression:
		speed = 2
	}
	return []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, speed, 255}
}

// deflater makes runs of raw DEFLATE that end with a full flush: nothing in one
// refers to what was before it.
type deflater struct {
	z   *flate.Writer
	out appender
}

// appender is a writer that appends.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

func (d *deflater) frame(out, b []byte) ([]byte, error) {
	d.out = out
	d.z.Reset(&d.out)
	if _, err := d.z.Write(b); err != nil {
		return nil, err
	}
	err := d.z.Flush()
	out, d.out = d.out, nil
	return out, err
}

// newZstdCodec gives zstd frames, one after the other. They are larger than those
// of gzip because zstd finds more over long distances, which frames cut: at the
// usual level it looks back 8 MiB.
func newZstdCodec(level int) (*frameCodec, error) {
	if level == 0 {
		level = zstdLevel
	}
	if level < 1 || level > 22 {
		return nil, fmt.Errorf("zstd has levels 1 to 22, not %d", level)
	}
	const block, window = 10 << 20, 8 << 20
	return &frameCodec{
		name: "zstd", version: codecVersion, level: level,
		large: 4 << 20, block: block, least: 8 << 20,
		tail: func(uint32, int64) []byte { return nil },
		encoder: func() (encoder, error) {
			z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
				zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
			return zstdFramer{z}, err
		},
	}, nil
}

type zstdFramer struct{ z *zstd.Encoder }

func (z zstdFramer) frame(out, b []byte) ([]byte, error) { return z.z.EncodeAll(b, out), nil }

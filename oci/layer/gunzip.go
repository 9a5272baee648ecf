package layer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/fbuild/fbuild/internal/inflate"
)

// Flags of a member's header: what else is in it.
const (
	gzipHeaderSum = 1 << 1
	gzipExtra     = 1 << 2
	gzipName      = 1 << 3
	gzipComment   = 1 << 4

	gzipHead, gzipTail = 10, 8
	// maxGzipText bounds the name and the comment of a member.
	maxGzipText = 64 << 10
)

var errGzipHeader = errors.New("invalid gzip header")

// gunzip reads a gzip stream of one or many members. Zeros behind the last one
// are padding, as gzip takes them; anything else is damage.
type gunzip struct {
	src   *bufio.Reader
	z     *inflate.Reader // nil before the first member
	notes *notes
	run   []byte // decompressed, not handed on
	sum   uint32 // of the member
	size  uint32
	done  bool
}

func (g *gunzip) Read(p []byte) (int, error) {
	for len(g.run) == 0 {
		if g.done {
			return 0, io.EOF
		}
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, g.run)
	g.run = g.run[n:]
	return n, nil
}

// fill decompresses the next run, or goes on to the next member or the end.
func (g *gunzip) fill() error {
	if g.z == nil {
		if err := g.header(); err != nil {
			return short(err)
		}
		g.z = inflate.NewReader(g.src)
	}
	run, err := g.z.Next()
	if err == io.EOF { //nolint:errorlint // one that is wrapped is a fault of src
		return g.member()
	}
	if err != nil {
		return err
	}
	g.run = run
	g.sum = crc32.Update(g.sum, crc32.IEEETable, run)
	g.size += uint32(len(run)) // modulo 2^32, as the trailer has it
	return nil
}

// header passes over the header of a member.
func (g *gunzip) header() error {
	var all bytes.Buffer
	head := make([]byte, gzipHead)
	if _, err := io.ReadFull(g.src, head); err != nil {
		return err
	}
	if !bytes.HasPrefix(head, magicGzip) || head[2] != 8 {
		return errGzipHeader
	}
	all.Write(head)
	if head[3]&gzipExtra != 0 {
		var n [2]byte
		if _, err := io.ReadFull(g.src, n[:]); err != nil {
			return err
		}
		all.Write(n[:])
		if _, err := io.CopyN(&all, g.src, int64(binary.LittleEndian.Uint16(n[:]))); err != nil {
			return err
		}
	}
	for _, flag := range []byte{gzipName, gzipComment} {
		if head[3]&flag == 0 {
			continue
		}
		for start := all.Len(); ; {
			c, err := g.src.ReadByte()
			if err != nil {
				return err
			}
			all.WriteByte(c)
			if c == 0 {
				break
			}
			if all.Len()-start > maxGzipText {
				return errGzipHeader
			}
		}
	}
	if head[3]&gzipHeaderSum != 0 {
		var sum [2]byte
		if _, err := io.ReadFull(g.src, sum[:]); err != nil {
			return err
		}
		if uint32(binary.LittleEndian.Uint16(sum[:])) != crc32.ChecksumIEEE(all.Bytes())&0xffff {
			return errGzipHeader
		}
	}
	return nil
}

// member checks what ends a member and goes on to the next, or to the end of the stream.
func (g *gunzip) member() error {
	var tail [gzipTail]byte
	if _, err := io.ReadFull(g.src, tail[:]); err != nil {
		return short(err)
	}
	if binary.LittleEndian.Uint32(tail[:]) != g.sum || binary.LittleEndian.Uint32(tail[4:]) != g.size {
		return errors.New("invalid checksum")
	}
	head, err := g.src.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, magicGzip) {
		if err := g.header(); err != nil {
			return short(err)
		}
		g.z.Reset(g.src)
		g.sum, g.size = 0, 0
		return nil
	}
	g.done = true
	for {
		b, err := g.src.ReadByte()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if b != 0 {
			return errors.New("bytes behind the gzip stream that are neither a member nor padding")
		}
		g.notes.add("zeros behind the gzip stream are ignored")
	}
}

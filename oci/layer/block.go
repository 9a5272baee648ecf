package layer

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

const blockSize = 512

// block is one 512-byte header of a tar.
type block [blockSize]byte

// Types of entries, the byte at 156 of a header.
const (
	typeFile      = '0'
	typeOldFile   = 0
	typeLink      = '1'
	typeSymlink   = '2'
	typeChar      = '3'
	typeBlock     = '4'
	typeDir       = '5'
	typeFifo      = '6'
	typePax       = 'x'
	typePaxGlobal = 'g'
	typeGNUName   = 'L'
	typeGNULink   = 'K'
	typeGNUSparse = 'S'
)

// Magic strings at 257, and STAR's mark at 508.
const (
	magicUSTAR = "ustar\x00"
	magicGNU   = "ustar  \x00"
	trailSTAR  = "tar\x00"
)

var (
	errHeader  = errors.New("not a tar header")
	zeroBlock  block
	errNumber  = errors.New("number in header is malformed")
	errTooMany = errors.New("more entries in the sparse map than allowed")
)

func (b *block) magic(m string) bool { return string(b[257:257+len(m)]) == m }

// valid reports whether the checksum fits, computed over unsigned or, as some
// old tars did, signed bytes.
func (b *block) valid() bool {
	want, err := octal(b[148:156])
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, c := range b {
		if 148 <= i && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// ok reports whether b is the header of an entry.
func (b block) ok() bool { return b != zeroBlock && b.valid() }

// entry parses the fields of a header as archive/tar does, because docker and
// containerd read layers through that.
func (b *block) entry() (*entry, error) {
	e := &entry{
		typ:  b[156],
		name: cstring(b[0:100]),
		link: cstring(b[157:257]),
	}
	var err error
	field := func(lo, hi int) int64 {
		v, ferr := numeric(b[lo:hi])
		if err == nil {
			err = ferr
		}
		return v
	}
	e.mode = field(100, 108)
	e.uid = field(108, 116)
	e.gid = field(116, 124)
	e.size = field(124, 136)
	e.mtime = blockTime(b[136:148])
	if !b.magic(magicUSTAR) && !b.magic(magicGNU) {
		return e, err // a V7 tar ends here
	}
	e.major = field(329, 337)
	e.minor = field(337, 345)
	if prefix := b.prefix(); prefix != "" {
		e.name = prefix + "/" + e.name
	}
	return e, err
}

// prefix returns what stands before the name.
func (b *block) prefix() string {
	switch {
	case !b.magic(magicGNU) && string(b[508:512]) == trailSTAR:
		return cstring(b[345:476])
	case !b.magic(magicGNU):
		return cstring(b[345:500])
	}
	// Go before 1.8 wrote a prefix into GNU headers, where atime and ctime
	// belong, and old images have such layers: a prefix is what is no time.
	for _, f := range [][]byte{b[345:357], b[357:369]} {
		if f[0] == 0 {
			continue
		}
		if _, err := numeric(f); err != nil {
			if s := cstring(b[345:500]); strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0 {
				return s
			}
			return ""
		}
	}
	return ""
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// numeric parses octal digits or, where the first bit is set, GNU's base-256.
func numeric(b []byte) (int64, error) {
	if b[0]&0x80 == 0 {
		return octal(b)
	}
	var inv byte // negative numbers are two's complement: -a-1 == ^a
	if b[0]&0x40 != 0 {
		inv = 0xff
	}
	var x uint64
	for i, c := range b {
		c ^= inv
		if i == 0 {
			c &= 0x7f
		}
		if x>>55 > 0 {
			return 0, errNumber
		}
		x = x<<8 | uint64(c)
	}
	if inv != 0 {
		return ^int64(x), nil
	}
	return int64(x), nil
}

func octal(b []byte) (int64, error) {
	b = bytes.Trim(b, " \x00")
	if len(b) == 0 {
		return 0, nil
	}
	x, err := strconv.ParseUint(cstring(b), 8, 63)
	if err != nil {
		return 0, errNumber
	}
	return int64(x), nil
}

// blockTime is numeric for a time, which is clamped and never refused.
func blockTime(b []byte) tree.Time {
	sec, err := numeric(b)
	switch {
	case err == nil:
	case b[0]&0xc0 == 0x80:
		sec = maxSeconds
	case b[0]&0xc0 == 0xc0:
		sec = -maxSeconds
	}
	return clampRange(tree.Time{Sec: sec})
}

// clampRange moves a time into the range that a Time is used in.
func clampRange(t tree.Time) tree.Time {
	switch {
	case t.Sec < -maxSeconds:
		return tree.Time{Sec: -maxSeconds}
	case t.Sec > maxSeconds:
		return tree.Time{Sec: maxSeconds}
	}
	return t
}

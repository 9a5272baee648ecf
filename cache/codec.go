package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbuild/fbuild/tree"
)

// On-disk format of a record, version 1. Numbers are varints, strings and
// values length-prefixed bytes.
//
//	magic "fbrec01\n"
//	kind, key: so that a file under a wrong name answers nothing
//	blobs:  count, digests
//	layers: count, diffIDs
//	value
//	sha256 of all of the above, 32 bytes
const recordMagic = "fbrec01\n"

// maxRecord bounds a record on the disk.
const maxRecord = 16 << 20 // traces are the largest

var errCorrupt = errors.New("corrupt record")

func encodeRecord(kind, key string, r Record) []byte {
	b := make([]byte, 0, len(recordMagic)+len(kind)+len(key)+len(r.Value)+80*(len(r.Blobs)+len(r.Layers))+64)
	b = append(b, recordMagic...)
	b = appendString(b, kind)
	b = appendString(b, key)
	for _, list := range [][]tree.Digest{r.Blobs, r.Layers} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, d := range list {
			b = appendString(b, string(d))
		}
	}
	b = appendString(b, string(r.Value))
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeRecord reads what encodeRecord wrote; anything else is errCorrupt.
func decodeRecord(b []byte) (kind, key string, r Record, err error) {
	end := len(b) - sha256.Size
	if end < len(recordMagic) || !bytes.HasPrefix(b, []byte(recordMagic)) {
		return "", "", Record{}, errCorrupt
	}
	if sum := sha256.Sum256(b[:end]); !bytes.Equal(sum[:], b[end:]) {
		return "", "", Record{}, fmt.Errorf("%w: checksum differs", errCorrupt)
	}
	d := fieldReader{b: b[len(recordMagic):end]}
	kind, key = string(d.bytes()), string(d.bytes())
	r.Blobs, r.Layers = d.digests(), d.digests()
	r.Value = bytes.Clone(d.bytes())
	if len(d.b) > 0 {
		d.bad = true
	}
	if d.bad {
		return "", "", Record{}, errCorrupt
	}
	return kind, key, r, nil
}

// fieldReader takes fields from the front of b; after a bad one all are empty.
type fieldReader struct {
	b   []byte
	bad bool
}

func (d *fieldReader) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *fieldReader) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *fieldReader) digests() []tree.Digest {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
	}
	if d.bad || n == 0 {
		return nil
	}
	out := make([]tree.Digest, n)
	for i := range out {
		out[i] = tree.Digest(d.bytes())
		if checkDigest(out[i]) != nil {
			d.b, d.bad = nil, true
			return nil
		}
	}
	return out
}

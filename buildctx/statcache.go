package buildctx

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// cacheMagic begins a stat cache.
//
// On-disk format, version 1: the magic, then the entries in the order of their paths' bytes, then 16 bytes of the SHA-256
// of everything before. An entry is
//
//	uvarint length of the path, the path
//	uvarint size; varint seconds and uvarint nanoseconds of mtime, the same of ctime; uvarint inode
//	1 byte   in how many writes of the file it was not used
//	32 bytes SHA-256 of the contents
//
// A file of any other form is treated as none. It is replaced by rename and never changed in place.
const cacheMagic = "fbuild-stat1\n"

const (
	sumSize = 16
	// maxCache bounds the file that is read: about ten million entries.
	maxCache = 1 << 30
	// maxAge is how many writes an entry survives that nobody asks for.
	maxAge = 16
	// Two changes within the granularity of a file system's clock can leave equal times behind (LAWS 23).
	coarseSlack = 2 * time.Second
	fineSlack   = 100 * time.Millisecond
)

// signature is what must be equal for a digest to be that of the file.
type signature struct {
	size         int64
	mtime, ctime tree.Time
	ino          uint64
}

func signatureOf(st *unix.Stat_t) signature {
	return signature{
		size:  st.Size,
		mtime: tree.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)},
		ctime: tree.Time{Sec: st.Ctim.Sec, Nsec: int32(st.Ctim.Nsec)},
		ino:   st.Ino,
	}
}

// entry is one remembered digest.
type entry struct {
	path string
	sig  signature
	age  byte
	sum  string // 32 bytes
}

// statCache remembers the digests of files between builds.
type statCache struct {
	file string
	fine bool // the file system's clock is finer than fineSlack

	data string   // the old file's entries
	at   []uint32 // where each begins

	mu    sync.Mutex
	used  []bool // of the old entries
	fresh map[string]entry
}

// openStatCache reads FILE; whatever is wrong with it makes an empty cache.
func openStatCache(file string, fine bool) *statCache {
	s := &statCache{file: file, fine: fine, fresh: map[string]entry{}}
	if file == "" {
		return s
	}
	data, err := readBounded(file)
	if err != nil {
		return s
	}
	if at, ok := decodeCache(data); ok {
		s.data, s.at, s.used = data, at, make([]bool, len(at))
	}
	return s
}

func readBounded(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Size() > maxCache {
		return "", errors.New("too large")
	}
	var b strings.Builder
	b.Grow(int(info.Size()))
	_, err = io.Copy(&b, io.LimitReader(f, maxCache))
	return b.String(), err
}

// decodeCache checks a cache and returns where its entries begin.
func decodeCache(data string) ([]uint32, bool) {
	if len(data) < len(cacheMagic)+sumSize || len(data) > maxCache || !strings.HasPrefix(data, cacheMagic) {
		return nil, false
	}
	end := len(data) - sumSize
	h := sha256.New()
	_, _ = io.WriteString(h, data[:end]) // a hash takes everything
	if string(h.Sum(nil)[:sumSize]) != data[end:] {
		return nil, false
	}
	at := make([]uint32, 0, end/100)
	last := ""
	for pos := len(cacheMagic); pos < end; {
		e, n, ok := decodeEntry(data[pos:end])
		if !ok || len(at) > 0 && e.path <= last {
			return nil, false
		}
		at, last = append(at, uint32(pos)), e.path
		pos += n
	}
	return at, true
}

// decodeEntry reads the entry at the start of DATA and returns its length.
func decodeEntry(data string) (entry, int, bool) {
	d := decoder{rest: data, ok: true}
	var e entry
	e.path = d.bytes(d.uvarint())
	e.sig.size = int64(d.uvarint())
	e.sig.mtime = tree.Time{Sec: d.varint(), Nsec: int32(d.uvarint())}
	e.sig.ctime = tree.Time{Sec: d.varint(), Nsec: int32(d.uvarint())}
	e.sig.ino = d.uvarint()
	if age := d.bytes(1); age != "" {
		e.age = age[0]
	}
	e.sum = d.bytes(sha256.Size)
	return e, len(data) - len(d.rest), d.ok
}

// decoder reads fields off the front of a string; ok turns false for good when one is not there.
type decoder struct {
	rest string
	ok   bool
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64; i++ {
		b := d.rest[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			d.rest = d.rest[i+1:]
			return v
		}
	}
	d.ok = false
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) bytes(n uint64) string {
	if n > uint64(len(d.rest)) {
		d.ok = false
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func appendEntry(b []byte, e *entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.path)))
	b = append(b, e.path...)
	b = binary.AppendUvarint(b, uint64(e.sig.size))
	for _, t := range []tree.Time{e.sig.mtime, e.sig.ctime} {
		b = binary.AppendVarint(b, t.Sec)
		b = binary.AppendUvarint(b, uint64(uint32(t.Nsec)))
	}
	b = binary.AppendUvarint(b, e.sig.ino)
	b = append(b, e.age)
	return append(b, e.sum...)
}

func (s *statCache) old(i int) entry {
	e, _, _ := decodeEntry(s.data[s.at[i] : len(s.data)-sumSize])
	return e
}

// lookup returns the digest of a file that looks like SIG.
func (s *statCache) lookup(p string, sig signature) (tree.Digest, bool) {
	s.mu.Lock()
	e, ok := s.fresh[p]
	s.mu.Unlock()
	if !ok {
		var i int
		if i, ok = slices.BinarySearchFunc(s.at, p, func(at uint32, p string) int {
			e, _, _ := decodeEntry(s.data[at:])
			return strings.Compare(e.path, p)
		}); ok {
			e = s.old(i)
			s.mu.Lock()
			s.used[i] = true
			s.mu.Unlock()
		}
	}
	if !ok || e.sig != sig {
		return "", false
	}
	return tree.Digest("sha256:" + hex.EncodeToString([]byte(e.sum))), true
}

// add remembers the digest of a file whose hashing began at START, unless a change after START could have left the same
// times (git calls such entries racy).
func (s *statCache) add(p string, sig signature, d tree.Digest, start time.Time) {
	algorithm, digits, _ := strings.Cut(string(d), ":")
	sum, err := hex.DecodeString(digits)
	if s.file == "" || algorithm != "sha256" || err != nil || len(sum) != sha256.Size {
		return
	}
	limit := tree.TimeOf(start.Add(-s.slack(sig)))
	if !sig.mtime.Before(limit) || !sig.ctime.Before(limit) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh[p] = entry{path: p, sig: sig, sum: string(sum)}
}

// slack is how much older than its hashing a file must be. Only the kernel sets ctime: a fraction in it shows a clock finer
// than a second.
func (s *statCache) slack(sig signature) time.Duration {
	if s.fine && sig.ctime.Nsec != 0 {
		return fineSlack
	}
	return coarseSlack
}

// fineTimes reports whether files below FD have times as fine as the kernel's own clock.
func fineTimes(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// save replaces the file where there is something new.
func (s *statCache) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == "" || len(s.fresh) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return fmt.Errorf("write stat cache: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), filepath.Base(s.file)+".tmp")
	if err != nil {
		return fmt.Errorf("write stat cache: %w", err)
	}
	_, err = f.Write(s.encode())
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.file)
	}
	if err != nil {
		return fmt.Errorf("write stat cache: %w", errors.Join(err, os.Remove(f.Name())))
	}
	clear(s.fresh)
	return nil
}

// encode merges old and new entries, both in order. Old ones that nobody used grow older and go at last.
func (s *statCache) encode() []byte {
	paths := make([]string, 0, len(s.fresh))
	for p := range s.fresh {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	var b bytes.Buffer
	b.Grow(len(s.data) + 128*len(paths))
	b.WriteString(cacheMagic)
	var scratch []byte
	write := func(e *entry) {
		scratch = appendEntry(scratch[:0], e)
		b.Write(scratch)
	}
	flush := func(before string, all bool) {
		for len(paths) > 0 && (all || paths[0] <= before) {
			e := s.fresh[paths[0]]
			write(&e)
			paths = paths[1:]
		}
	}
	for i := range s.at {
		e := s.old(i)
		flush(e.path, false)
		if _, replaced := s.fresh[e.path]; replaced {
			continue
		}
		if e.age++; s.used[i] {
			e.age = 0
		}
		if e.age <= maxAge {
			write(&e)
		}
	}
	flush("", true)
	sum := sha256.Sum256(b.Bytes())
	b.Write(sum[:sumSize])
	return b.Bytes()
}

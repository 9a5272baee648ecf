package layer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// header is what one entry says of itself, to be written.
type header struct {
	name, link   string
	typ          byte
	mode         uint32
	uid, gid     uint32
	size         int64 // bytes of data that follow
	mtime        int64
	major, minor uint32
	xattrs       []tree.Xattr
	// sparse, where set, is the size with holes of a file whose data starts with
	// a map.
	sparse int64
}

// Widths of USTAR's numbers in octal digits.
const (
	digitsID   = 7
	digitsSize = 11
)

// encode returns the blocks of h: USTAR, with a PAX header before it where USTAR
// cannot say it (never GNU's base-256). Nothing in it depends on the clock, the
// machine or the Go release.
func (h *header) encode() ([]byte, error) {
	var recs []string
	add := func(key, value string) { recs = append(recs, paxFormat(key, value)) }
	var b block
	copy(b[257:], magicUSTAR+"00")
	b[156] = h.typ

	name := h.name
	if h.sparse > 0 {
		// As GNU tar does: the name for readers that know nothing of holes
		// tells them so.
		_, base := tree.Split(h.name)
		name = "GNUSparseFile.0/" + ascii(base, 80)
		add(paxSparseMajor, "1")
		add(paxSparseMinor, "0")
		add(paxSparseName, h.name)
		add(paxSparseReal, strconv.FormatInt(h.sparse, 10))
	}
	if prefix, rest, ok := splitName(name); ok {
		copy(b[0:100], rest)
		copy(b[345:500], prefix)
	} else {
		copy(b[0:100], ascii(name, 100))
		add(paxPath, name)
	}
	if len(h.link) <= 100 && isASCII(h.link) {
		copy(b[157:257], h.link)
	} else {
		copy(b[157:257], ascii(h.link, 100))
		add(paxLinkpath, h.link)
	}
	putOctal(b[100:108], int64(h.mode))
	number := func(field []byte, digits int, key string, v int64) {
		if v < 0 || v >= 1<<(3*digits) {
			add(key, strconv.FormatInt(v, 10))
			v = 0
		}
		putOctal(field, v)
	}
	number(b[108:116], digitsID, paxUID, int64(h.uid))
	number(b[116:124], digitsID, paxGID, int64(h.gid))
	number(b[124:136], digitsSize, paxSize, h.size)
	number(b[136:148], digitsSize, paxMtime, h.mtime)
	putOctal(b[329:337], int64(h.major))
	putOctal(b[337:345], int64(h.minor))
	for _, x := range h.xattrs {
		add(paxXattr+x.Name, x.Value)
	}
	b.seal()
	if recs == nil {
		return b[:], nil
	}
	// Sorted by key: no key is the start of another one up to its "=".
	slices.SortFunc(recs, func(a, b string) int { return strings.Compare(paxTail(a), paxTail(b)) })
	body := strings.Join(recs, "")
	if len(body) > maxSpecial {
		return nil, fmt.Errorf("its attributes take %d bytes, more than readers of tar accept", len(body))
	}
	return append(paxBlocks(name, body), b[:]...), nil
}

// paxBlocks is the extended header that holds body.
func paxBlocks(name, body string) []byte {
	var b block
	copy(b[257:], magicUSTAR+"00")
	b[156] = typePax
	_, base := tree.Split(strings.TrimSuffix(name, "/"))
	copy(b[0:100], "PaxHeaders.0/"+ascii(base, 80))
	putOctal(b[100:108], 0)
	putOctal(b[108:116], 0)
	putOctal(b[116:124], 0)
	putOctal(b[124:136], int64(len(body)))
	putOctal(b[136:148], 0)
	putOctal(b[329:337], 0)
	putOctal(b[337:345], 0)
	b.seal()
	return slices.Concat(b[:], []byte(body), zeroBlock[:-len(body)&(blockSize-1)])
}

// seal puts the checksum in.
func (b *block) seal() {
	copy(b[148:156], "        ")
	var sum int64
	for _, c := range b {
		sum += int64(c)
	}
	putOctal(b[148:155], sum)
}

// putOctal fills field with leading zeros and a NUL.
func putOctal(field []byte, v int64) {
	s := strconv.FormatInt(v, 8)
	digits := len(field) - 1
	copy(field, strings.Repeat("0", digits-len(s))+s)
	field[digits] = 0
}

// paxFormat writes "LEN KEY=VALUE\n", where LEN counts itself.
func paxFormat(key, value string) string {
	n := len(key) + len(value) + 3
	size := n + len(strconv.Itoa(n))
	if digits := len(strconv.Itoa(size)); n+digits != size {
		size = n + digits
	}
	return strconv.Itoa(size) + " " + key + "=" + value + "\n"
}

func paxTail(rec string) string {
	_, tail, _ := strings.Cut(rec, " ")
	return tail
}

// splitName divides a name over USTAR's two fields.
func splitName(name string) (prefix, rest string, ok bool) {
	if !isASCII(name) {
		return "", "", false
	}
	if len(name) <= 100 {
		return "", name, true
	}
	if len(name) > 256 {
		return "", "", false
	}
	// The longest prefix: the last slash that leaves something behind it.
	head := name[:min(156, len(name)-1)]
	i := strings.LastIndexByte(head, '/')
	if i <= 0 || len(name)-i-1 > 100 {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// ascii is what USTAR shows of a name that stands in a PAX record.
func ascii(s string, limit int) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < limit; i++ {
		if s[i] < 0x80 {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

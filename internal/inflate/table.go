package inflate

import "math/bits"

const (
	maxLit, maxDist = 288, 32
	maxCode         = 15 // bits of a code
	endOfBlock      = 256

	litBits, distBits = 11, 8 // what the first look into a table takes
	// Entries that codes of 288 (32) symbols take at most are 2,342 (402); powers of two
	// need no check of bounds.
	litSize, distSize = 4096, 512
)

// An entry of a table. Its low byte is how many bits the code takes.
//
//	literal       isLiteral, its byte in bits 16 to 23
//	match         length or distance in bits 16 to 30, extra bits in 8 to 12
//	end of block  isSpecial
//	longer codes  isSpecial and isPointer, where their table starts in bits 16 to 30, bits of it in 8 to 12
//	no such code  isSpecial and isBad
const (
	isLiteral = 1 << 31
	isSpecial = 1 << 15
	isPointer = 1 << 14
	isBad     = 1 << 13
)

type (
	litTable  [litSize]uint32
	distTable [distSize]uint32
)

// Entries of the symbols, without the lengths of their codes.
var (
	litEntries  = makeLit()
	distEntries = makeDist()
)

func makeLit() (out [maxLit]uint32) {
	for i := range endOfBlock {
		out[i] = isLiteral | uint32(i)<<16
	}
	out[endOfBlock] = isSpecial
	base := uint32(3)
	for i := range 28 {
		extra := uint32(max(i/4-1, 0))
		out[257+i] = base<<16 | extra<<8
		base += 1 << extra
	}
	out[285] = maxMatch << 16
	out[286], out[287] = isSpecial|isBad, isSpecial|isBad
	return out
}

func makeDist() (out [maxDist]uint32) {
	base := uint32(1)
	for i := range 30 {
		extra := uint32(max(i/2-1, 0))
		out[i] = base<<16 | extra<<8
		base += 1 << extra
	}
	out[30], out[31] = isSpecial|isBad, isSpecial|isBad
	return out
}

// codeEntries are those of the code in which the lengths of the others are written.
var codeEntries = func() (out [19]uint32) {
	for i := range out {
		out[i] = uint32(i) << 16
	}
	return out
}()

// build fills a table whose first look takes root bits from the lengths of the symbols'
// codes. It reports false for lengths that make no code: too many for the bits, or too
// few, but for none at all and a single one of one bit.
func build(table []uint32, root uint, lens []uint8, entries []uint32) bool {
	var count [maxCode + 1]int
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	left, used := 1, 0
	for l := 1; l <= maxCode; l++ {
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
		used += count[l]
	}
	if left > 0 {
		if used > 1 || used == 1 && count[1] != 1 {
			return false
		}
		for i := range table[:1<<root] {
			table[i] = isSpecial | isBad | 1
		}
	}
	// Symbols in the order of their codes.
	var first [maxCode + 2]int
	for l := 1; l <= maxCode; l++ {
		first[l+1] = first[l] + count[l]
	}
	var sorted [maxLit]uint16
	for s, l := range lens {
		if l != 0 {
			sorted[first[l]] = uint16(s)
			first[l]++
		}
	}
	fill(table, root, sorted[:used], lens, entries, &count)
	return true
}

// fill writes the entries of symbols in the order of their codes; count is how many codes
// of each length are to come.
func fill(table []uint32, root uint, sorted []uint16, lens []uint8, entries []uint32, count *[maxCode + 1]int) {
	code, length := 0, uint(0)
	prefix, start, size, next := -1, 0, uint(0), 1<<root
	for _, s := range sorted {
		l := uint(lens[s])
		code <<= l - length
		length = l
		rev := int(bits.Reverse16(uint16(code)) >> (16 - l))
		code++
		if l <= root {
			e := entries[s] | uint32(l)
			for i := rev; i < 1<<root; i += 1 << l {
				table[i] = e
			}
			count[l]--
			continue
		}
		if p := rev & (1<<root - 1); p != prefix {
			prefix, start = p, next
			size = l - root
			for room := 1<<size - count[l]; root+size < maxCode && room > 0; {
				size++
				room = room<<1 - count[root+size]
			}
			next += 1 << size
			table[p] = isSpecial | isPointer | uint32(start)<<16 | uint32(size)<<8 | uint32(root)
		}
		e := entries[s] | uint32(l-root)
		for i := rev >> root; i < 1<<size; i += 1 << (l - root) {
			table[start+i] = e
		}
		count[l]--
	}
}

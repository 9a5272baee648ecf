package layer

import (
	"hash/crc32"
	"math/bits"
)

// crcCombine returns the CRC-32 of two runs one after the other, from that of
// each and the length of the second (the method of zlib): the CRC of the first is
// multiplied by x^(8n) modulo the polynomial.
func crcCombine(a, b uint32, n int64) uint32 {
	return crcMul(crcPower(8*uint64(n)), a) ^ b
}

// crcMul multiplies two polynomials in the bit-reversed form of CRC-32.
func crcMul(a, b uint32) uint32 {
	var p uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			p ^= b
		}
		b = b>>1 ^ crc32.IEEE&-(b&1)
	}
	return p
}

// crcPower returns x^n.
func crcPower(n uint64) uint32 {
	p, square := uint32(1)<<31, uint32(1)<<30 // x^0, x^1
	for range bits.Len64(n) {
		if n&1 != 0 {
			p = crcMul(square, p)
		}
		square = crcMul(square, square)
		n >>= 1
	}
	return p
}

package inflate

import "encoding/binary"

// codeOrder is the order in which the lengths of the code of lengths are written.
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// header reads the header of a block, all of which is in the view.
func (r *Reader) header() error {
	r.need()
	r.last = r.take(1) == 1
	switch r.take(2) {
	case 0:
		r.take(r.n % 8)
		r.in -= int(r.n / 8)
		r.bits, r.n = 0, 0
		b := r.view[r.in : r.in+4]
		r.left = int(binary.LittleEndian.Uint16(b))
		if r.left != int(^binary.LittleEndian.Uint16(b[2:])) {
			return ErrCorrupt
		}
		r.in += 4
		r.state = inStored
		return nil
	case 1:
		r.fixed()
	case 2:
		if !r.dynamic() {
			return ErrCorrupt
		}
	default:
		return ErrCorrupt
	}
	r.state = inCodes
	return nil
}

// fixed makes the tables of the code that every decoder knows.
func (r *Reader) fixed() {
	for i := range maxLit {
		switch {
		case i < 144:
			r.lens[i] = 8
		case i < 256:
			r.lens[i] = 9
		case i < 280:
			r.lens[i] = 7
		default:
			r.lens[i] = 8
		}
	}
	for i := range maxDist {
		r.lens[maxLit+i] = 5
	}
	build(r.lit[:], litBits, r.lens[:maxLit], litEntries[:])
	build(r.dist[:], distBits, r.lens[maxLit:], distEntries[:])
}

// dynamic reads the codes of a block and makes their tables.
func (r *Reader) dynamic() bool {
	lits, dists, codes := r.take(5)+257, r.take(5)+1, r.take(4)+4
	if lits > 286 || dists > 30 {
		return false
	}
	var lens [19]uint8
	for i := range codes {
		r.need()
		lens[codeOrder[i]] = uint8(r.take(3))
	}
	const root = 7
	var table [1 << root]uint32
	if !build(table[:], root, lens[:], codeEntries[:]) {
		return false
	}
	for i := 0; i < lits+dists; {
		r.need()
		e := table[r.bits&(1<<root-1)]
		if e&isSpecial != 0 || e == 0 {
			return false
		}
		r.take(uint(e & 0xff))
		value, times := uint8(e>>16), 1
		switch value {
		case 16:
			if i == 0 {
				return false
			}
			value, times = r.lens[i-1], 3+r.take(2)
		case 17:
			value, times = 0, 3+r.take(3)
		case 18:
			value, times = 0, 11+r.take(7)
		}
		if times > lits+dists-i {
			return false
		}
		for range times {
			r.lens[i] = value
			i++
		}
	}
	return r.lens[endOfBlock] != 0 &&
		build(r.lit[:], litBits, r.lens[:lits], litEntries[:]) && build(r.dist[:], distBits, r.lens[lits:lits+dists], distEntries[:])
}

// codes decodes literals and matches until the block, the view or the room for output
// ends. It is one loop, and its state is in local variables, for speed.
func (r *Reader) codes() error { //nolint:gocognit // see above
	out, view := r.out, r.view
	if r.real < len(view) { // one turn at a time: step drops what was made of zeros
		view = view[:r.in+inSlack]
	}
	buf, n, in, pos := r.bits, r.n, r.in, r.pos
	lit, dist := &r.lit, &r.dist
	var err error
loop:
	for in+inSlack <= len(view) && pos <= len(out)-outSlack {
		buf |= binary.LittleEndian.Uint64(view[in:in+8]) << (n & 63)
		in += int((63 - n) >> 3)
		n |= 56
		e := lit[buf&(1<<litBits-1)]
		if e&isLiteral != 0 {
			out[pos] = byte(e >> 16)
			pos++
			buf >>= e & 63
			n -= uint(e & 63)
			if e = lit[buf&(1<<litBits-1)]; e&isLiteral != 0 {
				out[pos] = byte(e >> 16)
				pos++
				buf >>= e & 63
				n -= uint(e & 63)
				if e = lit[buf&(1<<litBits-1)]; e&isLiteral != 0 {
					out[pos] = byte(e >> 16)
					pos++
					buf >>= e & 63
					n -= uint(e & 63)
					continue
				}
			}
		}
		if e&isSpecial != 0 {
			if e&isPointer != 0 {
				buf >>= litBits
				n -= litBits
				e = lit[(uint64(e>>16)+buf&(1<<(e>>8&15)-1))&(litSize-1)]
			}
			switch {
			case e&isLiteral != 0:
				out[pos] = byte(e >> 16)
				pos++
				buf >>= e & 63
				n -= uint(e & 63)
				continue
			case e&isBad != 0:
				err = ErrCorrupt
				break loop
			case e&isSpecial != 0:
				buf >>= e & 63
				n -= uint(e & 63)
				r.blockEnds()
				break loop
			}
		}
		// At most 22 bits went to literals, or 11 to a pointer; a length takes 20.
		buf >>= e & 63
		n -= uint(e & 63)
		length := int(e >> 16)
		if extra := e >> 8 & 15; extra != 0 {
			length += int(buf & (1<<extra - 1))
			buf >>= extra
			n -= uint(extra)
		}
		buf |= binary.LittleEndian.Uint64(view[in:in+8]) << (n & 63)
		in += int((63 - n) >> 3)
		n |= 56
		e = dist[buf&(1<<distBits-1)]
		if e&isSpecial != 0 {
			if e&isPointer != 0 {
				buf >>= distBits
				n -= distBits
				e = dist[(uint64(e>>16)+buf&(1<<(e>>8&15)-1))&(distSize-1)]
			}
			if e&isBad != 0 {
				err = ErrCorrupt
				break
			}
		}
		buf >>= e & 63
		n -= uint(e & 63)
		extra := e >> 8 & 15
		back := int(e>>16) + int(buf&(1<<extra-1))
		buf >>= extra
		n -= uint(extra)
		if back > pos {
			err = ErrCorrupt
			break
		}
		match(out, pos, back, length)
		pos += length
	}
	r.bits, r.n, r.in, r.pos = buf, n, in, pos
	return err
}

// match repeats length bytes from back bytes before pos. It may write up to 15 bytes
// behind them.
func match(out []byte, pos, back, length int) {
	from := pos - back
	if back >= 8 {
		binary.LittleEndian.PutUint64(out[pos:pos+8], binary.LittleEndian.Uint64(out[from:from+8]))
		binary.LittleEndian.PutUint64(out[pos+8:pos+16], binary.LittleEndian.Uint64(out[from+8:from+16]))
		if length <= 16 {
			return
		}
		if back >= length {
			copy(out[pos+16:pos+length], out[from+16:from+length])
			return
		}
		for i := 16; i < length; i += 8 {
			binary.LittleEndian.PutUint64(out[pos+i:pos+i+8], binary.LittleEndian.Uint64(out[from+i:from+i+8]))
		}
		return
	}
	if back == 1 {
		word := uint64(out[from]) * 0x0101010101010101
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(out[pos+i:pos+i+8], word)
		}
		return
	}
	for i := range length {
		out[pos+i] = out[from+i]
	}
}

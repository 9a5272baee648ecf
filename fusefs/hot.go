package fusefs

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Opcodes of the requests that are frequent, from the kernel's fuse.h.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opReadlink    = 5
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opFsync       = 20
	opGetxattr    = 22
	opInit        = 26
	opReleasedir  = 29
	opCreate      = 35
	opInterrupt   = 36
	opBatchForget = 42
	opReaddirPlus = 44
	opRename2     = 45

	opcodes = 64 // more than there are
)

const none = -1 // no reply

// hot answers the frequent requests without parsing them twice and without
// allocations of its own: size bytes behind the reply's header.
func (w *worker) hot(h *fuse.InHeader) (size int, st fuse.Status, known bool) {
	defer func() {
		if v := recover(); v != nil {
			size, st, known = 0, w.s.panicked(v), true
		}
	}()
	s := w.s
	switch h.Opcode {
	case opLookup:
		out := outAs[fuse.EntryOut](w)
		st = s.Lookup(nil, h, borrowed(w.rest(unsafe.Sizeof(*h))), out)
		return sizeOf(*out), st, true
	case opGetattr:
		out := outAs[fuse.AttrOut](w)
		st = s.GetAttr(nil, inAs[fuse.GetAttrIn](w), out)
		return sizeOf(*out), st, true
	case opSetattr:
		out := outAs[fuse.AttrOut](w)
		st = s.SetAttr(nil, inAs[fuse.SetAttrIn](w), out)
		return sizeOf(*out), st, true
	case opRead:
		in := inAs[fuse.ReadIn](w)
		if s.fills && s.readLater(in, w.device) {
			return none, fuse.OK, true
		}
		size, st = s.readInto(in, w.payload(in.Size))
		return size, st, true
	case opWrite:
		in, out := inAs[fuse.WriteIn](w), outAs[fuse.WriteOut](w)
		out.Size, st = s.writeFrom(&w.arena, in, w.tail[:w.n-headSize])
		return sizeOf(*out), st, true
	case opCreate:
		in, out := inAs[fuse.CreateIn](w), outAs[fuse.CreateOut](w)
		st = s.Create(nil, in, name(w.rest(unsafe.Sizeof(*in))), out)
		return sizeOf(*out), st, true
	case opForget:
		in := inAs[fuse.ForgetIn](w)
		s.Forget(in.NodeId, in.Nlookup)
		return none, fuse.OK, true
	case opBatchForget:
		w.forget()
		return none, fuse.OK, true
	case opRelease, opReleasedir, opFsync:
		return 0, fuse.OK, true // handles are nothing, and an interrupted RUN is thrown away (LAWS 33)
	case opInterrupt:
		return none, fuse.OK, true // the answer comes soon anyway
	}
	return w.warm(h)
}

// warm is the second half of hot.
func (w *worker) warm(h *fuse.InHeader) (size int, st fuse.Status, known bool) {
	s := w.s
	switch h.Opcode {
	case opReaddirPlus:
		in := inAs[fuse.ReadIn](w)
		list := fuse.NewDirEntryList(w.payload(in.Size), in.Offset)
		st = s.ReadDirPlus(nil, in, list)
		return len(list.Bytes()), st, true
	case opMkdir:
		in, out := inAs[fuse.MkdirIn](w), outAs[fuse.EntryOut](w)
		st = s.Mkdir(nil, in, name(w.rest(unsafe.Sizeof(*in))), out)
		return sizeOf(*out), st, true
	case opUnlink, opRmdir:
		st = s.remove(h, name(w.rest(unsafe.Sizeof(*h))), h.Opcode == opRmdir)
		return 0, st, true
	case opRename: // RENAME2 without flags
		const start = unsafe.Sizeof(*h) + 8
		in := fuse.RenameIn{InHeader: *h, Newdir: inAs[fuse.RenameIn](w).Newdir}
		from, to, _ := bytes.Cut(w.rest(start), []byte{0})
		return 0, s.Rename(nil, &in, string(from), name(to)), true
	case opRename2:
		in := inAs[fuse.RenameIn](w)
		from, to, _ := bytes.Cut(w.rest(unsafe.Sizeof(*in)), []byte{0})
		return 0, s.Rename(nil, in, string(from), name(to)), true
	case opReadlink:
		target, st := s.Readlink(nil, h)
		return copy(w.out[outSize:], target), st, true
	case opGetxattr:
		in := inAs[fuse.GetXAttrIn](w)
		if in.Size > maxXattr {
			return 0, fuse.OK, false
		}
		n, st := s.GetXAttr(nil, h, borrowed(w.rest(unsafe.Sizeof(*in))), w.payload(in.Size))
		if in.Size == 0 && (st == fuse.OK || st == fuse.ERANGE) { // only the size is asked for
			*outAs[fuse.GetXAttrOut](w) = fuse.GetXAttrOut{Size: n}
			return sizeOf(fuse.GetXAttrOut{}), fuse.OK, true
		}
		return int(n), st, true
	}
	return 0, fuse.OK, false
}

// forget is FUSE_BATCH_FORGET: a count, then pairs of an inode and a number.
func (w *worker) forget() {
	type pair struct{ id, n uint64 }
	const start = unsafe.Sizeof(fuse.ForgetIn{}) // the count, and padding
	n := (w.n - int(start)) / int(unsafe.Sizeof(pair{}))
	if n <= 0 {
		return
	}
	for _, p := range unsafe.Slice((*pair)(unsafe.Pointer(&w.in[start])), n) { //nolint:gosec // G103: within the request
		w.s.Forget(p.id, p.n)
	}
}

// rest is the request behind its fixed part.
func (w *worker) rest(start uintptr) []byte { return w.in[start:w.n] }

// payload is the room for a reply of so many bytes.
func (w *worker) payload(n uint32) []byte { return w.out[outSize : outSize+min(int(n), maxWrite)] }

// name is a name that a request ends with.
func name(b []byte) string { return string(cut(b)) }

// borrowed is name without a copy: it is valid until the next request.
func borrowed(b []byte) string {
	b = cut(b)
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // G103: nobody keeps it
}

func cut(b []byte) []byte {
	b, _, _ = bytes.Cut(b, []byte{0})
	return b
}

func sizeOf[T any](v T) int { return int(unsafe.Sizeof(v)) }

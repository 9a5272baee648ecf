package fusefs

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// headSize is the part of a request that does not land in the spool: the whole
	// header of a WRITE. What else is longer is put together again.
	headSize = int(unsafe.Sizeof(fuse.WriteIn{}))
	outSize  = int(unsafe.Sizeof(fuse.OutHeader{}))
)

// worker reads requests from the device and answers them, one after the other.
type worker struct {
	s      *step
	device int
	guest  bool      // of core
	core   *sameCore // nil for workers that need not look after it
	looks  int       // requests since core looked

	cold  *fuse.ProtocolServer // what is rare: parsed and dispatched by go-fuse
	arena arena
	tail  []byte // of arena
	in    []byte // the request, but for the payload of a WRITE
	n     int    // its length with the payload
	out   []byte // the reply
}

func (s *step) newWorker(cold *fuse.ProtocolServer) *worker {
	return &worker{
		s: s, device: s.device, cold: cold, arena: arena{sp: s.spool},
		in: make([]byte, headSize+tailRoom), out: make([]byte, outSize+maxWrite+block),
	}
}

// serve answers INIT, then starts workers that answer the rest until the kernel
// says that nothing can come any more (LAWS 12).
func (s *step) serve(workers int) error {
	s.spool.start(workers, s.fail)
	cold := fuse.NewProtocolServer(s, s.mountOptions())
	first := s.newWorker(cold)
	for s.counts[opInit].Load() == 0 {
		if more, err := first.next(); err != nil || !more {
			return errors.Join(err, errors.New("the kernel sent no INIT"))
		}
	}
	core := newSameCore(s)
	s.guest, first.core = core, core
	s.workers.Go(func() {
		for first.once() {
			if core != nil && core.on.Load() {
				core.watch()
			}
		}
	})
	for range workers - 1 {
		w := s.newWorker(cold)
		s.workers.Go(func() {
			for w.once() {
				if core != nil && core.on.Load() {
					core.rest()
				}
			}
		})
	}
	go func() {
		s.workers.Wait()
		if err := unix.Close(s.device); err != nil {
			s.fail(fmt.Errorf("close /dev/fuse: %w", err))
		}
		close(s.served)
		core.end()
		<-s.over
		if err := s.spool.drop(); err != nil {
			s.fail(err)
		}
	}()
	return nil
}

// once serves one request. It reports whether there can be more. Where it can't go
// on, nobody may wait for answers.
func (w *worker) once() bool {
	more, err := w.next()
	if err != nil {
		w.s.fail(fmt.Errorf("serve root: %w", err))
		if err := w.s.disconnect(); err != nil {
			w.s.fail(err)
		}
		return false
	}
	return more
}

// next answers one request. It reports whether there can be more.
func (w *worker) next() (more bool, err error) {
	if w.tail, err = w.arena.tail(); err != nil {
		return false, err
	}
	n, errno := w.read()
	switch {
	case errno == nil:
	case w.guest && errors.Is(errno, unix.EAGAIN):
		w.core.await()
		return true, nil
	case errors.Is(errno, unix.ENOENT), errors.Is(errno, unix.EINTR), errors.Is(errno, unix.EAGAIN):
		return true, nil // the caller gave up
	case errors.Is(errno, unix.ECONNABORTED):
		// The request was taken from the queue while the unmount cut the connection:
		// one that nobody waits for, the RELEASE of a file. The next read says ENODEV.
		return true, nil
	case errors.Is(errno, unix.ENODEV):
		return false, nil
	default:
		return false, fmt.Errorf("read request: %w", errno)
	}
	w.n = n
	if n < int(unsafe.Sizeof(fuse.InHeader{})) {
		return false, fmt.Errorf("read request: %d bytes are no request", n)
	}
	if n > headSize && w.header().Opcode != opWrite {
		copy(w.in[headSize:], w.tail[:n-headSize])
	}
	if w.guest {
		w.core.served.Add(1)
	}
	size := w.answer()
	if w.core != nil {
		w.core.answered(w)
	}
	if w.guest {
		w.core.served.Add(1)
	}
	if size == 0 {
		return true, nil
	}
	// ENOENT: the caller gave up. ENODEV: the next read says so as well.
	if _, err := unix.Write(w.device, w.out[:size]); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return false, fmt.Errorf("answer request %d: %w", w.header().Opcode, err)
	}
	return true, nil
}

// read takes the next request: its head, and what follows in the spool's tail.
func (w *worker) read() (int, error) {
	iov := [2]unix.Iovec{{Base: &w.in[0], Len: uint64(headSize)}, {Base: &w.tail[0], Len: tailRoom}}
	n, _, errno := unix.Syscall(unix.SYS_READV, uintptr(w.device), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov))) //nolint:gosec // G103: what the system call takes
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (w *worker) header() *fuse.InHeader { return inAs[fuse.InHeader](w) }

// inAs is the request as go-fuse's type for it. It is valid until the next.
func inAs[T any](w *worker) *T {
	return (*T)(unsafe.Pointer(&w.in[0])) //nolint:gosec // G103: in is longer than any request and aligned
}

// outAs is the zeroed place for the reply's fixed part.
func outAs[T any](w *worker) *T {
	out := (*T)(unsafe.Pointer(&w.out[outSize])) //nolint:gosec // G103: out is longer than any reply and aligned
	clear(w.out[outSize : outSize+int(unsafe.Sizeof(*out))])
	return out
}

// answer fills in the reply and returns its length, 0 for none.
func (w *worker) answer() int {
	h := w.header()
	if int(h.Opcode) < len(w.s.counts) {
		w.s.counts[h.Opcode].Add(1)
	}
	unique := h.Unique
	size, st, known := w.hot(h)
	switch {
	case !known:
		return w.rare(h)
	case size < 0:
		return 0
	case st != fuse.OK:
		size = 0
	}
	*(*fuse.OutHeader)(unsafe.Pointer(&w.out[0])) = fuse.OutHeader{Length: uint32(outSize + size), Status: -int32(st), Unique: unique} //nolint:gosec // G103: as outAs
	return outSize + size
}

// rare has go-fuse answer.
func (w *worker) rare(h *fuse.InHeader) int {
	if h.Opcode == opInit {
		// Before 6.6 a file can't be mapped through a handle that bypasses the cache.
		w.s.direct = inAs[fuse.InitIn](w).Flags64()&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0
	}
	n, st := w.cold.HandleRequest([][]byte{w.in[:w.n]}, [][]byte{w.out})
	if st != fuse.OK {
		w.s.fail(fmt.Errorf("serve root: request %d of %d bytes: %v", h.Opcode, w.n, st))
	}
	return n
}

// notifyAttr makes the kernel ask again for the attributes of an inode. Where it
// does not hold that any more, it need not be told.
func (s *step) notifyAttr(id uint64) {
	note := struct {
		fuse.OutHeader
		fuse.NotifyInvalInodeOut
	}{
		fuse.OutHeader{Status: -fuse.NOTIFY_INVAL_INODE},
		fuse.NotifyInvalInodeOut{Ino: id, Off: -1},
	}
	note.OutHeader.Length = uint32(unsafe.Sizeof(note))
	b := unsafe.Slice((*byte)(unsafe.Pointer(&note)), unsafe.Sizeof(note)) //nolint:gosec // G103: a struct without gaps
	if _, err := unix.Write(s.device, b); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		s.fail(fmt.Errorf("notify kernel of inode %d: %w", id, err))
	}
}

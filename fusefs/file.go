package fusefs

import (
	"errors"
	"fmt"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// regular returns the file that the kernel calls id, for what rule r is about.
func (s *step) regular(id uint64, r rule) (*inode, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(id)
	switch {
	case i == nil:
		return nil, fuse.Status(unix.ESTALE)
	case i.dir != nil:
		return nil, fuse.EISDIR
	case i.file == nil:
		return nil, fuse.EINVAL
	}
	s.sawBytes(i, r)
	return i, fuse.OK
}

// Open is never needed: after the first answer the kernel opens files alone and
// keeps what it has of them.
func (s *step) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Flush is close(2), which has nothing to do.
func (s *step) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync does nothing: an interrupted RUN is thrown away (LAWS 33).
func (s *step) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// FsyncDir does nothing, as Fsync.
func (s *step) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// Create is open(2) of a new file. The handle bypasses the page cache: its bytes
// are written once, and a GETXATTR for each write is saved.
func (s *step) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, st := s.make(&in.InHeader, name, unix.S_IFREG, in.Mode, in.Umask)
	if st != fuse.OK {
		return st
	}
	if s.direct {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
	}
	return s.entry(c, &out.EntryOut)
}

// Tmpfile is open(2) with O_TMPFILE.
func (s *step) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, st := s.directory(in.NodeId)
	if st != fuse.OK {
		return st
	}
	c := s.newIn(d, in.Owner, unix.S_IFREG, in.Mode, in.Umask)
	c.nlink = 0
	return s.entry(c, &out.EntryOut)
}

// Read is read(2).
func (s *step) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, st := s.readInto(in, buf)
	return fuse.ReadResultData(buf[:n]), st
}

// readInto is Read into buf.
func (s *step) readInto(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	i, st := s.regular(in.NodeId, ruleContent)
	if st != fuse.OK {
		return 0, st
	}
	i.file.mu.RLock()
	defer i.file.mu.RUnlock()
	off := int64(in.Offset)
	if off >= i.size {
		return 0, fuse.OK
	}
	n := min(int64(len(buf)), int64(in.Size), i.size-off)
	if err := s.read(i, buf[:n], off); err != nil {
		s.fail(err)
		return 0, fuse.EIO
	}
	return int(n), fuse.OK
}

// read fills p with the bytes at off, which the file has. The caller holds the
// contents. A short pack is an error, never zeros (LAWS 18).
func (s *step) read(i *inode, p []byte, off int64) error {
	c := i.file
	if !c.own {
		if _, err := s.packs.ReadAt(i.base, p, off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	}
	for k := c.find(off); len(p) > 0; k++ {
		if k == len(c.spans) || c.spans[k].at >= off+int64(len(p)) {
			clear(p)
			return nil
		}
		x := c.spans[k]
		if x.at > off {
			clear(p[:x.at-off])
			p, off = p[x.at-off:], x.at
		}
		n := min(int64(len(p)), x.end()-off)
		if err := s.readPack(x.pack, p[:n], x.src+off-x.at); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (s *step) readPack(number int32, p []byte, off int64) error {
	if number != 0 {
		return s.packs.Read(s.packID(number), p, off)
	}
	err := s.spool.readAt(p, off)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read pack %s at %d: %w", s.packID(0), off, err)
	}
	return nil
}

// Write is write(2).
func (s *step) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return s.writeFrom(nil, in, data)
}

// writeFrom is Write of data that may lie at the tail of a. It is answered when
// the bytes have their place on the disk, so that "no space left" reaches the
// program (LAWS 17); they go there later.
func (s *step) writeFrom(a *arena, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	i, st := s.regular(in.NodeId, ruleWrite)
	if st != fuse.OK {
		return 0, st
	}
	i.file.mu.Lock()
	defer i.file.mu.Unlock()
	s.take(i)
	n, err := s.write(a, i.file, int64(in.Offset), data)
	if n > 0 {
		s.wrote(i, int64(in.Offset)+int64(n), in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0)
	}
	if err != nil {
		st := s.writeError(err, in.WriteFlags&fuse.WRITE_CACHE != 0)
		if n == 0 || in.WriteFlags&fuse.WRITE_CACHE != 0 {
			return 0, st
		}
	}
	return uint32(n), fuse.OK
}

// wrote notes that bytes up to end were written. The caller holds the contents.
func (s *step) wrote(i *inode, end int64, killIDs bool) {
	if s.grown(i, end, killIDs) {
		// The kernel asks for time and size again after a write, not for the mode.
		s.notifyAttr(i.id)
	}
}

// grown is the part of wrote under the step's lock. It reports whether the mode changed.
func (s *step) grown(i *inode, end int64, killIDs bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched(i)
	i.size = max(i.size, end)
	s.written(i)
	return s.killPrivileges(i, killIDs)
}

// writeError is what the program is told. An error that no program sees, or that
// is no lack of space, fails the step.
func (s *step) writeError(err error, late bool) fuse.Status {
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
	if late || !full {
		s.fail(fmt.Errorf("write spool: %w", err))
	}
	if full {
		return fuse.Status(unix.ENOSPC)
	}
	return fuse.EIO
}

// truncate is the size part of SetAttr.
func (s *step) truncate(i *inode, size int64) fuse.Status {
	i.file.mu.Lock()
	defer i.file.mu.Unlock()
	if size < 0 {
		return fuse.EINVAL
	}
	if size == i.size {
		return fuse.OK
	}
	s.take(i)
	if size < i.size {
		if err := i.file.cut(s.spool, size, 1<<62); err != nil {
			return s.writeError(err, false)
		}
		if err := i.file.dropSlack(s.spool); err != nil {
			return s.writeError(err, false)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i.size = size
	return fuse.OK
}

// Fallocate is fallocate(2): room is not kept for holes, they stay holes.
func (s *step) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	const known = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if in.Mode&^known != 0 {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	i, st := s.regular(in.NodeId, ruleWrite)
	if st != fuse.OK {
		return st
	}
	i.file.mu.Lock()
	defer i.file.mu.Unlock()
	from, to := int64(in.Offset), int64(in.Offset+in.Length)
	if from < 0 || to <= from {
		return fuse.EINVAL
	}
	s.take(i)
	if in.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		if err := i.file.cut(s.spool, from, to); err != nil {
			return s.writeError(err, false)
		}
	}
	if in.Mode&unix.FALLOC_FL_KEEP_SIZE != 0 {
		to = 0
	}
	s.wrote(i, to, in.Uid != 0)
	return fuse.OK
}

// Lseek is lseek(2) with SEEK_DATA and SEEK_HOLE.
func (s *step) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	i, st := s.regular(in.NodeId, ruleContent)
	if st != fuse.OK {
		return st
	}
	i.file.mu.Lock()
	defer i.file.mu.Unlock()
	off := int64(in.Offset)
	if off < 0 || off >= i.size {
		return fuse.Status(unix.ENXIO)
	}
	s.take(i)
	spans := i.file.spans
	k := i.file.find(off)
	switch in.Whence {
	case unix.SEEK_DATA:
		if k == len(spans) {
			return fuse.Status(unix.ENXIO)
		}
		out.Offset = uint64(max(off, spans[k].at))
	case unix.SEEK_HOLE:
		for ; k < len(spans) && spans[k].at <= off; k++ {
			off = spans[k].end()
		}
		out.Offset = uint64(min(off, i.size))
	default:
		return fuse.EINVAL
	}
	return fuse.OK
}

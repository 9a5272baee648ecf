package fusefs

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// Contents of a base that is fetched as it is read may not be here when a program asks
// for them. The worker does not wait: a goroutine gets them and answers then.

// readLater reports whether a READ needs bytes that are not here; it is then answered
// from elsewhere.
func (s *step) readLater(in *fuse.ReadIn, device int) bool {
	i, st := s.regular(in.NodeId, ruleContent)
	if st != fuse.OK {
		return false
	}
	missing := s.missing(i, int64(in.Offset), int64(min(in.Size, maxWrite)))
	if len(missing) == 0 {
		return false
	}
	req := *in
	s.late.Add(1)
	s.workers.Go(func() { // a worker runs: nobody waits for the end yet
		defer s.late.Add(-1)
		s.readMissing(&req, device, missing)
	})
	return true
}

// missing are the places of n bytes at off that are in no pack yet.
func (s *step) missing(i *inode, off, n int64) []tree.Extent {
	c := i.file
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []tree.Extent
	look := func(id tree.PackID, at, length, src int64) {
		from, to := max(at, off), min(at+length, off+n)
		if from < to && s.packs.Waits(id, src+from-at, to-from) {
			out = append(out, tree.Extent{Pack: id, Off: src + from - at, Len: to - from})
		}
	}
	if !c.own {
		var at int64
		for k := 0; k < len(i.base.Extents) && at < off+n; k++ {
			x := &i.base.Extents[k]
			if x.Pack != "" {
				look(x.Pack, at, x.Len, x.Off)
			}
			at += x.Len
		}
		return out
	}
	for k := c.find(off); k < len(c.spans) && c.spans[k].at < off+n; k++ {
		if x := c.spans[k]; x.pack != 0 {
			look(s.packID(x.pack), x.at, x.n, x.src)
		}
	}
	return out
}

// readMissing gets what is missing, without the contents' lock, then answers by the
// descriptor that the READ came from: no other can.
func (s *step) readMissing(in *fuse.ReadIn, device int, missing []tree.Extent) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
			if err := s.disconnect(); err != nil { // who waits for the answer would for ever
				s.fail(err)
			}
		}
	}()
	var err error
	for _, x := range missing {
		if _, err = s.packs.At(x.Pack, x.Off, x.Len); err != nil {
			break
		}
	}
	reply := make([]byte, outSize+int(min(in.Size, maxWrite)))
	size, st := 0, fuse.EIO
	if err == nil {
		size, st = s.readInto(in, reply[outSize:])
	} else {
		s.fail(err)
	}
	head := fuse.OutHeader{Length: uint32(outSize + size), Status: -int32(st), Unique: in.Unique}
	*(*fuse.OutHeader)(unsafe.Pointer(&reply[0])) = head //nolint:gosec // G103: as outAs
	// ENOENT and ENODEV: nobody waits for it any more.
	if _, err := unix.Write(device, reply[:outSize+size]); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		s.fail(fmt.Errorf("answer late READ: %w", err))
	}
}

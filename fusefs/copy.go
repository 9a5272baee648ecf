package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// copyPiece bounds one answer to copy_file_range; the caller asks again.
const copyPiece = 16 << 20

// CopyFileRange is copy_file_range(2). Bytes of other packs are shared, those of
// the spool copied: a range of the spool has one owner.
func (s *step) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, st := s.regular(in.NodeId, ruleContent)
	if st != fuse.OK {
		return 0, st
	}
	to, st := s.regular(in.NodeIdOut, ruleWrite)
	if st != fuse.OK {
		return 0, st
	}
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	defer lockBoth(from, to)()
	src, dst := int64(in.OffIn), int64(in.OffOut)
	n := min(int64(min(in.Len, copyPiece)), from.size-src)
	if n <= 0 {
		return 0, fuse.OK
	}
	if from == to && src < dst+n && dst < src+n {
		return 0, fuse.EINVAL
	}
	s.take(from)
	s.take(to)
	done, err := s.copyRange(from, to, src, dst, n)
	if done > 0 {
		s.wrote(to, dst+done, in.Uid != 0)
	}
	if err != nil && done == 0 {
		return 0, s.writeError(err, false)
	}
	return uint32(done), fuse.OK
}

func lockBoth(a, b *inode) (unlock func()) {
	if a.id > b.id {
		a, b = b, a
	}
	a.file.mu.Lock()
	if a == b {
		return a.file.mu.Unlock
	}
	b.file.mu.Lock()
	return func() {
		b.file.mu.Unlock()
		a.file.mu.Unlock()
	}
}

func (s *step) copyRange(from, to *inode, src, dst, n int64) (int64, error) {
	var done int64
	for done < n {
		at, rest := src+done, n-done
		k := from.file.find(at)
		if k == len(from.file.spans) || from.file.spans[k].at >= at+rest {
			return n, to.file.cut(s.spool, dst+done, dst+n)
		}
		x := from.file.spans[k]
		switch {
		case x.at > at:
			rest = x.at - at
			if err := to.file.cut(s.spool, dst+done, dst+done+rest); err != nil {
				return done, err
			}
		case x.pack != 0:
			rest = min(rest, x.end()-at)
			if err := to.file.cut(s.spool, dst+done, dst+done+rest); err != nil {
				return done, err
			}
			to.file.put(span{dst + done, rest, x.src + at - x.at, x.pack})
		default:
			rest = min(rest, x.end()-at, maxWrite)
			buf := make([]byte, rest)
			if err := s.read(from, buf, at); err != nil {
				return done, err
			}
			if _, err := s.write(nil, to.file, dst+done, buf); err != nil {
				return done, err
			}
		}
		done += rest
	}
	return done, nil
}

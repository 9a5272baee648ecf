package fusefs

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// inode is an entry that was looked at or made. step.mu guards it, but for file.
type inode struct {
	id           uint64
	kind         uint32 // S_IFDIR, ...
	mode         uint32 // 07777
	uid, gid     uint32
	major, minor uint32
	nlink        uint32
	size         int64 // of a file: written under file.mu and step.mu, read under either
	mtime        tree.Time
	ctime        tree.Time
	atime        tree.Time
	target       string
	xattrs       []tree.Xattr // sorted; the slice may be the parent's: replace, never change

	base     *tree.Node // what it was in the parent, nil if the step made it
	basePath string     // the first path of base
	home     *inode     // of a directory: its parent; else where base stands
	homeName string
	dirty    bool // may differ from base
	stub     bool // shown for a mount
	lookups  uint64
	asked    asks // what the step asked of base
	fresh    bool // no byte is base's any more
	timed    bool // it was given a time
	noted    bool // it was written (settled.go)

	dir  *directory
	file *content
}

// Inode numbers of the parent's entries have bit 62; the step's own count from 2.
const baseBit = 1 << 62

// forever is how long the kernel may keep names and attributes: nobody but
// itself changes them.
const forever = 365 * 24 * time.Hour

func baseID(path string) uint64 {
	if path == "" {
		return fuse.FUSE_ROOT_ID
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(path)) // never fails
	x := h.Sum64()
	x ^= x >> 29 // FNV's high bits move slowly
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 32
	return x>>2 | baseBit
}

// nodeID is the inode number of the parent's entry at path.
func nodeID(n *tree.Node, path string) uint64 {
	if links := n.Links(); links != nil {
		path = links[0]
	}
	return baseID(path)
}

var kinds = map[tree.Kind]uint32{
	tree.Dir: unix.S_IFDIR, tree.File: unix.S_IFREG, tree.Symlink: unix.S_IFLNK,
	tree.Fifo: unix.S_IFIFO, tree.CharDevice: unix.S_IFCHR, tree.BlockDevice: unix.S_IFBLK,
}

// newBase makes the inode of the parent's entry n.
func (s *step) newBase(n *tree.Node, path string) *inode {
	id := nodeID(n, path)
	for s.inodes[id] != nil {
		id = id + 1 | baseBit // two paths with one hash: which is first depends on other names
		s.traces.doubts("the number of %q is that of another entry", "/"+path)
	}
	i := &inode{
		id: id, kind: kinds[n.Kind], mode: n.Mode, uid: n.UID, gid: n.GID,
		major: n.Major, minor: n.Minor, nlink: uint32(n.Nlink()), size: n.Size,
		mtime: n.Mtime, ctime: n.Mtime, atime: n.Mtime, target: n.Target, xattrs: n.Xattrs,
		base: n, basePath: path,
	}
	s.add(i)
	for k := range n.Extents {
		if n.Extents[k].Pack != "" {
			i.file.stored.Add(n.Extents[k].Len)
		}
	}
	if n.Kind == tree.Dir {
		s.baseDirs[path] = i
	}
	return i
}

// add enters i and gives it what its kind needs.
func (s *step) add(i *inode) {
	switch i.kind {
	case unix.S_IFDIR:
		i.dir = &directory{kids: map[string]*inode{}, last: firstBase}
	case unix.S_IFREG:
		i.file = &content{}
	}
	s.inodes[i.id] = i
}

// newInode makes an entry that the parent does not have.
func (s *step) newInode(kind, mode uint32, owner fuse.Owner) *inode {
	now := s.now()
	i := &inode{
		id: s.nextID, kind: kind, mode: mode & 0o7777, uid: owner.Uid, gid: owner.Gid,
		nlink: 1, mtime: now, ctime: now, atime: now, dirty: true,
	}
	s.nextID++
	s.add(i)
	if i.file != nil {
		i.file.own = true
	}
	return i
}

// now is the clock, later at every call, so that each change is seen in ctime.
func (s *step) now() tree.Time {
	t := tree.TimeOf(time.Now())
	if !s.last.Before(t) {
		t = tree.TimeOf(s.last.Time().Add(time.Nanosecond))
	}
	s.last = t
	return t
}

// changed notes that i's attributes are no longer the parent's.
func (s *step) changed(i *inode) {
	i.ctime, i.dirty = s.now(), true
}

// touched notes that a name in directory i changed.
func (s *step) touched(i *inode) {
	s.changed(i)
	i.mtime = i.ctime
}

// attr fills in what stat shows.
func (s *step) attr(i *inode, a *fuse.Attr) {
	*a = fuse.Attr{
		Ino: i.id, Mode: i.kind | i.mode, Nlink: i.nlink, Owner: fuse.Owner{Uid: i.uid, Gid: i.gid},
		Atime: uint64(i.atime.Sec), Atimensec: uint32(i.atime.Nsec),
		Mtime: uint64(i.mtime.Sec), Mtimensec: uint32(i.mtime.Nsec),
		Ctime: uint64(i.ctime.Sec), Ctimensec: uint32(i.ctime.Nsec),
		Size: uint64(i.size), Blksize: 4096,
	}
	switch i.kind {
	case unix.S_IFDIR:
		a.Size, a.Blocks = 4096, 8 // constant: it must not tell what else is in the image
	case unix.S_IFREG:
		a.Blocks = uint64(i.file.stored.Load()+block-1) / block * (block / 512) // as on a disk
	case unix.S_IFCHR, unix.S_IFBLK:
		a.Rdev = i.minor&0xff | i.major<<8 | i.minor&^0xff<<12
	}
}

// entry answers a request that yields an inode, which the kernel then holds.
func (s *step) entry(i *inode, out *fuse.EntryOut) fuse.Status {
	i.lookups++
	out.NodeId, out.Generation = i.id, 1
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	s.attr(i, &out.Attr)
	return fuse.OK
}

// inode returns the inode that the kernel calls id. The root's number is fixed.
func (s *step) inode(id uint64) *inode { return s.inodes[id] }

// Forget is what the kernel says when it no longer holds an inode.
func (s *step) Forget(id, n uint64) {
	if gone := s.forget(id, n); gone != nil {
		s.release(gone)
	}
}

func (s *step) forget(id, n uint64) (gone *inode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.inode(id)
	if i == nil || i == s.rootDir {
		return nil
	}
	i.lookups -= min(n, i.lookups)
	return s.dropIfUnused(i)
}

// dropIfUnused lets go of an inode that the kernel does not hold and that is
// either in no directory any more, which is returned so that its bytes can be
// released, or still just what the parent has.
func (s *step) dropIfUnused(i *inode) *inode {
	if i.lookups > 0 {
		return nil
	}
	if i.nlink == 0 {
		s.leave(i)
		delete(s.inodes, i.id)
		if i.dir != nil && i.base != nil {
			delete(s.baseDirs, i.basePath)
		}
		return i
	}
	h := i.home
	if i.dirty || i.base == nil || i.base.Links() != nil || h == nil || h.base == nil || h.dir.kids[i.homeName] != i || h.base.Child(i.homeName) != i.base {
		return nil
	}
	if i.dir != nil {
		if len(i.dir.kids) > 0 {
			return nil
		}
		delete(s.baseDirs, i.basePath)
	}
	s.leave(i)
	delete(h.dir.kids, i.homeName)
	delete(s.inodes, i.id)
	return nil
}

// release gives the spool ranges of an inode back that nobody can reach.
func (s *step) release(i *inode) {
	if i.file == nil {
		return
	}
	i.file.mu.Lock()
	defer i.file.mu.Unlock()
	err := i.file.cut(s.spool, 0, 1<<62)
	if serr := i.file.dropSlack(s.spool); err == nil {
		err = serr
	}
	if err != nil {
		s.fail(fmt.Errorf("free contents: %w", err))
	}
}

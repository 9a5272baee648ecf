package fusefs

import (
	"slices"
	"sort"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// maxName is the longest name that every unpacker takes (LAWS 21).
const maxName = 255

// Cookies of READDIR: 1 behind ".", 2 behind "..", then the names that were added,
// the newest first, then firstBase+k for the k-th name of the parent. A cookie is
// never given twice, so that a reader that goes on after any change misses and
// repeats nothing that stayed; and what is added while it reads stands behind it,
// so that one that adds a name for each that it reads comes to an end. All fit
// into 31 bits, for programs of 32.
const firstBase = 1 << 30

// directory is what lies over a directory of the parent, or over nothing.
type directory struct {
	kids  map[string]*inode // looked at, added or (nil) removed
	added map[string]uint64 // cookies of names that the parent has not, or had removed before
	order []addition        // by falling cookies; may hold names that are gone again
	last  uint64            // the lowest cookie that was given
}

type addition struct {
	name   string
	cookie uint64
}

// has reports whether name exists, without making an inode.
func (i *inode) has(name string) bool {
	if c, ok := i.dir.kids[name]; ok {
		return c != nil
	}
	return i.base != nil && i.base.Child(name) != nil
}

// child returns the entry called name, nil if there is none.
func (s *step) child(d *inode, name string) *inode {
	if c, ok := d.dir.kids[name]; ok {
		return c
	}
	if d.base == nil {
		return nil
	}
	n := d.base.Child(name)
	if n == nil {
		return nil
	}
	if n.Links() != nil {
		s.group(n)
		return d.dir.kids[name]
	}
	return s.load(d, name, n)
}

// load makes the inode of the parent's entry n in d, which has one name. The name
// may be borrowed.
func (s *step) load(d *inode, name string, n *tree.Node) *inode {
	name = strings.Clone(name)
	c := s.newBase(n, tree.Join(d.basePath, name))
	c.home, c.homeName = d, name
	d.dir.kids[name] = c
	return c
}

// group makes the inode of a hard link group and enters it under all its names,
// through the directories of the parent, wherever they stand by now.
func (s *step) group(n *tree.Node) {
	links := n.Links()
	c := s.newBase(n, links[0])
	for _, p := range links {
		dir, name := tree.Split(p)
		s.baseDir(dir).dir.kids[name] = c
	}
}

// baseDir returns the inode of the parent's directory at path. It can't have
// been removed while a name in it was never looked at.
func (s *step) baseDir(path string) *inode {
	if d := s.baseDirs[path]; d != nil {
		return d
	}
	up, name := tree.Split(path)
	d := s.baseDir(up)
	return s.load(d, name, d.base.Child(name))
}

// attach makes name in d stand for c.
func (i *inode) attach(name string, c *inode) {
	if !i.has(name) {
		if i.dir.added == nil {
			i.dir.added = map[string]uint64{}
		}
		i.dir.last--
		i.dir.added[name] = i.dir.last
		i.dir.order = append(i.dir.order, addition{name, i.dir.last})
	}
	i.dir.kids[name] = c
	if c.dir != nil {
		c.home, c.homeName = i, name
	}
}

// detach removes name from d.
func (i *inode) detach(name string) {
	if i.base != nil && i.base.Child(name) != nil {
		i.dir.kids[name] = nil
	} else {
		delete(i.dir.kids, name)
	}
	delete(i.dir.added, name)
	if len(i.dir.order) > 2*len(i.dir.added)+64 {
		i.dir.order = slices.DeleteFunc(i.dir.order, func(a addition) bool { return i.dir.added[a.name] != a.cookie })
	}
}

// each calls fn for every name from cookie from on, until it returns false.
func (i *inode) each(from uint64, fn func(name string, next uint64) bool) {
	for k := sort.Search(len(i.dir.order), func(k int) bool { return i.dir.order[k].cookie < from }) - 1; k >= 0; k-- {
		a := i.dir.order[k]
		if i.dir.added[a.name] == a.cookie && !fn(a.name, a.cookie+1) {
			return
		}
	}
	if i.base == nil {
		return
	}
	names := i.base.Names()
	for k := max(from, firstBase) - firstBase; k < uint64(len(names)); k++ {
		name := names[k]
		if _, again := i.dir.added[name]; again {
			continue
		}
		if c, ok := i.dir.kids[name]; ok && c == nil {
			continue
		}
		if !fn(name, firstBase+k+1) {
			return
		}
	}
}

func (i *inode) empty() bool {
	found := false
	i.each(0, func(string, uint64) bool {
		found = true
		return false
	})
	return !found
}

// Lookup is FUSE_LOOKUP; what is not there is cached as well.
func (s *step) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, st := s.directory(h.NodeId)
	if st != fuse.OK {
		return st
	}
	c := s.child(d, name)
	s.sawName(d, name, c)
	if c == nil {
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	if c.lookups == 0 {
		s.lookedUp(h.Pid, d, c)
	}
	return s.entry(c, out)
}

func (s *step) directory(id uint64) (*inode, fuse.Status) {
	d := s.inode(id)
	if d == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	if d.dir == nil {
		return nil, fuse.ENOTDIR
	}
	return d, fuse.OK
}

// OpenDir is FUSE_OPENDIR: directories need no handle.
func (s *step) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// ReadDirPlus is FUSE_READDIRPLUS, which is all that the kernel asks where it is offered.
// An entry without a number is a plain name.
func (s *step) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, st := s.directory(in.NodeId)
	if st != fuse.OK {
		return st
	}
	s.saw(d, ruleList)
	up := d.home
	if up == nil {
		up = d
	}
	if in.Offset < 1 && out.AddDirLookupEntry(fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: d.id, Off: 1}) == nil {
		return fuse.OK
	}
	if in.Offset < 2 && out.AddDirLookupEntry(fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: up.id, Off: 2}) == nil {
		return fuse.OK
	}
	w := s.walker(in.Pid, d, in.Offset)
	// ".." leads to cookie 2, names stand behind it.
	d.each(in.Offset, func(name string, next uint64) bool {
		e, c := fuse.DirEntry{Name: name, Off: next}, d.dir.kids[name]
		if c != nil {
			e.Ino, e.Mode = c.id, c.kind
		} else {
			n := d.base.Child(name)
			e.Ino, e.Mode = nodeID(n, tree.Join(d.basePath, name)), kinds[n.Kind]
		}
		plus := out.AddDirLookupEntry(e)
		if plus != nil && (c == nil || c.lookups == 0) && (w.gives(e.Mode, e.Ino) && s.give != giveNever || s.give == giveAlways) {
			s.given(d, name, plus)
		}
		return plus != nil
	})
	return fuse.OK
}

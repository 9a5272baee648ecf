package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A walk is what one thread of a program does with the directories that it lists.
//
// The kernel asks for the entries of a directory by READDIRPLUS, whose answer may hold,
// name by name, what a LOOKUP of it would give. A name that was given so is never asked
// for, so that nobody knows whether the program looked at it: it counts as looked up. So
// names are given only to a thread that looks at all that it finds, as rm -r, cp -r, tar
// and find -size do; one that lists a directory and looks at a few of its files, as
// Python's imports, make and shells do, gets plain names, and its trace holds what it
// looked at.
//
// What counts are names of files that the kernel does not know yet (of directories,
// whoever descends asks for all). A directory is judged when the thread lists the next
// one that is not below it: by then it has looked at all, or never will. Names are given
// once it has looked at nearly all of enoughNames; but for one in holdBack, always the same
// ones, by which it is judged on; and in one directory at most mostGiven times what it looked
// at. So what is given to one that has stopped to look is about a directory's names.
type walk struct {
	dir    *inode // listed last
	told   int    // names of files in it that were told and not given
	asked  int    // those of them that it asked for
	given  int    // names in it that were given
	passed int    // what was told in directories that it looked at nearly all of, one after the other
}

// giveMode is to whom names are given.
type giveMode int

const (
	giveToWalks giveMode = iota
	giveNever
	giveAlways
)

const (
	enoughNames = 32
	holdBack    = 32
	mostGiven   = 8  // times what was looked at, in one directory
	maxWalks    = 64 // threads that are remembered
)

// walker returns the walk of the thread that lists d from an offset on.
func (s *step) walker(thread uint32, d *inode, offset uint64) *walk {
	w := s.walks[thread]
	if w == nil {
		if len(s.walks) >= maxWalks {
			clear(s.walks)
		}
		w = &walk{dir: d}
		s.walks[thread] = w
	}
	if w.dir != d && !d.below(w.dir) {
		w.judge()
	}
	if w.dir != d || offset == 0 { // rm looks whether a directory is empty, then lists it
		w.dir, w.told, w.asked, w.given = d, 0, 0, 0
	}
	return w
}

func (i *inode) below(dir *inode) bool {
	for i != nil && i != dir {
		i = i.home
	}
	return i != nil
}

func (w *walk) judge() {
	if 8*w.asked < 7*w.told {
		w.passed = 0
		return
	}
	w.passed += w.told
}

// gives reports whether a name that the kernel does not know is given with what stands
// there, of that kind and with that number.
func (w *walk) gives(kind uint32, id uint64) bool {
	file := kind != unix.S_IFDIR
	if w.passed >= enoughNames && w.given < mostGiven*w.passed && (!file || id%holdBack != 0) {
		w.given++
		return true
	}
	if file {
		w.told++
	}
	return false
}

// lookedUp notes a LOOKUP of what the kernel did not know.
func (s *step) lookedUp(thread uint32, d, c *inode) {
	if w := s.walks[thread]; w != nil && w.dir == d && c.dir == nil {
		w.asked++
	}
}

// given is LOOKUP of a name that was not asked for.
func (s *step) given(d *inode, name string, out *fuse.EntryOut) {
	c := s.child(d, name)
	s.sawEntry(d, name, c, ruleGiven)
	s.entry(c, out)
}

package fusefs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// asks is a set of trace.Kinds: what was asked about one entry of the parent.
type asks uint8

const (
	askEntry   asks = 1 << (trace.Entry - 1)
	askList    asks = 1 << (trace.List - 1)
	askContent asks = 1 << (trace.Content - 1)
	askLink    asks = 1 << (trace.Link - 1)
	askXattr   asks = 1 << (trace.Xattr - 1)
	askNames   asks = 1 << (trace.Names - 1)
	askTime    asks = 1 << (trace.Time - 1)
	askAll     asks = askNames<<1 - 1 // but for times, which count where a layer lacks them only
)

// rule is a way in which a step depends on its parent (LAWS 2, 3, 4).
type rule uint8

const (
	ruleEntry    rule = iota // what stands at a name was told: LOOKUP, and whatever checks a name itself
	ruleGiven                // what stands at a name was told in a list: READDIRPLUS (walk.go)
	ruleAbsent               // that nothing stands there was told
	ruleList                 // READDIRPLUS
	ruleContent              // READ, LSEEK, the source of COPY_FILE_RANGE
	ruleLink                 // READLINK
	ruleXattr                // GETXATTR, LISTXATTR
	ruleWrite                // WRITE, FALLOCATE, COPY_FILE_RANGE onto a file, SETATTR of a size
	ruleVictim               // RMDIR, RENAME onto a directory: is it empty
	ruleSetXattr             // SETXATTR, REMOVEXATTR: is it there; what else ACLs and capabilities decide
	ruleLinks                // what is asked of a file is asked of every name of it that was looked up
	ruleLayer                // what the layer takes from the parent: bytes, target, attributes
	ruleDropped              // what the layer lacks because the parent had it already
	ruleAncestor             // a directory in or below which something changed: the layer repeats it
	ruleMoved                // what moved, with all that is below
	ruleNames                // a file with several names that changed: the layer writes all of them
	rules
)

// ruleAsks are the questions that each rule makes. What a kind of entry does not
// have is not asked about it.
var ruleAsks = [rules]asks{
	ruleEntry: askEntry, ruleGiven: askEntry, ruleAbsent: askEntry, ruleList: askList, ruleContent: askContent, ruleLink: askLink, ruleXattr: askXattr,
	ruleWrite: askContent, ruleVictim: askList, ruleSetXattr: askXattr, ruleLinks: askAll,
	ruleLayer: askEntry | askContent | askLink | askXattr, ruleDropped: askAll&^askList | askTime,
	ruleAncestor: askEntry | askXattr, ruleMoved: askAll &^ askNames, ruleNames: askNames | askEntry,
}

// traces are the questions of a step so far, but for those that are noted in its
// inodes. step.mu guards them. A request costs the setting of a bit, or, where
// nothing stands at a name, the appending of that name to a log: both are told once
// for each mount, because the kernel keeps the answer.
type traces struct {
	on    bool
	asks  [rules]asks // ruleAsks; all zero where nobody traces
	found []found
	full  int // the length of found at which what is there twice is dropped

	absent []absence
	names  []byte // of absent, one behind the other
	linked map[string]*inode
	layer  *collector // what the step made, once it is over

	doubt string
}

// found is what was asked at a path of the parent.
type found struct {
	path string
	asks asks
}

// absence is a name that is not in a directory of the parent.
type absence struct {
	dir string
	end int // of the name in traces.names; it begins where the one before ends
}

// logRoom is how many questions wait before those that repeat are dropped.
const logRoom = 1 << 18

// start begins to trace, but for the rules that a test takes away.
func (t *traces) start(blind []rule) {
	t.on, t.asks, t.linked, t.full = true, ruleAsks, map[string]*inode{}, logRoom
	for _, r := range blind {
		t.asks[r] = 0
	}
}

// saw notes that rule r holds for i.
func (s *step) saw(i *inode, r rule) { i.asked |= s.traces.asks[r] }

// sawBytes is saw of the contents of i, if any of them may still be the parent's
// ("written before read" holds for each kind, LAWS 3).
func (s *step) sawBytes(i *inode, r rule) {
	if !i.fresh {
		i.asked |= s.traces.asks[r]
	}
}

// sawSet notes what the outcome of SETATTR depends on: ACLs follow the mode, and a new
// owner or size takes file capabilities away. The size was changed before.
func (s *step) sawSet(i *inode, in *fuse.SetAttrIn) {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_SIZE) != 0 {
		s.saw(i, ruleSetXattr)
	}
	switch size, ok := in.GetSize(); {
	case !ok:
	case size == 0:
		i.fresh = true
	default:
		s.sawBytes(i, ruleWrite)
	}
}

// sawName notes that an answer told what stands as name in d: c, or nothing. The
// name may be borrowed.
func (s *step) sawName(d *inode, name string, c *inode) {
	t := &s.traces
	if !t.on {
		return
	}
	if c == nil {
		t.lacks(d, name)
		return
	}
	s.sawEntry(d, name, c, ruleEntry)
}

// sawEntry is sawName of what is there, for rule r.
func (s *step) sawEntry(d *inode, name string, c *inode, r rule) {
	t := &s.traces
	c.asked |= t.asks[r]
	if c.base != nil && c.base.Links() != nil && t.asks[ruleLinks] != 0 && d.base != nil && d.base.Child(name) == c.base {
		t.linked[tree.Join(d.basePath, strings.Clone(name))] = c
	}
}

// lacks notes that d has no name. Of one that the step removed that was asked then.
func (t *traces) lacks(d *inode, name string) {
	if d.base == nil || t.asks[ruleAbsent] == 0 {
		return
	}
	start := 0
	if n := len(t.absent); n > 0 {
		last := t.absent[n-1]
		start = last.end
		if from := t.nameStart(n - 1); last.dir == d.basePath && string(t.names[from:last.end]) == name {
			return // LOOKUP, then CREATE
		}
	}
	t.names = append(t.names, name...)
	t.absent = append(t.absent, absence{d.basePath, start + len(name)})
	if len(t.absent) >= logRoom {
		t.fold()
	}
}

func (t *traces) nameStart(k int) int {
	if k == 0 {
		return 0
	}
	return t.absent[k-1].end
}

// fold turns the log of absent names into questions.
func (t *traces) fold() {
	for k, a := range t.absent {
		t.note(tree.Join(a.dir, string(t.names[t.nameStart(k):a.end])), askEntry)
	}
	t.absent, t.names = t.absent[:0], t.names[:0]
}

// note enters what was asked at a path of the parent.
func (t *traces) note(path string, a asks) {
	if a == 0 {
		return
	}
	t.found = append(t.found, found{path, a})
	if len(t.found) >= t.full {
		t.merge()
		t.full = max(logRoom, 2*len(t.found))
	}
}

// merge sorts what was found and makes one of each path.
func (t *traces) merge() {
	slices.SortFunc(t.found, func(a, b found) int { return tree.Compare(a.path, b.path) })
	out := t.found[:0]
	for _, f := range t.found {
		if n := len(out); n > 0 && out[n-1].path == f.path {
			out[n-1].asks |= f.asks
			continue
		}
		out = append(out, f)
	}
	t.found = out
}

// leave keeps what was asked of an inode that is let go of.
func (s *step) leave(i *inode) {
	if i.base != nil && i.asked != 0 {
		s.traces.noteInode(i)
	}
}

// asksOf is what can be asked of n.
func asksOf(n *tree.Node) asks {
	if n.Links() == nil {
		return kindAsks[n.Kind] &^ askNames // its link count says it
	}
	return kindAsks[n.Kind]
}

// kindAsks is what can be asked of each kind of entry.
var kindAsks = [...]asks{
	tree.Dir: askEntry | askXattr | askList, tree.File: askEntry | askXattr | askContent | askNames | askTime,
	tree.Symlink: askEntry | askXattr | askLink | askNames | askTime, tree.Fifo: askEntry | askXattr | askNames | askTime,
	tree.CharDevice: askEntry | askXattr | askNames | askTime, tree.BlockDevice: askEntry | askXattr | askNames | askTime,
}

// doubts notes why the questions may lack something (LAWS 10). Callers hold mu.
func (t *traces) doubts(format string, args ...any) {
	if t.doubt == "" {
		t.doubt = fmt.Sprintf(format, args...)
	}
}

// traceStubs notes what the way to each stub leads through: a symlink there is
// followed by us, and the kernel never hears of it.
func (s *step) traceStubs(stubs []recorder.Stub) {
	if !s.traces.on {
		return
	}
	for _, stub := range stubs {
		for _, q := range trace.Way(s.parent.Lookup, stub.Path) {
			s.traces.note(q.Path, (askEntry|askLink)&(1<<(q.Kind-1)))
		}
	}
}

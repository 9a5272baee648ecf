package fusefs

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// TestChangesAreTheDifference does random operations on names, without a mount, on
// a parent with hard links, and compares what the inodes say with the difference of
// the trees. LAWS 14.
func TestChangesAreTheDifference(t *testing.T) {
	t.Parallel()
	packs := pack.NewSet(t.TempDir())
	p, err := pack.Create(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Abort()
		if err := packs.Close(); err != nil {
			t.Error(err)
		}
	})
	n := 3000
	if testing.Short() {
		n = 300
	}
	seen, early := map[string]int{}, 0
	for seed := range uint64(n) {
		r := rand.New(rand.NewPCG(seed, 6))
		s := newStep(randomParent(t, r), packs, newSpool(p))
		for range 1 + r.IntN(25) {
			randomName(s, r)
		}
		s.tells = 1 + r.IntN(4)
		g := s.parent.Grow()
		to := recorder.NewSender(g.Add, 0)
		c, err := s.collect(to)
		if err == nil {
			err = to.End()
		}
		if err == nil {
			err = checkChanges(s, c)
		}
		if err == nil {
			early += map[bool]int{true: 1}[c.early]
			err = checkGrown(s.parent, g, c.changes())
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		cs := c.changes()
		for k := range cs {
			switch {
			case cs[k].Whiteout():
				seen["whiteout"]++
			case k > 0 && cs[k].Node == cs[k-1].Node:
				seen["link"]++
			}
		}
	}
	if early < n/10 {
		t.Errorf("only %d were told anything before all was found: the test sees too little", early)
	}
	for _, what := range []string{"whiteout", "link"} {
		if seen[what] < n/10 {
			t.Errorf("only %d of %s: the test sees too little", seen[what], what)
		}
	}
}

// randomParent has names that few operations suffice to mix up.
func randomParent(t *testing.T, r *rand.Rand) tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	put := func(p string, n tree.Node) {
		if err := e.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	var files []string
	for _, d := range []string{"a", "b", "a/c", "a/c/d"} {
		put(d, tree.Node{Kind: tree.Dir, Mode: 0o755, Mtime: tree.Time{Sec: 5, Nsec: int32(r.IntN(2))}})
		for _, f := range []string{"x", "y", "z"} {
			name := d + "/" + f
			switch r.IntN(3) {
			case 0:
				put(name, tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: 7, Nsec: int32(r.IntN(2))}})
				files = append(files, name)
			case 1:
				if len(files) > 0 {
					if err := e.Link(name, files[r.IntN(len(files))]); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	return e.Tree()
}

// randomName does one operation on names of s, which may be refused.
func randomName(s *step, r *rand.Rand) {
	dir := func() (uint64, string) {
		id := uint64(fuse.FUSE_ROOT_ID)
		for range r.IntN(4) {
			name := string("abcd"[r.IntN(4)])
			var out fuse.EntryOut
			if s.Lookup(nil, &fuse.InHeader{NodeId: id}, name, &out) != fuse.OK || out.NodeId == 0 || out.Mode&unix.S_IFMT != unix.S_IFDIR {
				break
			}
			id = out.NodeId
		}
		return id, string("abcdxyzxyz"[r.IntN(10)])
	}
	d, name := dir()
	to, other := dir()
	var out fuse.EntryOut
	s.Lookup(nil, &fuse.InHeader{NodeId: d}, name, &out)
	switch r.IntN(9) {
	case 0, 1:
		in := fuse.RenameIn{InHeader: fuse.InHeader{NodeId: d}, Newdir: to, Flags: []uint32{0, 0, unix.RENAME_EXCHANGE}[r.IntN(3)]}
		if !s.below(to, out.NodeId) && (in.Flags == 0 || !s.below(d, s.idOf(to, other))) {
			s.Rename(nil, &in, name, other)
		}
	case 2, 3:
		s.Link(nil, &fuse.LinkIn{InHeader: fuse.InHeader{NodeId: to}, Oldnodeid: out.NodeId}, other, &out)
	case 4:
		s.Unlink(nil, &fuse.InHeader{NodeId: d}, name)
	case 5:
		s.Rmdir(nil, &fuse.InHeader{NodeId: d}, name)
	case 6:
		in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: d}, Mode: 0o644}
		var created fuse.CreateOut
		if s.Create(nil, &in, name, &created) == fuse.OK && r.IntN(2) == 0 { // equal to what may have stood there
			s.SetAttr(nil, setMtime(created.NodeId, 7), &fuse.AttrOut{})
		}
	case 7:
		switch r.IntN(3) {
		case 0:
			s.Mkdir(nil, &fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: d}, Mode: 0o755}, name, &out)
		case 1:
			s.Mknod(nil, &fuse.MknodIn{InHeader: fuse.InHeader{NodeId: d}, Mode: unix.S_IFSOCK | 0o600}, name, &out)
		default:
			s.Symlink(nil, &fuse.InHeader{NodeId: d}, strings.Repeat("t", 1+r.IntN(3)), name, &out)
		}
	default:
		if out.NodeId != 0 {
			in := setMtime(out.NodeId, 7)
			if r.IntN(2) == 0 {
				in.Valid, in.Mode = fuse.FATTR_MODE, []uint32{0o644, 0o755}[r.IntN(2)]
			}
			s.SetAttr(nil, in, &fuse.AttrOut{})
		}
	}
}

func setMtime(id, sec uint64) *fuse.SetAttrIn {
	in := &fuse.SetAttrIn{}
	in.NodeId, in.Valid, in.Mtime = id, fuse.FATTR_MTIME, sec
	return in
}

// below reports whether directory id is at or below the other one, which the kernel
// would not let go there.
func (s *step) below(id, other uint64) bool {
	for d := s.inodes[id]; d != nil; d = d.home {
		if d.id == other {
			return true
		}
	}
	return false
}

func (s *step) idOf(dir uint64, name string) uint64 {
	var out fuse.EntryOut
	s.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &out)
	return out.NodeId
}

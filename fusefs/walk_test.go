package fusefs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fbuild/fbuild/trace"
	"github.com/fbuild/fbuild/tree"
)

// answered is one entry of a READDIRPLUS answer.
type answered struct {
	name  string
	entry fuse.EntryOut
}

// list has thread 1 list a directory, with a buffer that is too small for it.
func (s *step) list(t *testing.T, dir uint64) (all []answered) {
	t.Helper()
	in := fuse.ReadIn{InHeader: fuse.InHeader{NodeId: dir, Caller: fuse.Caller{Pid: 1}}}
	for {
		list := fuse.NewDirEntryList(make([]byte, 1000), in.Offset)
		if st := s.ReadDirPlus(nil, &in, list); st != fuse.OK {
			t.Fatal(st)
		}
		b := list.Bytes()
		if len(b) == 0 {
			return all
		}
		for len(b) > 0 {
			var e struct {
				fuse.EntryOut
				ino, off  uint64
				size, typ uint32
			}
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e)), b)
			start := int(unsafe.Sizeof(e))
			all = append(all, answered{string(b[start : start+int(e.size)]), e.EntryOut})
			b, in.Offset = b[start+(int(e.size)+7)&^7:], e.off
		}
	}
}

// lookBy has a thread look up names in a directory that the kernel does not know yet.
func (s *step) lookBy(t *testing.T, thread uint32, dir uint64, names []string) {
	t.Helper()
	for _, name := range names {
		var out fuse.EntryOut
		if st := s.Lookup(nil, &fuse.InHeader{NodeId: dir, Caller: fuse.Caller{Pid: thread}}, name, &out); st != fuse.OK {
			t.Fatal(st)
		}
	}
}

// givenAndPlain are the names of files in an answer.
func givenAndPlain(list []answered) (given, plain []string) {
	for _, a := range list {
		switch {
		case a.name == "." || a.name == "..":
		case a.entry.NodeId != 0:
			given = append(given, a.name)
		default:
			plain = append(plain, a.name)
		}
	}
	return given, plain
}

// TestWalks: entries are given to a thread that looks at all, LAWS 2.
func TestWalks(t *testing.T) {
	all := func(names []string) []string { return names }
	some := func(n int) func([]string) []string {
		return func(names []string) []string { return names[:min(n, len(names))] }
	}
	for _, tt := range []struct {
		name   string
		looks  func(names []string) []string
		looker uint32
		twice  bool
		want   bool // names are given
	}{
		{"all", all, 1, false, true},
		{"all, the last first", func(n []string) []string { n = slices.Clone(n); slices.Reverse(n); return n }, 1, false, true},
		{"all, after a first look", all, 1, true, true},
		{"18 of 20", some(18), 1, false, true},
		{"17 of 20", some(17), 1, false, false},
		{"one", some(1), 1, false, false},
		{"none", some(0), 1, false, false},
		{"another thread looks", all, 2, false, false},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			s := loose(t, 800, true)
			s.list(t, fuse.FUSE_ROOT_ID)
			n := 0
			for k := range 40 {
				d := s.find(t, fuse.FUSE_ROOT_ID, fmt.Sprint("directory", k))
				var given []string
				if tt.twice {
					given, _ = givenAndPlain(s.list(t, d))
				}
				more, plain := givenAndPlain(s.list(t, d))
				n += len(given) + len(more)
				plain = slices.DeleteFunc(plain, func(p string) bool { return slices.Contains(given, p) })
				s.lookBy(t, tt.looker, d, tt.looks(plain))
			}
			// Of 38 directories, for the first two show what it does.
			held := 38 * 20 / holdBack
			if most := 38*20 - held/2; tt.want && (n < 38*20-2*held || n > most) || !tt.want && n > 0 {
				t.Errorf("names given: got %d of 800, want %v", n, tt.want)
			}
		})
	}
}

// TestWalkIsLeft: a thread that looks at all for long, then lists and looks at one file of each directory, is given
// little more than what it looks at.
func TestWalkIsLeft(t *testing.T) {
	s := loose(t, 20_000, true)
	over := 0
	for k := range 1000 {
		d := s.find(t, fuse.FUSE_ROOT_ID, fmt.Sprint("directory", k))
		given, plain := givenAndPlain(s.list(t, d))
		if k >= 500 {
			over += len(given)
			plain = slices.DeleteFunc(plain, func(p string) bool { return p != fmt.Sprint("file", 20*k+7) })
		}
		s.lookBy(t, 1, d, plain)
	}
	if most := 5 * holdBack; over == 0 || over > most {
		t.Errorf("names given although nobody looked: got %d, want some, at most %d", over, most)
	}
	if len(s.walks) > maxWalks {
		t.Errorf("walks: got %d, want at most %d", len(s.walks), maxWalks)
	}
}

// TestLargeDirectory: what is given in one directory is bounded by what was looked at.
func TestLargeDirectory(t *testing.T) {
	e := tree.Empty().Edit()
	for d, n := range []int{20, 20, 5000, 5000} {
		for k := range n {
			if err := e.Put(fmt.Sprintf("%d/%d", d, k), tree.Node{Kind: tree.File}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := loose(t, 0, true)
	s.parent = e.Tree()
	s.rootDir.base = s.parent.Root()
	var got []int
	for d := range 4 {
		dir := s.find(t, fuse.FUSE_ROOT_ID, fmt.Sprint(d))
		given, plain := givenAndPlain(s.list(t, dir))
		got = append(got, len(given))
		s.lookBy(t, 1, dir, plain)
	}
	if got[2] != mostGiven*40 || got[3] < 4700 || got[3] == 5000 {
		t.Errorf("names given: got %d, want %d of the first large directory and nearly all of the next", got, mostGiven*40)
	}
}

// TestGiven: what is given is what a LOOKUP gives, and FORGET ends it.
func TestGiven(t *testing.T) {
	s, other := loose(t, 20, true), loose(t, 20, true)
	s.give = giveAlways
	d, e := s.find(t, fuse.FUSE_ROOT_ID, "directory0"), other.find(t, fuse.FUSE_ROOT_ID, "directory0")
	known := s.find(t, d, "file7")
	for _, a := range s.list(t, d) {
		if a.name == "." || a.name == ".." || a.name == "file7" {
			if a.entry != (fuse.EntryOut{}) {
				t.Errorf("%s: got %+v, want nothing: the kernel would not take it, or has it", a.name, a.entry)
			}
			continue
		}
		var want fuse.EntryOut
		if st := other.Lookup(nil, &fuse.InHeader{NodeId: e}, a.name, &want); st != fuse.OK {
			t.Fatal(st)
		}
		if diff := cmp.Diff(want, a.entry); diff != "" {
			t.Errorf("%s (-LOOKUP +given):\n%s", a.name, diff)
		}
		if got := s.inodes[a.entry.NodeId].lookups; got != 1 {
			t.Errorf("%s: the kernel is thought to hold it %d times, want 1", a.name, got)
		}
		s.Forget(a.entry.NodeId, 1)
	}
	if len(s.inodes) != 3 || s.inodes[known] == nil {
		t.Errorf("after FORGET: got %d inodes, want the root, the directory and what was looked up", len(s.inodes))
	}
	s.give = giveToWalks
	for _, a := range s.list(t, d) {
		if a.entry != (fuse.EntryOut{}) {
			t.Errorf("%s: got %+v, want a plain name", a.name, a.entry)
		}
	}
	if len(s.inodes) != 3 {
		t.Errorf("after a plain list: got %d inodes, want 3: entries are made when somebody looks", len(s.inodes))
	}
}

// TestQuestionsOfWalks holds what lists ask where every name is given: what they ask otherwise, and the entries.
func TestQuestionsOfWalks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.b = New(Options{check: checkChanges, give: giveAlways})
	a := newAsker(t)
	layer := w.askParent()
	plain, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(string(plain)))
	if len(lines) != len(questionCases) {
		t.Fatalf("%s: got %d lines, want %d", golden, len(lines), len(questionCases))
	}
	var got strings.Builder
	for k, c := range questionCases {
		if !strings.Contains(lines[k], "list") {
			continue
		}
		seen, res := w.traced(w.b, a, strings.Split(c.ops, "; "), layer)
		line := fmt.Sprintf("%s: %s\n", c.name, asked(res.Questions))
		if res.Doubt != "" {
			t.Errorf("%s: got doubt %q, want none", c.name, res.Doubt)
		}
		if line == lines[k] || !had(c.name, seen) {
			continue
		}
		got.WriteString(line)
		for q := range strings.SplitSeq(strings.TrimSpace(strings.TrimPrefix(lines[k], c.name+":")), ", ") {
			p, kinds, _ := strings.Cut(q, " ")
			for kind := range strings.SplitSeq(kinds, "+") {
				if !slices.ContainsFunc(res.Questions, func(q trace.Question) bool { return "/"+q.Path == p && q.Kind.String() == kind }) {
					t.Errorf("%s: %s of %s is not asked where names are given", c.name, kind, p)
				}
			}
		}
	}
	file := filepath.Join("testdata", "questions-walk.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("questions: got\n%s\nwant\n%s", got.String(), want)
	}
}

// TestGivenToKernel: the kernel takes what is given: it asks for no name again, whatever a program does with it.
func TestGivenToKernel(t *testing.T) {
	w := newWorld(t)
	w.b = New(Options{check: checkChanges, give: giveAlways})
	r := w.mount(nil, w.walkable())
	s := w.b.(*backend).steps[r.id]
	r.sh("ls w/00 >/dev/null; cat w/00/0; rm w/00/1; mv w/00/2 w/00/n; chmod 600 w/00/3; ln w/00/4 w/00/m; [ -e w/00/5 ]; ls -l w/00 w/00 >/dev/null")
	// w, w/00, the absence of n and m, one that was made there.
	if got := s.counts[opLookup].Load(); got > 6 {
		t.Errorf("LOOKUPs: got %d, want 6 at most", got)
	}
	res := r.finish()
	if got, want := len(res.Changes), 8; got != want {
		t.Errorf("changes: got %d, want %d:\n%s", got, want, tree.Format(res.Changes))
	}
}

var walkBase = flag.String("suite-base", "", "by hand: how many questions -suite asks of a copy of this directory if names are given to nobody, to walks, to all")

// TestWalksOfPrograms measures what given names add to the traces of programs.
func TestWalksOfPrograms(t *testing.T) {
	if *walkBase == "" {
		return // a measurement, no test
	}
	w := newWorld(t)
	layer := w.fromDir(*walkBase)
	var none int
	for k, give := range []giveMode{giveNever, giveToWalks, giveAlways} {
		w.b = New(Options{give: give})
		r := w.mount(nil, layer)
		s := w.b.(*backend).steps[r.id]
		cmd := r.command("chdir", "sh", "-c", *suite)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		res := r.finish()
		if k == 0 {
			none = len(res.Questions)
		}
		fmt.Printf("| %d questions | %+.1f %% | %d LOOKUP, %d lists | %s\n", len(res.Questions), 100*float64(len(res.Questions)-none)/float64(none),
			s.counts[opLookup].Load(), s.counts[opReaddirPlus].Load(), res.Doubt)
	}
}

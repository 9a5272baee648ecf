package fusefs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// loose is a step without a mount over n files, 20 to a directory.
func loose(t testing.TB, n int, on bool) *step {
	t.Helper()
	e := tree.Empty().Edit()
	for i := range n {
		if err := e.Put(fmt.Sprintf("directory%d/file%d", i/20, i), tree.Node{Kind: tree.File, Mode: 0o644, Mtime: tree.Time{Sec: 1000}}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := pack.Create(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	packs := pack.NewSet(t.TempDir())
	t.Cleanup(func() {
		p.Abort()
		if err := packs.Close(); err != nil {
			t.Error(err)
		}
	})
	s := newStep(e.Tree(), packs, newSpool(p))
	if on {
		s.traces.start(nil)
	}
	return s
}

func (s *step) find(t testing.TB, dir uint64, name string) uint64 {
	t.Helper()
	var out fuse.EntryOut
	if st := s.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &out); st != fuse.OK {
		t.Fatal(st)
	}
	return out.NodeId
}

// TestTracingAllocatesNothing: a question costs a bit, or a place in a log.
func TestTracingAllocatesNothing(t *testing.T) {
	s := loose(t, 20, true)
	d := s.find(t, fuse.FUSE_ROOT_ID, "directory0")
	f := s.find(t, d, "file1")
	var entry fuse.EntryOut
	var attr fuse.AttrOut
	absent := []string{"one", "two"}
	k := 0
	for name, fn := range map[string]func(){
		"LOOKUP":            func() { s.Lookup(nil, &fuse.InHeader{NodeId: d}, "file1", &entry) },
		"LOOKUP, not there": func() { k++; s.Lookup(nil, &fuse.InHeader{NodeId: d}, absent[k%2], &entry) },
		"GETATTR":           func() { s.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: f}}, &attr) },
		"READ":              func() { _, _ = s.readInto(&fuse.ReadIn{InHeader: fuse.InHeader{NodeId: f}}, nil) },
	} {
		if got := testing.AllocsPerRun(1000, fn); got > 0 {
			t.Errorf("%s: got %v allocations, want none", name, got)
		}
	}
}

// TestLogIsBounded: a kernel that forgets asks again, for ever.
func TestLogIsBounded(t *testing.T) {
	s := loose(t, 1, true)
	d := s.find(t, fuse.FUSE_ROOT_ID, "directory0")
	for k := range logRoom + 1000 {
		s.find(t, d, fmt.Sprint("none", k%7))
		s.Forget(s.find(t, d, "file0"), 1)
	}
	tr := &s.traces
	if len(tr.absent) >= logRoom || len(tr.found) >= logRoom || len(tr.names) >= 6*logRoom {
		t.Errorf("log: got %d absent names of %d bytes, %d questions, want less than %d", len(tr.absent), len(tr.names), len(tr.found), logRoom)
	}
	qs, doubt := s.questions(nil)
	if len(qs) != 9 || doubt != "" { // the directory, the file, the names
		t.Errorf("questions: got %s, doubt %q, want 9 and none", asked(qs), doubt)
	}
}

// TestDoubts: LAWS 10.
func TestDoubts(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(s *step)
		want string
	}{
		{"a request that is not modelled", func(s *step) { s.counts[48].Add(1) }, "requests of kind 48"},
		{"a name that is none", func(s *step) { s.find(t, fuse.FUSE_ROOT_ID, ".") }, "no path of a tree"},
		{"a number that two entries have", func(s *step) {
			s.inodes[baseID("directory0/file1")] = s.rootDir
			s.find(t, s.find(t, fuse.FUSE_ROOT_ID, "directory0"), "file1")
			delete(s.inodes, baseID("directory0/file1"))
		}, "number of \"/directory0/file1\""},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			s := loose(t, 2, true)
			tt.do(s)
			if _, doubt := s.questions(nil); !strings.Contains(doubt, tt.want) {
				t.Errorf("doubt: got %q, want one of %q", doubt, tt.want)
			}
		})
	}
	if qs, doubt := loose(t, 1, false).questions(nil); doubt == "" || qs != nil {
		t.Errorf("without Spec.Trace: got %v, doubt %q, want no question and a doubt", qs, doubt)
	}
}

// TestQuestionsOfStubs: what we look at before the command counts as well, LAWS 1.
func TestQuestionsOfStubs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	link := func(target string) *tree.Node {
		return &tree.Node{Kind: tree.Symlink, Mode: 0o777, Mtime: tree.Time{Sec: 1000}, Size: int64(len(target)), Target: target}
	}
	layer := w.layer(tree.Changes{
		{Path: "etc", Node: link("/real/etc")},
		{Path: "real", Node: dirNode()},
		{Path: "real/etc", Node: dirNode()},
		{Path: "real/etc/resolv.conf", Node: link("../run/conf")},
		{Path: "real/run", Node: dirNode()},
	})
	work := filepath.Join(w.dir, "work", "stubs")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := recorder.Spec{
		ID: "stubs", Layers: []string{layer}, PackDir: w.packs.Dir(), WorkDir: work, Trace: true,
		Stubs: []recorder.Stub{{Path: "etc/resolv.conf"}, {Path: "mnt/cache", Dir: true}},
	}
	if _, err := w.b.Mount(context.Background(), spec); err != nil {
		t.Fatal(err)
	}
	res, err := w.b.Finish(context.Background(), "stubs")
	if err != nil {
		t.Fatal(err)
	}
	want := "/etc entry+link, /mnt entry, /mnt/cache entry, /real entry, /real/etc entry, /real/etc/resolv.conf entry+link, /real/run entry, /real/run/conf entry"
	if got := asked(res.Questions); got != want || len(res.Changes) > 0 {
		t.Errorf("questions: got %s, changes %s, want %s and none", got, tree.Format(res.Changes), want)
	}
}

// BenchmarkTrace is what a request costs with and without a trace, and the end of a step that asked 100,000 questions.
func BenchmarkTrace(b *testing.B) {
	for _, on := range []bool{false, true} {
		s := loose(b, 20, on)
		d := s.find(b, fuse.FUSE_ROOT_ID, "directory0")
		f := s.find(b, d, "file1")
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprint("a-name-that-is-not-there", i)
		}
		var entry fuse.EntryOut
		var attr fuse.AttrOut
		k := 0
		for name, fn := range map[string]func(){
			"LOOKUP":  func() { s.Lookup(nil, &fuse.InHeader{NodeId: d}, "file1", &entry) },
			"absent":  func() { k++; s.Lookup(nil, &fuse.InHeader{NodeId: d}, names[k%len(names)], &entry) },
			"GETATTR": func() { s.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: f}}, &attr) },
		} {
			b.Run(fmt.Sprint(name, "/", on), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					fn()
				}
			})
		}
	}
	s := loose(b, 50_000, true)
	for i := range 50_000 {
		d := s.find(b, fuse.FUSE_ROOT_ID, fmt.Sprint("directory", i/20))
		s.saw(s.inodes[s.find(b, d, fmt.Sprint("file", i))], ruleContent)
	}
	b.Run("end", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.traces.found = nil
			if qs, _ := s.questions(nil); len(qs) != 102_500 {
				b.Fatal(len(qs))
			}
		}
	})
}

package cache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// result is one record with a blob and a layer of its own.
type result struct {
	key    string
	blob   tree.Digest
	diffID tree.Digest
	node   *tree.Node
}

func putResult(t *testing.T, s *Store, key string, size int) result {
	t.Helper()
	data := append([]byte(key), bytes.Repeat([]byte("x"), size)...)
	r := result{key: key, blob: putBlob(t, s, data)}
	r.diffID, r.node = putLayer(t, s, data)
	putRecord(t, s, key, Record{Blobs: []tree.Digest{r.blob}, Layers: []tree.Digest{r.diffID}})
	return r
}

// holds reports whether all of the result is there; nothing of it is marked as
// used. A part alone is an error.
func (r result) holds(t *testing.T, s *Store) bool {
	t.Helper()
	there := 0
	for _, name := range []string{
		s.recordPath("step", r.key), s.blobPath(r.blob), s.recordPath(kindLayer, string(r.diffID)), s.path("packs", string(r.node.Extents[0].Pack)),
	} {
		if _, err := os.Stat(name); err == nil {
			there++
		}
	}
	if there != 0 && there != 4 {
		t.Errorf("result %s: %d of 4 parts are there", r.key, there)
	}
	return there == 4
}

func (r result) setAge(t *testing.T, s *Store, d time.Duration) {
	t.Helper()
	for _, name := range []string{
		s.recordPath("step", r.key), s.blobPath(r.blob), s.recordPath(kindLayer, string(r.diffID)), s.path("packs", string(r.node.Extents[0].Pack)),
	} {
		age(t, name, d)
	}
}

func TestPruneResults(t *testing.T) {
	const size = 100_000
	for _, tt := range []struct {
		name string
		o    PruneOptions
		want []string // of a (used 3 h ago), b (2 h), c (1 h)
	}{
		{"default keeps results", PruneOptions{}, []string{"a", "b", "c"}},
		{"all", PruneOptions{All: true}, nil},
		{"until", PruneOptions{Until: 150 * time.Minute}, []string{"b", "c"}},
		{"all until", PruneOptions{All: true, Until: 90 * time.Minute}, []string{"c"}},
		{"keep what two take", PruneOptions{KeepBytes: 5 * size}, []string{"b", "c"}},
		{"keep nearly nothing", PruneOptions{KeepBytes: 1}, nil},
		{"keep more than there is", PruneOptions{KeepBytes: 1 << 30}, []string{"a", "b", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			results := []result{putResult(t, s, "a", size), putResult(t, s, "b", size), putResult(t, s, "c", size)}
			for i, r := range results {
				r.setAge(t, s, time.Duration(3-i)*time.Hour)
			}
			s = reopen(t, s)
			before, err := s.Usage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if tt.o.KeepBytes > 1 {
				tt.o.KeepBytes += s.overhead()
			}
			report, err := s.Prune(t.Context(), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range results {
				if r.holds(t, s) {
					got = append(got, r.key)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("results (-want +got):\n%s", d)
			}
			gone := 3 - len(tt.want)
			want := PruneReport{Records: gone, Layers: gone, Blobs: gone, Packs: gone, Bytes: report.Bytes}
			if d := cmp.Diff(want, report); d != "" {
				t.Errorf("report (-want +got):\n%s", d)
			}
			after, err := s.Usage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if freed := before.Total - after.Total; freed < report.Bytes || freed > report.Bytes+64<<10 {
				t.Errorf("bytes: got %d, the disk got %d", report.Bytes, freed)
			}
		})
	}
}

func TestPruneDangling(t *testing.T) {
	s := open(t, t.TempDir())
	kept := putResult(t, s, "kept", 10)
	img := putImage(t, s, "x:1", "image")
	putImage(t, s, "y:1", "untagged")
	if err := s.Untag("y:1"); err != nil {
		t.Fatal(err)
	}
	tar, err := s.CreateTarPack()
	if err != nil {
		t.Fatal(err)
	}
	n, err := storePack(tar, []byte("tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutTarLayer(digestBytes([]byte("tar")), tree.Changes{{Path: "f", Node: n}}, tar.ID()); err != nil {
		t.Fatal(err)
	}
	lonely := putPack(t, s, []byte("lonely"))
	s = reopen(t, s)
	report, err := s.Prune(t.Context(), PruneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Of the untagged image: manifest, config, blob, layer, pack; of the tar:
	// layer, pack and the record that says whose it is; the lonely pack.
	want := PruneReport{Blobs: 3, Layers: 2, Packs: 3, Records: 1, Bytes: report.Bytes}
	if d := cmp.Diff(want, report); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
	if _, err := os.Stat(s.path("packs", string(lonely.Extents[0].Pack))); err == nil {
		t.Error("a pack that nothing leads to is still there")
	}
	if !kept.holds(t, s) {
		t.Error("a result is gone")
	}
	if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if kept.holds(t, s) {
		t.Error("all: a result is still there")
	}
	if got := problems(t, s, VerifyOptions{}); len(got) > 0 || !s.HasBlob(tree.Digest(img.Digest.String())) {
		t.Errorf("all: the named image is not whole: %v", got)
	}
	if _, err := s.Layer(digestBytes([]byte("layer image"))); err != nil {
		t.Errorf("all: layer index of the named image: %v", err)
	}
}

// LAWS 32: whatever a running process made or looked up stays, with all that it
// leads to, though nobody has it open.
func TestPruneKeepsWhatIsUsed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	viaRecord, viaParts, unused := putResult(t, s, "record", 10), putResult(t, s, "parts", 10), putResult(t, s, "unused", 10)
	leased := putPack(t, s, []byte("leased"))
	s.AddContent(leased.Digest, leased.Extents)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"records", "blobs", "packs"} {
		age(t, filepath.Join(dir, d), time.Hour)
	}

	user := open(t, dir)
	if _, err := user.Record("step", viaRecord.key); err != nil {
		t.Fatal(err)
	}
	if !user.HasBlob(viaParts.blob) {
		t.Fatal("blob is gone")
	}
	if _, err := user.LayerFile(viaParts.diffID); err != nil {
		t.Fatal(err)
	}
	if !find(t, user, leased) {
		t.Fatal("content is gone")
	}
	made := putPack(t, user, []byte("made"))

	pruner := open(t, dir)
	report, err := pruner.Prune(t.Context(), PruneOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if !viaRecord.holds(t, pruner) {
		t.Error("what a record leads to is gone")
	}
	if !user.HasBlob(viaParts.blob) {
		t.Error("a blob that was looked up is gone")
	}
	if cs, err := user.Layer(viaParts.diffID); err != nil {
		t.Error("a layer that was looked up is gone")
	} else if _, err := readNode(user.Packs(), cs[0].Node); err != nil {
		t.Errorf("the pack of a layer that was looked up: %v", err)
	}
	for what, n := range map[string]*tree.Node{"leased": leased, "made": made} {
		if _, err := os.Stat(pruner.path("packs", string(n.Extents[0].Pack))); err != nil {
			t.Errorf("a pack that was %s: %v", what, err)
		}
	}
	if unused.holds(t, pruner) {
		t.Error("what nobody used is still there")
	}
	if report.Busy != 1 {
		t.Errorf("busy: got %d, want 1, the leased pack", report.Busy)
	}
	if err := user.Close(); err != nil {
		t.Fatal(err)
	}
	last := reopen(t, pruner)
	if _, err := last.Prune(t.Context(), PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	u, err := last.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range u.Kinds {
		if (k.Kind == "blobs" || k.Kind == "packs" || k.Kind == "layers" || k.Kind == "records") && k.Files > 0 {
			t.Errorf("after its end: %d %s are left", k.Files, k.Kind)
		}
	}
}

// LAWS 32: an open blob stays, whoever opened it and whenever; the death of a
// process frees what it used.
func TestPruneAndAnotherProcess(t *testing.T) {
	for _, what := range []string{"pack", "record"} {
		t.Run(what, func(t *testing.T) {
			s := open(t, t.TempDir())
			r := putResult(t, s, "k", 10)
			r.setAge(t, s, time.Hour)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			cmd := holder(t, s.Dir(), what, map[string]string{"pack": string(r.node.Extents[0].Pack), "record": r.key}[what])
			s = open(t, s.Dir())
			if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(s.path("packs", string(r.node.Extents[0].Pack))); err != nil {
				t.Errorf("the pack in use: %v", err)
			}
			if what == "record" && !r.holds(t, s) {
				t.Error("the result in use is gone")
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			s = reopen(t, s)
			if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(s.path("packs", string(r.node.Extents[0].Pack))); err == nil {
				t.Error("after its death the pack is still there")
			}
		})
	}
}

func TestPruneOpenBlob(t *testing.T) {
	s := open(t, t.TempDir())
	d := putBlob(t, s, []byte("blob"))
	f, err := s.OpenBlob(d)
	if err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s) // the lease is over, the file still open
	for _, want := range []int{1, 0} {
		report, err := s.Prune(t.Context(), PruneOptions{})
		if err != nil || report.Busy != want || report.Blobs != 1-want {
			t.Errorf("prune: got %+v, %v, want %d busy", report, err, want)
		}
		if want == 1 {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A record found while others prune all the time leads to blobs that are there.
func TestPruneNeverBetweenRecordAndBlob(t *testing.T) {
	s := open(t, t.TempDir())
	var keys []string
	for i := range 100 {
		r := putResult(t, s, fmt.Sprint(i), 10)
		r.setAge(t, s, time.Hour)
		keys = append(keys, r.key)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	user, pruner := open(t, s.Dir()), open(t, s.Dir())
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 3 && err == nil; i++ {
			_, err = pruner.Prune(t.Context(), PruneOptions{All: true})
		}
		done <- err
	}()
	found := 0
	for _, key := range keys {
		r, err := user.Record("step", key)
		if err != nil {
			continue
		}
		found++
		time.Sleep(100 * time.Microsecond)
		if !user.HasBlob(r.Blobs[0]) {
			t.Errorf("result %s: the blob is gone", key)
		}
		if cs, err := user.Layer(r.Layers[0]); err != nil {
			t.Errorf("result %s: %v", key, err)
		} else if _, err := readNode(user.Packs(), cs[0].Node); err != nil {
			t.Errorf("result %s: %v", key, err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d results were found", found, len(keys))
}

// Prune takes nothing away while somebody looks something up, and nobody finds
// anything while Prune does.
func TestGate(t *testing.T) {
	s := open(t, t.TempDir())
	r := putResult(t, s, "k", 10)
	img := putResult(t, s, "other", 10)
	r.setAge(t, s, time.Hour)
	s = reopen(t, s)
	inTime := func(what string, do func()) (over chan struct{}) {
		over = make(chan struct{})
		go func() { defer close(over); do() }()
		select {
		case <-over:
			t.Errorf("%s did not wait at the gate", what)
		case <-time.After(30 * time.Millisecond):
		}
		return over
	}
	unlock, err := s.gate(unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	var all []chan struct{}
	for what, do := range map[string]func(){
		"Record":    func() { _, _ = s.Record("step", img.key) },
		"HasBlob":   func() { s.HasBlob(img.blob) },
		"OpenBlob":  func() { _, _ = s.OpenBlob("sha256:" + tree.Digest(strings.Repeat("0", 64))) },
		"Layer":     func() { _, _ = s.Layer(img.diffID) },
		"LayerFile": func() { _, _ = s.LayerFile(img.diffID) },
	} {
		all = append(all, inTime(what, do))
	}
	unlock()
	for _, over := range all {
		<-over
	}
	if unlock, err = s.gate(unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	over := inTime("Prune", func() {
		if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
			t.Errorf("prune: %v", err)
		}
	})
	if !r.holds(t, s) {
		t.Error("a result went while the gate was held")
	}
	unlock()
	<-over
	if r.holds(t, s) {
		t.Error("the result is still there")
	}
}

func TestPruneDropsTreesContextsAndIndex(t *testing.T) {
	s := open(t, t.TempDir())
	n := putPack(t, s, []byte("contents"))
	s.AddContent(n.Digest, n.Extents)
	if err := os.MkdirAll(s.path("trees", "t", "usr"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.ContextFile("/src"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, err := s.Prune(t.Context(), PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{s.path("trees", "t"), s.ContextFile("/src"), s.path("index", "MANIFEST")} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("default: %v", err)
		}
	}
	report, err := s.Prune(t.Context(), PruneOptions{All: true})
	if err != nil || report.Trees != 1 || report.Contexts != 1 {
		t.Errorf("all: got %+v, %v, want a tree and a context", report, err)
	}
	for _, name := range []string{s.path("trees", "t"), s.ContextFile("/src"), s.path("index")} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("all: %s is still there", name)
		}
	}
	if again := reopen(t, s); again.index.get() == nil {
		t.Error("the index does not come back")
	}
}

// A bound on the store is one on what du says, the index and directories included.
func TestPruneKeepsItsBound(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 40 {
		if err := hammer(s, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	age(t, s.Dir(), time.Hour)
	s = reopen(t, s)
	before, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bound := before.Total * 2 / 3
	if _, err := s.Prune(t.Context(), PruneOptions{KeepBytes: bound}); err != nil {
		t.Fatal(err)
	}
	after, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Total > bound || after.Total < bound/2 {
		t.Errorf("store: got %d bytes of %d, want at most %d and not much less", after.Total, before.Total, bound)
	}
}

// Trim removes nothing without a limit and below it, and keeps to it above.
func TestTrim(t *testing.T) {
	s := open(t, t.TempDir())
	if n, err := s.Limit(); n != 0 || err != nil {
		t.Errorf("limit: got %d, %v, want none", n, err)
	}
	for i := range 20 {
		if err := hammer(s, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	age(t, s.Dir(), time.Hour)
	s = reopen(t, s)
	u, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{0, u.Total + 1<<20} {
		if err := s.SetLimit(limit); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Trim(t.Context()); err != nil || r.Bytes > 0 {
			t.Errorf("limit %d of %d: got %+v, %v, want nothing removed", limit, u.Total, r, err)
		}
	}
	limit := u.Total * 3 / 4
	if err := s.SetLimit(limit); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Trim(t.Context()); err != nil || r.Records == 0 {
		t.Errorf("above the limit: got %+v, %v, want records removed", r, err)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Total > limit {
		t.Errorf("afterwards: got %d bytes, %v, want at most %d", u.Total, err, limit)
	}
	if err := os.WriteFile(s.path("limit"), []byte("much\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Trim(t.Context()); err == nil {
		t.Error("a limit that is no number: got no error")
	}
}

// Only what is of the types and ids that are named goes.
func TestPruneTypes(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    PruneOptions
		want PruneReport // the counts only
	}{
		{"mounts", PruneOptions{Types: []PruneType{PruneMounts}}, PruneReport{Mounts: 2}},
		{"one mount", PruneOptions{Types: []PruneType{PruneMounts}, Mounts: []string{"b"}}, PruneReport{Mounts: 1}},
		{"contexts", PruneOptions{Types: []PruneType{PruneContexts}}, PruneReport{Contexts: 1}},
		{"trees", PruneOptions{Types: []PruneType{PruneTrees}, Until: time.Minute}, PruneReport{Trees: 1}},
		{"nothing so old", PruneOptions{Types: []PruneType{PruneMounts, PruneTrees}, Until: 100 * time.Hour}, PruneReport{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if err := hammer(s, 1); err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"a", "b"} {
				_, release, err := s.CacheMount(t.Context(), "key "+id, SharedMount, MountInfo{ID: id}, nil)
				if err != nil {
					t.Fatal(err)
				}
				release()
			}
			if err := errors.Join(os.Mkdir(s.path("trees", "t"), 0o700), os.WriteFile(s.ContextFile("/src"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			age(t, s.Dir(), time.Hour)
			s = reopen(t, s)
			got, err := s.Prune(t.Context(), tt.o)
			got.Bytes = 0
			if d := cmp.Diff(tt.want, got); err != nil || d != "" {
				t.Errorf("removed: %v (-want +got):\n%s", err, d)
			}
		})
	}
}

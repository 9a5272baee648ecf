package cache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// child starts a re-executed test binary and returns its output.
func child(t *testing.T, name string, args ...string) (*osexec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := reexec.Command(t.Context(), name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

// hammerChild stores results one after the other until it is killed, and prints
// the seed of each that it stored.
func hammerChild() int {
	s, err := Open(context.Background(), os.Args[1])
	for err == nil {
		seed := rand.Uint64()
		if err = hammer(s, seed); err == nil {
			_, err = fmt.Println(seed)
		}
		if err == nil && seed%16 == 0 {
			_, err = s.Prune(context.Background(), PruneOptions{})
		}
	}
	fmt.Fprintln(os.Stderr, "hammer:", err)
	return 1
}

func hammerData(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, 1+r.IntN(20_000))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func hammerDiffID(data []byte) tree.Digest { return digestBytes(append([]byte("layer"), data...)) }

// hammer stores what a step does: a blob, a pack, a layer index, contents, and a
// record last.
func hammer(s *Store, seed uint64) error {
	data := hammerData(seed)
	w, err := s.CreatePack()
	if err != nil {
		return err
	}
	n, err := storePack(w, data)
	if err != nil {
		return err
	}
	s.AddContent(n.Digest, n.Extents)
	blob, err := storeBlob(s, data)
	if err != nil {
		return err
	}
	if err := s.PutLayer(hammerDiffID(data), tree.Changes{{Path: "f", Node: n}}); err != nil {
		return err
	}
	r := Record{Value: []byte(blob), Blobs: []tree.Digest{blob}, Layers: []tree.Digest{hammerDiffID(data)}}
	if err := s.PutRecord("step", fmt.Sprint(seed), r); err != nil {
		return err
	}
	hash, err := v1.NewHash(string(blob))
	if err != nil {
		return err
	}
	return s.Tag("last:"+fmt.Sprint(seed%4), v1.Descriptor{Digest: hash})
}

// checkHammered demands all of what hammer stored.
func checkHammered(s *Store, seed uint64) error {
	data := hammerData(seed)
	r, err := s.Record("step", fmt.Sprint(seed))
	if err != nil {
		return err
	}
	got, err := readBlob(s, tree.Digest(r.Value))
	if err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("blob: %d bytes instead of %d, %w", len(got), len(data), err)
	}
	cs, err := s.Layer(r.Layers[0])
	if err != nil {
		return err
	}
	got, err = readNode(s.Packs(), cs[0].Node)
	if err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("pack: %d bytes instead of %d, %w", len(got), len(data), err)
	}
	return nil
}

// Two processes are killed again and again while they store and prune: what
// they said was stored is there and right, nothing is wrong, and the index
// answers right or not at all (LAWS 18, 30, 32).
func TestKilledAtAnyTime(t *testing.T) {
	dir := t.TempDir()
	var seeds []uint64
	for round := 0; round < 8 || len(seeds) < 40 && round < 60; round++ {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 2 {
			cmd, out := child(t, "hammer", dir)
			wg.Go(func() {
				var kill *time.Timer // runs from the first result on: a busy machine starts slowly
				for out.Scan() {
					if kill == nil {
						kill = time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
					}
					var seed uint64
					if _, err := fmt.Sscan(out.Text(), &seed); err == nil {
						mu.Lock()
						seeds = append(seeds, seed)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
	}
	if len(seeds) < 20 {
		t.Fatalf("the children stored only %d results", len(seeds))
	}
	s := open(t, dir)
	found := 0
	for _, seed := range seeds {
		if err := checkHammered(s, seed); err != nil {
			t.Errorf("result %d: %v", seed, err)
		}
		data := hammerData(seed)
		if ex, ok := s.FindContent(digestBytes(data), int64(len(data))); ok {
			found++
			got, err := readNode(s.Packs(), &tree.Node{Kind: tree.File, Size: int64(len(data)), Extents: ex})
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("content of %d: %d bytes, %v, want %d", seed, len(got), err, len(data))
			}
		}
	}
	t.Logf("%d results, %d found in the index", len(seeds), found)
	for _, p := range problems(t, s, VerifyOptions{}) {
		t.Errorf("verify: %s %s: %v", p.Kind, p.Name, p.Err)
	}
	images, err := s.Images()
	if err != nil || len(images) != 4 {
		t.Errorf("images: got %d, %v, want 4", len(images), err)
	}
	age(t, filepath.Join(dir, "tmp"), time.Hour)
	s.sweep(t.Context())
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil || len(entries) != 2 {
		t.Errorf("tmp after a sweep: got %v, %v, want locks and one lease", entries, err)
	}
}

// holdChild takes what its arguments say (DIR WHAT NAME), prints "ready" and
// waits to be killed or for its input to end.
func holdChild() int {
	s, err := Open(context.Background(), os.Args[1])
	if err == nil {
		patient(s)
		switch what, name := os.Args[2], os.Args[3]; what {
		case "lock":
			_, err = s.Lock(context.Background(), name)
		case "pack":
			_, err = s.Packs().File(tree.PackID(name))
		case "record":
			_, err = s.Record("step", name)
		case "index":
			if s.index.get() == nil {
				err = errors.New("no index")
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	select {}
}

func holder(t *testing.T, dir, what, name string) *osexec.Cmd {
	t.Helper()
	cmd, out := child(t, "hold", dir, what, name)
	if !out.Scan() || out.Text() != "ready" {
		t.Fatalf("the other process is not ready: %q", out.Text())
	}
	return cmd
}

// leftChild prints what Leftovers and Prune may not remove.
func leftChild() int {
	s, err := Open(context.Background(), os.Args[1])
	if err == nil {
		s.swept.Wait() // the sweep of Open holds a dead lease for a moment, as its owner would
		for _, name := range s.Leftovers(context.Background()) {
			fmt.Println("leftover", name)
		}
		var report PruneReport
		report, err = s.Prune(context.Background(), PruneOptions{All: true})
		for _, name := range report.Leftovers {
			fmt.Println("prune", name)
		}
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "left:", err)
		return 1
	}
	return 0
}

// LAWS 26: what belongs to subordinate ids is named, and is no error.
func TestLeftoversOfOtherIDs(t *testing.T) {
	testenv.NeedUserNS(t)
	const owner = 1
	s := open(t, filepath.Join(t.TempDir(), "store"))
	dir := s.Dir()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lease, materialised := filepath.Join(dir, "tmp", "run-1-dead"), filepath.Join(dir, "trees", "t")
	for _, d := range []string{lease, materialised} {
		if err := os.MkdirAll(filepath.Join(d, "root", "etc"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	age(t, dir, time.Hour)
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err == nil && !strings.Contains(p, "/root") { // below it another id owns everything
			err = os.Chown(p, owner, owner)
		}
		return err
	})
	for up := filepath.Dir(dir); err == nil && up != os.TempDir(); up = filepath.Dir(up) {
		err = os.Chmod(up, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := reexec.Command(t.Context(), "left", dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner, Gid: owner}}
	out, err := cmd.Output()
	want := fmt.Sprintf("^leftover %s\nprune %s/run-[^/]*/trash-t\nprune %s\n$", lease, filepath.Join(dir, "tmp"), lease)
	if err != nil || !regexp.MustCompile(want).Match(out) {
		t.Errorf("leftovers: got %q, %v, want %q", out, err, want)
	}
}

func TestLock(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	inside, most := 0, 0
	var mu sync.Mutex
	for range 20 {
		wg.Go(func() {
			unlock, err := s.Lock(t.Context(), "k")
			if err != nil {
				t.Errorf("lock: %v", err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			inside--
			mu.Unlock()
			unlock()
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("holders at once: got %d, want 1", most)
	}
	if entries, _ := filepath.Glob(s.path("tmp", "locks", "key-*")); len(entries) > 0 {
		t.Errorf("lock files: got %d, want none", len(entries))
	}
}

// A lock file that its holder has just removed locks nothing.
func TestLockOfRemovedFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	var inside, most, taken atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5000 {
				unlock, ok, err := tryLock(name)
				if err != nil {
					t.Errorf("lock: %v", err)
					return
				}
				if ok {
					taken.Add(1)
					most.Store(max(most.Load(), inside.Add(1)))
					runtime.Gosched()
					inside.Add(-1)
					unlock()
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("holders at once: got %d of %d, want 1", most.Load(), taken.Load())
	}
}

// LAWS 32: of two processes with one step key one runs; the death of the one
// lets the other go on, and waiting ends with the context.
func TestLockOfAnotherProcess(t *testing.T) {
	s := open(t, t.TempDir())
	cmd := holder(t, s.Dir(), "lock", "k")
	unlock, err := s.Lock(t.Context(), "other")
	if err != nil {
		t.Fatalf("another key: %v", err)
	}
	unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("lock held by another process: got %v, want deadline exceeded", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	unlock, err = s.Lock(t.Context(), "k")
	if err != nil {
		t.Fatalf("lock of a dead process: %v", err)
	}
	unlock()
}

// A full disk gives an error that says so; nothing half-made gets a name, and
// what was there stays right.
func TestFullDisk(t *testing.T) {
	testenv.NeedUserNS(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s, err := Open(t.Context(), filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if err := hammer(s, 1); err != nil {
		t.Fatal(err)
	}
	if s.index.get() != nil {
		t.Error("the index is open on a disk without room: its mappings would kill the process")
	}
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s on a full disk: got %v, want ENOSPC", what, err)
		}
	}
	_, err = storeBlob(s, randomBytes(8<<20))
	full("blob", err)
	w, err := s.CreatePack()
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(make([]byte, 8<<20))
	full("pack", err)
	full("record", s.PutRecord("step", "large", Record{Value: make([]byte, maxRecord-100)}))
	full("layer", s.PutLayer(digestBytes(nil), manyChanges(20_000)))
	s.AddContent(digestBytes(nil), []tree.Extent{{Pack: w.ID(), Len: 1}})
	w.Abort()
	if _, err := s.Record("step", "large"); !errors.Is(err, ErrNotFound) {
		t.Errorf("record that did not fit: got %v, want ErrNotFound", err)
	}
	if err := checkHammered(s, 1); err != nil {
		t.Errorf("result from before: %v", err)
	}
	for _, p := range problems(t, s, VerifyOptions{}) {
		t.Errorf("verify: %s %s: %v", p.Kind, p.Name, p.Err)
	}
	if err := hammer(s, 2); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// Where not even a lease fits, Prune still does.
func TestPruneOnFullDisk(t *testing.T) {
	testenv.NeedUserNS(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=100"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s, err := Open(t.Context(), filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = storeBlob(s, randomBytes(10))
	}
	if cerr := s.Close(); cerr != nil {
		t.Fatal(cerr)
	}
	for i, err := 0, error(nil); err == nil; i++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600)
	}
	testenv.Tick(t)
	s, err = Open(t.Context(), filepath.Join(dir, "store"))
	if err != nil {
		t.Fatalf("open on a full disk: %v", err)
	}
	report, err := s.Prune(t.Context(), PruneOptions{})
	if err != nil || report.Blobs < 10 {
		t.Errorf("prune: got %+v, %v, want many blobs", report, err)
	}
	if _, err := os.Stat(ballast(s.Dir())); err != nil {
		t.Errorf("for the next time: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Badger writes through mappings, where a full disk is a SIGBUS that nobody can
// catch: a disk that fills up while the index is open must not end the process.
func TestDiskFillsUpUnderIndex(t *testing.T) {
	testenv.NeedUserNS(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", indexRoom+16<<20)); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s, err := Open(t.Context(), filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	patient(s)
	n := putPack(t, s, []byte("contents"))
	add := func() {
		for i := range 2 * flushAt {
			s.AddContent(digestBytes(fmt.Append(nil, i)), n.Extents)
		}
	}
	add()
	if s.index.get() == nil {
		t.Fatal("the index is not open")
	}
	for i, err := 0, error(nil); err == nil; i++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 4<<20), 0o600)
	}
	add()
	s.FindContent(n.Digest, n.Size)
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func manyChanges(n int) tree.Changes {
	cs := make(tree.Changes, n)
	for i := range cs {
		cs[i] = tree.Change{Path: fmt.Sprintf("file-%08d", i), Node: &tree.Node{Kind: tree.Symlink, Size: 200, Target: strings.Repeat("x", 200)}}
	}
	return cs
}

func TestManyGoroutines(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() {
			for j := range uint64(5) {
				if err := hammer(s, i*100+j); err != nil {
					t.Errorf("hammer: %v", err)
				}
				if err := checkHammered(s, i*100+j); err != nil {
					t.Errorf("check: %v", err)
				}
				data := hammerData(i*100 + j)
				s.FindContent(digestBytes(data), int64(len(data)))
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
				t.Errorf("prune: %v", err)
			}
		}
	})
	wg.Wait()
}

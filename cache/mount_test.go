package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
)

func takeMount(t *testing.T, s *Store, key, sharing string) (string, func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	dir, release, err := s.CacheMount(ctx, key, sharing, MountInfo{ID: "id of " + key}, nil)
	if err != nil {
		t.Fatalf("cache mount %s: %v", key, err)
	}
	return dir, release
}

func leave(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Each sharing keeps out whom it should, over all processes.
func TestCacheMountSharing(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	for _, tt := range []struct {
		first, second string
		waits, same   bool
	}{
		{SharedMount, SharedMount, false, true},
		{SharedMount, LockedMount, true, true},
		{LockedMount, SharedMount, true, true},
		{LockedMount, LockedMount, true, true},
		{PrivateMount, PrivateMount, false, false},
		{PrivateMount, LockedMount, true, true},
		{LockedMount, PrivateMount, false, false},
	} {
		t.Run(tt.first+" then "+tt.second, func(t *testing.T) {
			key := t.Name()
			one, release := takeMount(t, s, key, tt.first)
			limit := testenv.Patience
			if tt.waits {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, release2, err := other.CacheMount(ctx, key, tt.second, MountInfo{}, nil)
			if waits := errors.Is(err, context.DeadlineExceeded); waits != tt.waits {
				t.Fatalf("the second: got %v, want it to wait: %v", err, tt.waits)
			}
			if err == nil {
				release2()
			}
			leave(t, one, "kept", "x")
			release()
			two, release2 := takeMount(t, other, key, tt.second)
			defer release2()
			if _, err := os.Stat(filepath.Join(two, "kept")); one != two || err != nil {
				t.Errorf("after the first was released: got %s, %v, want %s with what was left", two, err, one)
			}
		})
	}
	if _, _, err := s.CacheMount(t.Context(), "k", "public", MountInfo{}, nil); err == nil {
		t.Error("an unknown sharing: got no error")
	}
}

// LAWS 25: a directory that was moved into a root, whose build was killed there, is
// made anew instead of being missed for ever.
func TestCacheMountThatLacksItsDirectory(t *testing.T) {
	s := open(t, t.TempDir())
	for _, sharing := range []string{SharedMount, LockedMount, PrivateMount} {
		dir, release := takeMount(t, s, sharing, sharing)
		release()
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		again, release := takeMount(t, s, sharing, sharing)
		if st, err := os.Stat(again); again != dir || err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: got %s, %v, want %s, 0755", sharing, again, err, dir)
		}
		release()
	}
}

// A new directory is seen only when it is whole, and is made once.
func TestCacheMountInit(t *testing.T) {
	s := open(t, t.TempDir())
	broken := errors.New("no")
	if _, _, err := s.CacheMount(t.Context(), "k", SharedMount, MountInfo{}, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v, want the error of init", err)
	}
	calls := 0
	for range 2 {
		dir, release, err := s.CacheMount(t.Context(), "k", SharedMount, MountInfo{}, func(dir string) error {
			calls++
			return os.WriteFile(filepath.Join(dir, "seed"), nil, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "seed")); err != nil {
			t.Error(err)
		}
		release()
	}
	if calls != 1 {
		t.Errorf("init was called %d times, want once", calls)
	}
	entries, err := os.ReadDir(s.lease.dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left in the lease: %v, %v", entries, err)
	}
}

// Contents outlive the store's process; Usage counts them; Verify does not mind
// them; Prune takes what nobody uses, as its options say.
func TestCacheMountPrune(t *testing.T) {
	s := open(t, t.TempDir())
	dir, release := takeMount(t, s, "k", SharedMount)
	leave(t, dir, "big", strings.Repeat("x", 1<<20))
	release()
	idle, release := takeMount(t, s, "idle", LockedMount)
	leave(t, idle, "f", "x")
	release()
	s = reopen(t, s)
	u, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range u.Kinds {
		if k.Kind == "mounts" && (k.Bytes < 1<<20 || k.Files != 4) {
			t.Errorf("usage: got %+v, want 1 MiB in 4 files", k)
		}
	}
	list, err := s.CacheMounts()
	if err != nil || len(list) != 2 || list[0].ID+list[1].ID != "id of kid of idle" && list[0].ID+list[1].ID != "id of idleid of k" {
		t.Errorf("list: got %+v, %v", list, err)
	}
	if err := s.Verify(t.Context(), VerifyOptions{}, func(p Problem) { t.Errorf("verify: %+v", p) }); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Prune(t.Context(), PruneOptions{}); err != nil || r.Mounts != 0 {
		t.Errorf("prune of what is dangling: got %+v, %v, want no mount", r, err)
	}
	// One in use since before the others' leases began.
	top := filepath.Dir(dir)
	user, err := lockObject(top)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil || r.Mounts != 1 || r.Busy != 1 {
		t.Errorf("prune with one in use: got %+v, %v, want one mount, one busy", r, err)
	}
	if _, err := os.Stat(idle); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the idle one: got %v, want it gone", err)
	}
	if err := user.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Prune(t.Context(), PruneOptions{Until: time.Hour}); err != nil || r.Mounts != 0 {
		t.Errorf("prune of what was not used for an hour: got %+v, %v, want no mount", r, err)
	}
	if r, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil || r.Mounts != 1 || r.Bytes < 1<<20 {
		t.Errorf("prune: got %+v, %v, want one mount of 1 MiB", r, err)
	}
	if _, err := os.Stat(top); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after prune: got %v, want it gone", err)
	}
}

// A running process keeps the mounts that it used (LAWS 32).
func TestCacheMountOfThisProcessStays(t *testing.T) {
	s := open(t, t.TempDir())
	_, release := takeMount(t, s, "k", SharedMount)
	release()
	s = reopen(t, s)
	_, release = takeMount(t, s, "k", SharedMount)
	release()
	if r, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil || r.Mounts != 0 {
		t.Errorf("got %+v, %v, want no mount removed", r, err)
	}
}

// mountChild holds a locked cache mount until it is killed.
func mountChild() int {
	s, err := Open(context.Background(), os.Args[1])
	if err == nil {
		var dir string
		if dir, _, err = s.CacheMount(context.Background(), "k", LockedMount, MountInfo{}, nil); err == nil {
			err = os.WriteFile(filepath.Join(dir, "half"), []byte("x"), 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("held")
	time.Sleep(time.Hour)
	return 1
}

// LAWS 25: what a killed process wrote stays, and its lock does not.
func TestCacheMountSurvivesAKill(t *testing.T) {
	s := open(t, t.TempDir())
	cmd := reexec.Command(t.Context(), "mount", s.Dir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("child: got %q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.CacheMount(ctx, "k", SharedMount, MountInfo{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it lives: got %v, want to wait", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	dir, release := takeMount(t, s, "k", LockedMount)
	defer release()
	if _, err := os.Stat(filepath.Join(dir, "half")); err != nil {
		t.Error(err)
	}
}

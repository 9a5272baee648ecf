package buildctx

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fbuild/fbuild/internal/testenv"
)

// LAWS 23: a digest is as old as the start of its hashing. A file that was young
// then is not remembered, however long the hashing takes.
func TestSlowHashingIsNoProof(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"f": "hello"})
	file, cache := filepath.Join(dir, "f"), filepath.Join(t.TempDir(), "cache")
	started := ctimeOf(t, file)
	for _, tt := range []struct {
		name string
		age  time.Duration // of the file when the hashing starts
		puts int           // in the build after
	}{{"young", 0, 1}, {"old", time.Hour, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			var now atomic.Int64
			now.Store(started.Add(tt.age).UnixNano())
			clock := func() time.Time { return time.Unix(0, now.Load()) }
			for round, want := range []int{1, tt.puts} {
				c := open(t, dir, Options{StatCache: cache, Now: clock})
				sink := &memSink{during: func(int) { now.Add(int64(time.Minute)) }}
				if _, err := c.Digests(t.Context(), scanTree(t, c, "."), []string{"f"}, sink); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				if sink.puts != want {
					t.Errorf("build %d: got %d files read, want %d", round+1, sink.puts, want)
				}
				now.Store(started.Add(tt.age).UnixNano())
			}
			if err := os.Remove(cache); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		})
	}
}

// LAWS 23: a file that changes under the reader and keeps its size is read
// again: what was stored must be one of its states.
func TestSameSizeChangeWhileReading(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"f": "hello"})
	c := open(t, dir, Options{})
	sink := &memSink{during: func(n int) {
		if n > 1 {
			return
		}
		testenv.Tick(t)
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("HELLO"), 0o644); err != nil {
			t.Error(err)
		}
	}}
	got, err := c.Digests(t.Context(), scanTree(t, c, "."), []string{"f"}, sink)
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Lookup("f").Digest; d != digestOf("HELLO") || sink.puts != 2 {
		t.Errorf("f: got digest %s after %d reads, want that of HELLO after 2", d, sink.puts)
	}
}

package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/testenv"
	"github.com/fbuild/fbuild/tree"
)

// LAWS 22: a command starts when the coarse clock has passed the last ctime of
// the directory that was made for it.
func TestMountWaitsForTheClock(t *testing.T) {
	testenv.NeedUserNS(t)
	packs, layer := t.TempDir(), filepath.Join(t.TempDir(), "layer")
	n := stored(t, packs, "x")
	if err := os.WriteFile(layer, tree.Encode(tree.Changes{{Path: "f", Node: &n}}), 0o644); err != nil {
		t.Fatal(err)
	}
	b := New(Options{}).(*backend)
	for i := range 20 {
		id := fmt.Sprint(i)
		if _, err := b.Mount(t.Context(), recorder.Spec{ID: id, Layers: []string{layer}, PackDir: packs, WorkDir: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		if last := b.steps[id].disk.last; !last.Before(tree.Time{Sec: now.Sec, Nsec: int32(now.Nsec)}) {
			t.Fatalf("round %d: clock after Mount: got %v, want later than the last ctime %v", i, now, last)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// LAWS 24: what overlayfs would take for a removal is left out with a word.
func TestUnfit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry string
		st    stamp
		want  string
	}{
		{"file", "f", stamp{mode: unix.S_IFREG}, ""},
		{"whiteout", ".wh.f", stamp{mode: unix.S_IFREG}, "whiteout"},
		{"socket", "s", stamp{mode: unix.S_IFSOCK}, "socket"},
		{"overlay's whiteout", "w", stamp{mode: unix.S_IFCHR}, "character device 0/0"},
		{"null", "null", stamp{mode: unix.S_IFCHR, major: 1, minor: 3}, ""},
		{"block device 0/0", "b", stamp{mode: unix.S_IFBLK}, ""},
	} {
		if got := unfit(tt.entry, &tt.st); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

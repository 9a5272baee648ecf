package fusefs

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLateWrites: a daemon that is killed with a dirty shared mapping, a file open and unlinked at the end. LAWS 12.
func TestLateWrites(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	cmd := r.command("chdir", "python3", "-c", `
import mmap, os, time
f = os.open("mapped", os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 1 << 20)
m = mmap.mmap(f, 1 << 20)
g = os.open("big", os.O_RDWR)
n = mmap.mmap(g, 4096)
u = os.open("gone", os.O_RDWR | os.O_CREAT)
os.write(u, b"x" * 100000)
os.unlink("gone")
m[5000:5005] = b"dirty"
n[0:5] = b"DIRTY"
open("ready", "w").close()
time.sleep(1000)`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.sh("while ! test -e ready; do sleep 0.01; done; rm ready")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("daemon ended by itself")
	}
	res := r.finish()
	expect(t, res, "-0644 0:0 now 1048576 big\n-0755 0:0 now 1048576 mapped")
	if got := r.data(res, "mapped")[4999:5006]; got != "\x00dirty\x00" {
		t.Errorf("mapping of a new file: got %q", got)
	}
	if got := r.data(res, "big")[:8]; got != "DIRTY567" {
		t.Errorf("mapping of the parent's file: got %q", got)
	}
	if room := w.spoolRoom(); room > 64<<10 {
		t.Errorf("pack takes %d bytes, want the written pages only", room)
	}
}

// TestStillInUse: a process that keeps the root makes the step fail, in time. LAWS 12.
func TestStillInUse(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	cmd := r.command("chdir", "sh", "-c", "touch ready; exec sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.sh("while ! test -e ready; do sleep 0.01; done")
	start := time.Now()
	_, err := w.b.Finish(context.Background(), r.id)
	if err == nil || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("finish: got %v, want still in use", err)
	}
	if d := time.Since(start); d > 2*detachTime {
		t.Errorf("finish took %v", d)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
}

// TestAbort: whoever uses the root of an aborted step gets errors; no mount is left.
func TestAbort(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	cmd := r.command("chdir", "sh", "-c", "touch ready; while :; do cat big > x || exit 3; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.sh("while ! test -e ready; do sleep 0.01; done")
	if err := w.b.Abort(r.id); err != nil {
		t.Errorf("abort: %v", err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("command went on after the abort")
	}
	if _, err := os.Stat(r.root); err == nil {
		t.Errorf("mount point %s is left", r.root)
	}
	if err := w.b.Abort(r.id); err != nil {
		t.Errorf("second abort: %v", err)
	}
	if room := w.spoolRoom(); room != 0 {
		t.Errorf("spool of %d bytes is left", room)
	}
}

// TestUnmountedUnderway: an unmount by others ends the step with an error.
func TestUnmountedUnderway(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	if err := unix.Unmount(r.root, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if _, err := w.b.Finish(context.Background(), r.id); err == nil {
		t.Error("finish: got nil, want an error")
	}
}

package fusefs

import (
	"context"
	"errors"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/internal/testenv"
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
	_, err := w.b.Finish(context.Background(), r.id)
	if err == nil || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("finish: got %v, want still in use", err)
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

// TestPanic: a handler that panics answers, goes on, and fails the step, whether this package or go-fuse called it.
func TestPanic(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"hot", "if chmod 600 d/a; then exit 1; fi; cat d/b"},
		{"cold", "if ln d/a d/z; then exit 1; fi; cat d/b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.mount(nil, w.parent())
			r.sh("stat d/a") // then the kernel knows it
			s := w.b.(*backend).steps[r.id]
			s.mu.Lock()
			s.inodes[baseID("d/a")].file = nil // what asks for its size panics
			s.mu.Unlock()
			r.sh(tt.script)
			if _, err := w.b.Finish(context.Background(), r.id); err == nil || !strings.Contains(err.Error(), "panic: runtime error") {
				t.Errorf("finish: got %v, want the panic", err)
			}
		})
	}
}

// TestReaderFails: a worker that can't read requests any more leaves nobody waiting for answers, and fails the step. LAWS 20.
func TestReaderFails(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	s := w.b.(*backend).steps[r.id]
	alive, err := unix.FcntlInt(uintptr(s.device), unix.F_DUPFD_CLOEXEC, 0) // closing the device would end the connection
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(alive)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, s.device, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if out, err := r.try("stat d/a"); err == nil {
		t.Errorf("stat without a server: got %q, want an error", out)
	}
	if _, err := w.b.Finish(context.Background(), r.id); err == nil || !strings.Contains(err.Error(), "no request") {
		t.Errorf("finish: got %v, want what the worker read", err)
	}
}

// TestWriterFails: an error of the thread that writes the spool comes after the answer, and fails the step whatever the exit status. LAWS 17.
func TestWriterFails(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh("echo x > f")
	s := w.b.(*backend).steps[r.id]
	bad, err := os.Open(s.spool.f.Name())
	if err != nil {
		t.Fatal(err)
	}
	s.spool.mu.Lock()
	good := s.spool.f
	s.spool.f, s.spool.reserved = bad, 1<<30 // the room is taken
	s.spool.mu.Unlock()
	r.sh("dd if=/dev/zero of=g bs=128k count=64 status=none")
	_, err = w.b.Finish(context.Background(), r.id)
	if err == nil || !strings.Contains(err.Error(), "write spool") {
		t.Errorf("finish: got %v, want an error of the writer", err)
	}
	if err := errors.Join(good.Close(), bad.Close()); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// TestHostileEnds: many processes, and a working directory that is gone.
func TestHostileEnds(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh(`i=0; while test $i -lt 400; do (echo $i > p$i; cat d/a > /dev/null) & i=$((i+1)); done; wait; test $(cat p* | sort -u | wc -l) = 400; rm p*
		mkdir away; cd away; rmdir ../away; if touch x; then exit 1; fi; pwd -P || true`)
	expect(t, r.finish(), "")
}

// serverProcess starts a recorder as builds do. The end of the test ends it.
func serverProcess(t *testing.T, child string) (*osexec.Cmd, *recorder.Client) {
	t.Helper()
	testenv.NeedFUSE(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	server := reexec.Command(context.Background(), child) // it ends after the test's context
	server.ExtraFiles, server.Stderr, server.Dir = []*os.File{theirs}, os.Stderr, "/"
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	client := recorder.NewClient(conn, nil)
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		_ = server.Wait() // some tests kill it
	})
	return server, client
}

// TestServerProcess talks to a recorder in a process of its own, then kills it in the middle of a step: nobody hangs, the step has
// failed. LAWS 20.
func TestServerProcess(t *testing.T) {
	w := newWorld(t)
	server, client := serverProcess(t, "recorder-fuse")
	layer := w.parent()
	start := func(id string) *running {
		work := filepath.Join(w.dir, "work", id)
		if err := os.Mkdir(work, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := client.Mount(t.Context(), recorder.Spec{ID: id, Layers: []string{layer}, PackDir: w.packs.Dir(), WorkDir: work})
		if err != nil {
			t.Fatal(err)
		}
		return &running{w: w, id: id, root: root}
	}
	one := start("one")
	one.sh("echo y >> d/a")
	res, err := client.Finish(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, res, "d0755 0:0 1000 d\n-0644 0:0 now 6 d/a")

	two := start("two")
	cmd := two.command("chdir", "sh", "-c", "touch ready; while cat big > x; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	two.sh("while ! test -e ready; do sleep 0.01; done")
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Logf("command: %v", err) // its loop ends, by a failed cat or a failed sh
	}
	if _, err := client.Finish(t.Context(), "two"); !errors.Is(err, recorder.ErrDied) {
		t.Errorf("finish: got %v, want %v", err, recorder.ErrDied)
	}
	_ = server.Wait() // killed
	if err := unix.Unmount(two.root, unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

// TestForget: what is still the parent's leaves memory when the kernel lets go of it, and comes back the same.
func TestForget(t *testing.T) {
	w := newWorld(t)
	parent, err := newLayers().load(t.Context(), []string{w.parent()}, w.packs)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pack.Create(w.packs.Dir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abort()
	s := newStep(parent.tree, w.packs, newSpool(p))
	lookup := func(dir uint64, name string) uint64 {
		t.Helper()
		var out fuse.EntryOut
		if st := s.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &out); st != fuse.OK || out.NodeId == 0 {
			t.Fatalf("lookup %s: %v, %d", name, st, out.NodeId)
		}
		return out.NodeId
	}
	d := lookup(fuse.FUSE_ROOT_ID, "d")
	a, b, link := lookup(d, "a"), lookup(d, "b"), lookup(d, "link")
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: fuse.InHeader{NodeId: b}, Valid: fuse.FATTR_MODE, Mode: 0o400}}
	if st := s.SetAttr(nil, &in, &fuse.AttrOut{}); st != fuse.OK {
		t.Fatal(st)
	}
	lookup(d, "a")
	s.Forget(a, 1)
	if s.inodes[a] == nil {
		t.Error("a: left memory while the kernel held it")
	}
	for _, id := range []uint64{a, b, link} {
		s.Forget(id, 1)
	}
	if s.inodes[a] != nil || s.inodes[b] == nil || s.inodes[link] == nil {
		t.Errorf("in memory: a %v, changed b %v, linked %v, want false, true, true", s.inodes[a] != nil, s.inodes[b] != nil, s.inodes[link] != nil)
	}
	if got := lookup(d, "a"); got != a {
		t.Errorf("a again: got inode %d, want %d", got, a)
	}
}

// TestUnmountedUnderway: an unmount by others ends the step with an error.
func TestUnmountedUnderway(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	if err := unix.Unmount(r.root, 0); err != nil {
		t.Fatal(err)
	}
	<-w.b.(*backend).steps[r.id].served
	if _, err := w.b.Finish(context.Background(), r.id); err == nil {
		t.Error("finish: got nil, want an error")
	}
}

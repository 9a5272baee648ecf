//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onSmallDisk mounts a file system of its own for one home's store; only root of
// the machine can.
func (h *home) onSmallDisk(t *testing.T, fstype, source, options string) {
	t.Helper()
	ownMounts(t)
	dir := filepath.Join(h.dir, ".data")
	if err := unix.Mount(source, dir, fstype, 0, options); err != nil {
		t.Fatalf("mount %s: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := h.give(dir); err != nil {
		t.Fatal(err)
	}
}

// ownMounts gives the test a mount namespace, so that what it mounts is not kept
// alive by the namespaces of others. The thread ends with the test.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err != nil {
		t.Fatalf("make a mount namespace: %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	need(t, os.Getuid() == 0, "root")
}

// TestFullDisk: no space left on the device says so, with what to do; the store is
// sound, and works again once there is room.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	eachLeg(t, func(t *testing.T, h *home) {
		h.onSmallDisk(t, "tmpfs", "tmpfs", "size=24m,mode=755")
		h.dockerfile("FROM busybox", "RUN echo small > /small", "RUN dd if=/dev/urandom of=/big bs=1M count=60")
		r := h.run("build", "-t", "full", "-o", "type=image", "-o", "type=oci,dest=out.tar", ".")
		if r.code != 1 || !strings.Contains(r.stderr, "o space left on device") {
			t.Errorf("full disk in a RUN: got exit code %d, want 1 and no space left\n%s", r.code, r.stderr)
		}
		h.write(map[string]string{"large": strings.Repeat("0123456789abcdef", 3<<20)})
		h.dockerfile("FROM busybox", "COPY large /large")
		h.fails(1, "no space left", "fbuild cache prune", "build", "-t", "full", ".")
		if _, err := os.Stat(filepath.Join(h.ctx, "out.tar")); err == nil {
			t.Error("a failed build left an output")
		}
		h.dockerfile("FROM busybox", "RUN echo small > /small")
		h.ok("build", "-t", "small", ".")
		h.describe("small", "validate")
	})
}

// TestFullOutput: an output that does not fit is not half there.
func TestFullOutput(t *testing.T) {
	needRoot(t)
	h := newHome(t, lastLeg(t))
	h.write(map[string]string{"large": strings.Repeat("0123456789abcdef", 1<<20)})
	h.dockerfile("FROM busybox", "COPY large /large", "RUN head -c 9000000 /dev/urandom > /random")
	h.ok("build", "-t", "fits", ".")
	ownMounts(t)
	small := filepath.Join(h.ctx, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=4m,mode=755,uid=%d", h.uid)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	}()
	for _, out := range []string{"type=oci,dest=small/x.tar", "type=tar,dest=small/y.tar", "type=oci,tar=false,dest=small/z", "type=docker,dest=small/w.tar"} {
		h.fails(1, "no space left", "room", "build", "-o", out, ".")
		list, err := os.ReadDir(small)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			t.Errorf("-o %s: left %v", out, list)
		}
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := h.command("build", "-o", "-", ".")
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = f, &errs
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("full stdout: got %v, want exit code 1 and no space left\n%s", err, errs.String())
	}
}

// LAWS 33: after a loss of power the store holds no result whose bytes are gone.
// The ioctl of ext4 forgets what was not synced, as the plug does.
func TestLaw33PowerLoss(t *testing.T) {
	needRoot(t)
	need(t, haveProgram("mkfs.ext4"), "mkfs.ext4")
	eachLeg(t, func(t *testing.T, h *home) {
		ownMounts(t)
		image := filepath.Join(h.dir, "disk")
		run := func(name string, args ...string) string {
			t.Helper()
			out, err := osexec.CommandContext(t.Context(), name, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s %q: %v\n%s", name, args, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		f, err := os.Create(image)
		if err == nil {
			err = errors.Join(f.Truncate(256<<20), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		run("mkfs.ext4", "-q", image)
		loop := run("losetup", "--find", "--show", image)
		defer run("losetup", "--detach", loop)
		disk := filepath.Join(h.dir, ".data")
		mount := func() {
			t.Helper()
			if err := unix.Mount(loop, disk, "ext4", 0, ""); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(disk, h.uid, h.gid); err != nil {
				t.Fatal(err)
			}
		}
		unmount := func() {
			t.Helper()
			err := unix.Unmount(disk, 0)
			// The processes of an fbuild that was killed end on their own, soon after it.
			for end := time.Now().Add(waitTime); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
				time.Sleep(20 * time.Millisecond)
				err = unix.Unmount(disk, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		mount()
		h.dockerfile("FROM busybox", "COPY Dockerfile /", "RUN head -c 300000 /dev/urandom > /random", "RUN cat /random /random > /twice; echo ready; sleep 1", "RUN echo last > /last")
		p := h.start("build", "-t", "plug", ".")
		p.waitReady()
		time.Sleep(700 * time.Millisecond)
		pullPlug(t, disk)
		p.kill()
		p.wait()
		unmount()
		mount()
		defer unmount()
		soundButRecords(t, h)
		h.ok("build", "-t", "plug", ".")
		pullPlug(t, disk)
		unmount()
		mount()
		soundButRecords(t, h)
		h.ok("build", "-t", "plug", ".")
		h.describe("plug", "validate")
	})
}

// soundButRecords checks the store as a loss of power may leave it: records are
// not synced, an empty one is a miss; everything that a whole record names is there.
func soundButRecords(t *testing.T, h *home) {
	t.Helper()
	for l := range strings.Lines(h.run("cache", "verify").stdout) {
		if !strings.Contains(l, "corrupt record") && !strings.Contains(l, "sound") {
			t.Errorf("store after a loss of power: %s", l)
		}
	}
	h.ok("cache", "verify", "--remove")
	h.ok("cache", "verify")
}

// pullPlug shuts a file system down without writing anything more, the journal
// neither (EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH).
func pullPlug(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetPointerInt(fd, 0x8004587d, 2); err != nil {
		t.Fatalf("shut file system down: %v", err)
	}
}

// TestNoUserNamespaces: a host that allows none says so with exit code 3; a build
// without RUN needs none.
func TestNoUserNamespaces(t *testing.T) {
	needRoot(t)
	need(t, haveProgram("setpriv"), "setpriv")
	for _, a := range suite.actors {
		t.Run(a.name, func(t *testing.T) {
			h := newHome(t, leg{a, "auto"})
			inside := func(args ...string) result {
				t.Helper()
				// A user namespace in which no further one can be made; in it this process
				// is nobody in particular, with no capability.
				script := `echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"`
				drop := []string{}
				if a.uid == 0 {
					drop = []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}
				}
				cmd := h.command()
				cmd.Path, cmd.Args = "/bin/sh", slices.Concat([]string{"sh", "-c", script, "sh"}, drop, []string{"fbuild"}, args)
				all := []syscall.SysProcIDMap{{Size: 65536}}
				cmd.SysProcAttr = &syscall.SysProcAttr{
					Cloneflags: unix.CLONE_NEWUSER, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
				}
				return h.finish(cmd)
			}
			h.dockerfile("FROM busybox", "RUN true")
			checkFailure(t, inside("build", "."), 3, "user namespaces", "doctor")
			// What is known needs none, neither a mount nor a process.
			h.ok("build", "-t", "known", ".")
			if r := inside("build", "-t", "known", "."); r.code != 0 || len(ranSteps(r.stderr)) > 0 {
				t.Errorf("no-change rebuild without user namespaces: got exit code %d\n%s", r.code, r.stderr)
			}
			h.ok("cache", "prune", "--all")
			h.dockerfile("FROM busybox", "COPY Dockerfile /")
			if r := inside("build", "-t", "copies", "."); r.code != 0 {
				t.Errorf("build without RUN: got exit code %d\n%s", r.code, r.stderr)
			}
			r := inside("doctor")
			checkFailure(t, r, 3, "cannot run the commands", "")
			if !strings.Contains(r.stdout, "no  user namespace") && !strings.Contains(r.stdout, "no  namespaces") {
				t.Errorf("doctor: no word about namespaces in\n%s", r.stdout)
			}
			if want := "docker: --cap-add CHOWN --cap-add DAC_OVERRIDE "; a.uid == 0 && !strings.Contains(r.stdout, want) {
				t.Errorf("doctor: no %q, to be copied, in\n%s", want, r.stdout)
			}
		})
	}
}

// TestSingleID: a user without subordinate ids builds as long as one id will do,
// and is told what is missing where it will not.
func TestSingleID(t *testing.T) {
	needRoot(t)
	for _, r := range recorders {
		t.Run(r, func(t *testing.T) {
			h := newHome(t, leg{actor{"nobody", 65534, 65534}, r})
			h.dockerfile("FROM busybox", "RUN echo fine > /fine", "COPY --chown=app Dockerfile /owned")
			if r != "fuse" { // the files of other owners would have to be made
				h.fails(1, "these ids do not exist here", "", "build", ".")
				return
			}
			h.ok("build", "-t", "single", ".")
			if got := h.describe("single", "layers"); !strings.Contains(got, "- 0644 1000:1000") {
				t.Errorf("layers: the owner is lost:\n%s", got)
			}
			h.dockerfile("FROM busybox", "USER app", "RUN true")
			h.fails(1, "only id 0 exists", "", "build", ".")
			d := h.ok("doctor")
			if !strings.Contains(d.stdout, "no  ids") || !strings.Contains(d.stdout, "subuids") {
				t.Errorf("doctor: no word about ids in\n%s", d.stdout)
			}
		})
	}
}

// TestUnreadable: a file of the context that the caller may not read.
func TestUnreadable(t *testing.T) {
	needRoot(t)
	h := newHome(t, leg{suite.actors[1], "auto"})
	h.write(map[string]string{"dir/fine": "", "dir/closed": "closed"})
	h.dockerfile("FROM busybox", "RUN true", "COPY dir /dir")
	if err := errors.Join(os.Chown(filepath.Join(h.ctx, "dir/closed"), 0, 0), os.Chmod(filepath.Join(h.ctx, "dir/closed"), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.fails(1, "dir/closed\" in build context: permission denied", "", "build", ".")
	h.write(map[string]string{".dockerignore": "dir/closed\n"})
	if err := errors.Join(os.Chown(filepath.Join(h.ctx, "dir/closed"), 0, 0), os.Chmod(filepath.Join(h.ctx, "dir/closed"), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.ok("build", ".")
	h.dockerfile("FROM busybox")
	if err := os.Chmod(filepath.Join(h.ctx, "Dockerfile"), 0); err != nil {
		t.Fatal(err)
	}
	h.fails(1, "Dockerfile: permission denied", "", "build", ".")
	if err := os.Chmod(h.dir+"/.data", 0o555); err != nil {
		t.Fatal(err)
	}
	h.dockerfile("FROM busybox")
	if err := os.Chmod(filepath.Join(h.ctx, "Dockerfile"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := h.run("build", "--root", filepath.Join(h.dir, ".data", "forbidden"), ".")
	if r.code != 1 && r.code != 3 || !strings.Contains(r.stderr, "permission denied") {
		t.Errorf("store that cannot be made: got exit code %d\n%s", r.code, r.stderr)
	}
	if err := os.Chmod(h.dir+"/.data", 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedStore: whatever happens to the files of the store, a build ends right
// or with a clear word, and verify --remove makes the store good.
func TestDamagedStore(t *testing.T) {
	overwrite := func(p string, st fs.FileInfo) error {
		return os.WriteFile(p, []byte(strings.Repeat("garbage ", 1+int(st.Size()/16))), 0o644)
	}
	cut := func(p string, st fs.FileInfo) error { return os.Truncate(p, st.Size()/2) }
	remove := func(p string, _ fs.FileInfo) error { return os.Remove(p) }
	ways := []struct {
		name   string
		damage func(string, fs.FileInfo) error
	}{{"overwritten", overwrite}, {"cut", cut}, {"removed", remove}}
	for i, what := range []string{"records", "index", "blobs", "packs", "index.json", "contexts", "layers"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for j, w := range ways {
				if os.Getenv("FBUILD_MATRIX") == "ci" && (i+j)%2 == 1 { // the others are much the same
					continue
				}
				way, damage := w.name, w.damage
				h := newHome(t, legs(what + way)[0])
				h.dockerfile("FROM busybox", "COPY Dockerfile /d", "RUN cat /d /d > /dd", "RUN cat /dd > /result")
				h.ok("build", "-t", "whole", ".")
				want := h.describe("whole", "layers")
				n := 0
				err := filepath.WalkDir(filepath.Join(h.store, what), func(p string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					n++
					st, err := d.Info()
					if err != nil {
						return err
					}
					_ = os.Chmod(p, 0o644)
					return damage(p, st)
				})
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				if err := h.give(h.store); err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					continue
				}
				// What is in the cache may be used without being read, so the first build may
				// be all CACHED; another step on top, and an output, have to read it.
				h.dockerfile("FROM busybox", "COPY Dockerfile /d", "RUN cat /d /d > /dd", "RUN cat /dd > /result")
				if r := h.run("build", "-t", "again", "."); r.code == 0 {
					h.dockerfile("FROM busybox", "COPY Dockerfile /d", "RUN cat /d /d > /dd", "RUN cat /dd > /result", "RUN sha256sum /d /dd > /sums")
					r = h.run("build", "-o", "type=oci,dest="+way+".tar", ".")
					if r.code == 0 {
						h.describe(filepath.Join(h.ctx, way+".tar"), "validate")
					}
					if r.code != 0 && len(taggedLines(r.stderr, "fbuild: error: ")) != 1 {
						t.Errorf("%s %s: got exit code %d without a clear word\n%s", what, way, r.code, r.stderr)
					}
				} else if len(taggedLines(r.stderr, "fbuild: error: ")) != 1 {
					t.Errorf("%s %s: got exit code %d without a clear word\n%s", what, way, r.code, r.stderr)
				}
				if r := h.run("cache", "verify", "--remove"); r.code != 0 {
					t.Errorf("%s %s: verify --remove: got exit code %d\n%s%s", what, way, r.code, r.stdout, r.stderr)
				}
				h.dockerfile("FROM busybox", "COPY Dockerfile /d", "RUN cat /d /d > /dd", "RUN cat /dd > /result")
				if r := h.run("build", "-t", "whole", "."); r.code != 0 {
					t.Errorf("%s %s: build after verify --remove: got exit code %d\n%s", what, way, r.code, r.stderr)
					continue
				}
				h.describe("whole", "validate")
				if got := h.describe("whole", "layers"); got != want {
					t.Errorf("%s %s: got\n%s\nwant\n%s", what, way, got, want)
				}
			}
		})
	}
}

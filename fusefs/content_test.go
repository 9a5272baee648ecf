package fusefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// spoolRoom is what the spool of the step takes on the disk.
func (w *world) spoolRoom() int64 {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.packs.Dir(), "spool-*"))
	if err != nil {
		w.t.Fatal(err)
	}
	var sum int64
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			w.t.Fatal(err)
		}
		sum += st.Blocks * 512
	}
	return sum
}

// TestRandomWritesStayInPlace: the spool does not grow with writes over what it has. LAWS 16.
func TestRandomWritesStayInPlace(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	out := r.sh(`python3 -c '
import os, random
f = os.open("f", os.O_RDWR | os.O_CREAT)
size = 16 << 20
os.truncate("f", size)
random.seed(1)
b = bytes(4096)
for i in range(12000):
  os.pwrite(f, b"%08d" % i + b[8:], random.randrange(size // 4096) * 4096)
'; sha256sum < f`)
	if room := w.spoolRoom(); room > 2*16<<20+256<<20/8 {
		t.Errorf("spool takes %d bytes for 16 MiB of live data", room)
	}
	res := r.finish()
	if got := fmt.Sprintf("%x  -\n", sha256.Sum256([]byte(r.data(res, "f")))); got != out {
		t.Errorf("contents: got %s, want %s", got, out)
	}
}

// TestTemporaryFilesGoBack: room of removed files is given back or used again. LAWS 16.
func TestTemporaryFilesGoBack(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh("echo keep > keep; for i in 1 2 3 4 5 6 7 8; do for k in 1 2 3 4; do dd if=/dev/zero of=t$k bs=1M count=16 status=none; done; echo $i > keep$i; rm t?; done")
	if room := w.spoolRoom(); room > 256<<20 {
		t.Errorf("spool takes %d MiB after 512 MiB of temporary files", room>>20)
	}
	res := r.finish()
	if room := w.spoolRoom(); room > 1<<20 {
		t.Errorf("pack takes %d bytes for 10 small files", room)
	}
	if got := r.data(res, "keep8"); got != "8\n" {
		t.Errorf("keep8: got %q", got)
	}
}

// TestHolesStayHoles: a lastlog of 100 GB costs one block. LAWS 16.
func TestHolesStayHoles(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	out := r.sh(`python3 -c '
import os
f = os.open("lastlog", os.O_RDWR | os.O_CREAT)
os.pwrite(f, b"login", 100 << 30)
print(os.lseek(f, 0, os.SEEK_DATA) == 100 << 30, os.fstat(f).st_blocks, os.lseek(f, 0, os.SEEK_HOLE))
os.posix_fallocate(f, 0, 200 << 30)
print(os.fstat(f).st_blocks, os.fstat(f).st_size == 200 << 30)
assert os.pread(f, 4096, 5 << 30) == bytes(4096)
assert os.pread(f, 10, (100 << 30) - 5) == bytes(5) + b"login"
'; cp -p big b2; fallocate -p -o 4096 -l 8192 b2; fallocate -z -o 20000 -l 100 b2; sha256sum < b2; cp --sparse=auto lastlog l2; stat -c %b l2`)
	if want := "True 8 0\n8 True\n"; !strings.HasPrefix(out, want) {
		t.Errorf("sparse file: got %q, want %q", out, want)
	}
	res := r.finish()
	var live int64
	for i := range res.Changes {
		for _, x := range res.Changes[i].Node.Extents {
			if x.Pack == res.Pack {
				live += x.Len
			}
		}
	}
	if live > 2<<20 {
		t.Errorf("pack holds %d bytes, want about 1 MiB", live)
	}
	b2 := []byte(strings.Repeat("0123456789abcdef", 64<<10))
	clear(b2[4096 : 4096+8192])
	clear(b2[20000:20100])
	if got := r.data(res, "b2"); !bytes.Equal([]byte(got), b2) {
		t.Errorf("punched file: contents differ")
	}
}

// TestRandomContents does random operations on files of the mount and on a model of them.
func TestRandomContents(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	rng := rand.New(rand.NewPCG(1, 2))
	var script strings.Builder
	model := map[string][]byte{"big": []byte(strings.Repeat("0123456789abcdef", 64<<10)), "n1": {}, "n2": {}}
	script.WriteString("import os, ctypes\nc = ctypes.CDLL(None, use_errno=True)\nF = {n: os.open(n, os.O_RDWR | os.O_CREAT) for n in ('big', 'n1', 'n2')}\n")
	names := []string{"big", "n1", "n2"}
	for i := range 400 {
		name := names[rng.IntN(3)]
		m := model[name]
		off, n := rng.IntN(300000), rng.IntN(40000)+1
		grow := func(to int) {
			if to > len(m) {
				m = append(m, make([]byte, to-len(m))...)
			}
		}
		switch rng.IntN(6) {
		case 0, 1:
			fmt.Fprintf(&script, "os.pwrite(F['%s'], bytes([%d]) * %d, %d)\n", name, i%256, n, off)
			grow(off + n)
			copy(m[off:], bytes.Repeat([]byte{byte(i)}, n))
		case 2:
			fmt.Fprintf(&script, "os.ftruncate(F['%s'], %d)\n", name, off)
			grow(off)
			m = m[:off:off]
		case 3:
			fmt.Fprintf(&script, "assert c.fallocate(F['%s'], 3, ctypes.c_long(%d), ctypes.c_long(%d)) == 0\n", name, off, n)
			if off < len(m) {
				clear(m[off:min(off+n, len(m))])
			}
		case 4:
			other := names[rng.IntN(3)]
			src := model[other]
			to := rng.IntN(300000)
			if other == name || off >= len(src) {
				continue
			}
			n = min(n, len(src)-off)
			fmt.Fprintf(&script, "assert os.copy_file_range(F['%s'], F['%s'], %d, %d, %d) == %d\n", other, name, n, off, to, n)
			grow(to + n)
			copy(m[to:], src[off:off+n])
		case 5:
			m = append(m, byte(i))
			fmt.Fprintf(&script, "f = os.open('%s', os.O_WRONLY|os.O_APPEND); os.write(f, bytes([%d])); os.close(f)\n", name, i%256)
		}
		model[name] = m
	}
	if err := os.WriteFile(filepath.Join(w.dir, "script.py"), []byte(script.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	out := r.sh("python3 " + filepath.Join(w.dir, "script.py") + "; sha256sum big n1 n2")
	want := fmt.Sprintf("%x  big\n%x  n1\n%x  n2\n", sha256.Sum256(model["big"]), sha256.Sum256(model["n1"]), sha256.Sum256(model["n2"]))
	if out != want {
		t.Errorf("seen in the mount: got\n%swant\n%s", out, want)
	}
	res := r.finish()
	for name, m := range model {
		if got := r.data(res, name); got != string(m) {
			t.Errorf("%s in the pack: differs", name)
		}
	}
}

// TestSharedExtents: what changed in its attributes only, or was copied, shares its bytes with the parent.
func TestSharedExtents(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh("chmod 600 big; python3 -c 'import os; a = os.open(\"big\", 0); b = os.open(\"c\", os.O_CREAT | os.O_RDWR); print(os.copy_file_range(a, b, 1 << 20))'")
	res := r.finish()
	if res.Pack != "" {
		t.Errorf("pack: got %q, want none", res.Pack)
	}
	if got := r.data(res, "c"); got != r.data(res, "big") {
		t.Errorf("copy differs")
	}
}

// TestNoSpace: "no space left" reaches the program, which may go on. LAWS 17.
func TestNoSpace(t *testing.T) {
	w := newWorld(t)
	if err := unix.Mount("tmpfs", w.packs.Dir(), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.packs.Close(); err != nil {
			t.Error(err)
		}
		if err := w.b.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(w.packs.Dir(), 0); err != nil {
			t.Error(err)
		}
	}()
	r := w.mount(nil)
	out, err := r.try("dd if=/dev/zero of=full bs=1M count=32")
	if err == nil || !strings.Contains(out, "No space left") {
		t.Errorf("write of 32 MiB to 8 MiB: got %v, %q", err, out)
	}
	r.sh("rm full; dd if=/dev/zero of=fits bs=1M count=4 status=none; sha256sum fits")
	expect(t, r.finish(), "-0644 0:0 now 4194304 fits")
}

// TestLateError: an error that no program can see any more fails the step, whatever the exit status. LAWS 17.
func TestLateError(t *testing.T) {
	w := newWorld(t)
	if err := unix.Mount("tmpfs", w.packs.Dir(), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.b.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(w.packs.Dir(), 0); err != nil {
			t.Error(err)
		}
	}()
	r := w.mount(nil)
	r.sh(`python3 -c '
import mmap, os
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 32 << 20)
m = mmap.mmap(f, 32 << 20)
for i in range(0, 32 << 20, 4096): m[i] = 1
os._exit(0)'`)
	_, err := w.b.Finish(context.Background(), r.id)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("finish: got %v, want no space left", err)
	}
}

// TestShortPack: a pack that is shorter than its extents is EIO, and the step fails. LAWS 18.
func TestShortPack(t *testing.T) {
	w := newWorld(t)
	cs := tree.Changes{{Path: "f", Node: w.file(0o644, strings.Repeat("x", 10000))}}
	layer := w.layer(cs)
	name := filepath.Join(w.packs.Dir(), string(cs[0].Node.Extents[0].Pack))
	if err := os.Truncate(name, 5000); err != nil {
		t.Fatal(err)
	}
	r := w.mount(nil, layer)
	if out, err := r.try("cat f"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("read of a short pack: got %v, %q, want EIO", err, out)
	}
	if _, err := w.b.Finish(context.Background(), r.id); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("finish: got %v, want an unexpected EOF", err)
	}
}

// TestPackGone: a step does not start without the packs of its parent. LAWS 18.
func TestPackGone(t *testing.T) {
	w := newWorld(t)
	cs := tree.Changes{{Path: "f", Node: w.file(0o644, "x")}}
	layer := w.layer(cs)
	if err := os.Remove(filepath.Join(w.packs.Dir(), string(cs[0].Node.Extents[0].Pack))); err != nil {
		t.Fatal(err)
	}
	_, err := w.b.Mount(context.Background(), recorder.Spec{ID: "x", Layers: []string{layer}, PackDir: w.packs.Dir(), WorkDir: w.dir})
	if err == nil || !strings.Contains(err.Error(), pack.ErrGone.Error()) {
		t.Errorf("mount: got %v, want %v", err, pack.ErrGone)
	}
}

// TestCompaction: a pack that is mostly garbage is copied. LAWS 16.
func TestCompaction(t *testing.T) {
	w := newWorld(t)
	r := w.mount(nil, w.parent())
	r.sh(`python3 -c '
for i in range(3000):
  open("f%d" % i, "wb", 0).write(b"%04d" % (i % 10000) * 256)
import os
for i in range(3000):
  if i % 8: os.unlink("f%d" % i)'; ln f8 hard; cat big > copy; cat copy > big; touch -d @1000 big; rm copy`)
	res := r.finish()
	if room := w.spoolRoom(); room > 1<<20 {
		t.Errorf("pack takes %d bytes for %d live ones", room, 375<<10)
	}
	for _, name := range []string{"f0", "f8", "hard", "f2992"} {
		want := "0000"
		if name != "f0" {
			want = "0008"
		}
		if name == "f2992" {
			want = "2992"
		}
		if got := r.data(res, name); got != strings.Repeat(want, 256) {
			t.Errorf("%s: got %.8q... of %d bytes", name, got, len(got))
		}
	}
	again := w.mount(nil, r.layers[0], w.layer(res.Changes))
	again.sh("test f8 -ef hard; cat f* > /dev/null")
	expect(t, again.finish(), "")
}

// TestSpool hands out and takes back ranges at random: none may overlap, and the room is bounded. LAWS 16.
func TestSpool(t *testing.T) {
	p, err := pack.Create(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abort()
	s := newSpool(p)
	rng := rand.New(rand.NewPCG(3, 4))
	type piece struct {
		at, n int64
		b     byte
	}
	var held []piece
	var live int64
	for i := range 60000 {
		if len(held) > 0 && rng.IntN(100) < 48 {
			k := rng.IntN(len(held))
			x := held[k]
			held[k] = held[len(held)-1]
			held = held[:len(held)-1]
			if i%50 == 0 {
				got := make([]byte, x.n)
				if _, err := s.f.ReadAt(got, x.at); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{x.b}, int(x.n))) {
					t.Fatalf("range %d+%d: %v, other bytes", x.at, x.n, err)
				}
			}
			if err := s.free(x.at, x.n); err != nil {
				t.Fatal(err)
			}
			live -= x.n
			continue
		}
		n := int64(rng.IntN(3000) + 1)
		if rng.IntN(20) == 0 {
			n = int64(rng.IntN(100000) + 1)
		}
		at, err := s.alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.f.WriteAt(bytes.Repeat([]byte{byte(i)}, int(n)), at); err != nil {
			t.Fatal(err)
		}
		held = append(held, piece{at, n, byte(i)})
		live += n
	}
	for _, x := range held {
		got := make([]byte, x.n)
		if _, err := s.f.ReadAt(got, x.at); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{x.b}, int(x.n))) {
			t.Fatalf("range %d+%d: %v, other bytes", x.at, x.n, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if room := st.Blocks * 512; room > 2*live+256<<20 {
		t.Errorf("room: got %d for %d live bytes", room, live)
	}
}

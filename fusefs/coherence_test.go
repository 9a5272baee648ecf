package fusefs

import (
	"os"
	"path/filepath"
	"testing"
)

// coherence.py: one process writes through the handle of its CREATE, which bypasses the page cache; others read, map and execute the
// file through the cache. After each handshake both must see the same bytes.
const coherence = `
import mmap, os, sys, random, subprocess
random.seed(int(sys.argv[1]))
SIZE = 64 * 1024
def child(rd, wr):
    f = os.open("f", os.O_RDWR)
    m = mmap.mmap(f, SIZE)
    while True:
        msg = os.read(rd, 64)
        if not msg: os._exit(0)
        kind, off, n, b = msg.split()
        off, n, b = int(off), int(n), int(b)
        want = bytes([b]) * n
        if kind == b"w":    # the creator wrote: look in every way
            got = os.pread(f, n, off)
            assert got == want, ("read", off, n, b, got[:8])
            assert m[off:off+n] == want, ("map", off, n, b, m[off:off+8])
            with open("f", "rb") as g:
                g.seek(off)
                assert g.read(n) == want, ("open", off, n, b)
        elif kind == b"c":  # write through the cache
            assert os.pwrite(f, want, off) == n
        elif kind == b"m":  # write through the mapping
            m[off:off+n] = want
            m.flush()
        elif kind == b"t":  # the creator cut and grew the file
            assert os.fstat(f).st_size == SIZE
            got = os.pread(f, n, off)
            assert got == bytes(n), ("truncated read", off, n, got[:8])
            assert m[off:off+n] == bytes(n), ("truncated map", off, n)
        os.write(wr, b"ok")
f = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.pwrite(f, bytes(SIZE), 0)
a, b = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.close(a[1]); os.close(b[0])
    child(a[0], b[1])
os.close(a[0]); os.close(b[1])
model = bytearray(SIZE)
own = mmap.mmap(f, SIZE)
for i in range(600):
    off = random.randrange(SIZE - 1)
    n = min(random.choice([1, 10, 4096, 9000, 30000]), SIZE - off)
    kind = random.choice("wwwcmt")
    v = i % 255 + 1
    if kind == "w":
        assert os.pwrite(f, bytes([v]) * n, off) == n
        model[off:off+n] = bytes([v]) * n
    if kind == "t":
        os.ftruncate(f, off); os.ftruncate(f, SIZE)
        n = min(n, SIZE - off)
        model[off:] = bytes(SIZE - off)
    if kind in "cm":
        model[off:off+n] = bytes([v]) * n
    os.write(a[1], b"%s %d %d %d" % (kind.encode(), off, n, v))
    assert os.read(b[0], 2) == b"ok", "reader failed at %d %s" % (i, kind)
    got = os.pread(f, SIZE, 0)
    assert got == bytes(model), ("creator reads", i, kind, off, n)
    assert own[:] == bytes(model), ("creator maps", i, kind, off, n)
os.close(a[1])
assert os.waitpid(pid, 0)[1] == 0
# A reader that races with the writer must see the end of it afterwards.
for i in range(200):
    name = "r%d" % (i % 5)
    if os.path.exists(name): os.unlink(name)
    g = os.open(name, os.O_RDWR | os.O_CREAT)
    pid = os.fork()
    if pid == 0:
        h = os.open(name, os.O_RDONLY)
        while os.pread(h, 1 << 20, 0) != b"".join(bytes([k]) * 5000 for k in range(20)): pass
        os._exit(0)
    for k in range(20): os.write(g, bytes([k]) * 5000)
    os.close(g)
    assert os.waitpid(pid, 0)[1] == 0
# Execute what was just written, while somebody else has read it half-made.
exe = open("/bin/true", "rb").read() if not os.path.exists("/bin/busybox") else open("/bin/busybox", "rb").read()
for i in range(20):
    name = "exe%d" % i
    g = os.open(name, os.O_RDWR | os.O_CREAT, 0o755)
    for k in range(0, len(exe), 100000):
        os.write(g, exe[k:k+100000])
        h = os.open(name, os.O_RDONLY); os.pread(h, 1 << 20, max(0, k - 5000)); os.close(h)
    os.close(g)
    argv = ["true"]
    assert subprocess.call(argv, executable="./" + name) == 0
print("coherent")
`

// TestCoherence: direct and cached handles of one node agree. LAWS 19.
func TestCoherence(t *testing.T) {
	w := newWorld(t)
	script := filepath.Join(w.dir, "coherence.py")
	if err := os.WriteFile(script, []byte(coherence), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, seed := range []string{"1", "2"} {
		r := w.mount(nil, w.parent())
		if out, err := r.try("python3 " + script + " " + seed); err != nil {
			t.Errorf("seed %s: %v\n%s", seed, err, out)
		}
		r.finish()
	}
}

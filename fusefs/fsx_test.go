package fusefs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/reexec"
)

var (
	fsxTime = flag.Duration("fsx", 2*time.Second, "how long random operations on files are done")
	fsxSeed = flag.Uint64("fsx-seed", 0, "do the operations of one seed only")
)

// TestFsx does random operations on two files, each through the handle of its CREATE, a second handle, one that appends, and a shared mapping, and compares what
// all of them see with a model after each. In the end the pack must hold the model. The method is fsx's. LAWS 16, 19.
func TestFsx(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprint("workers_", workers), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.b = New(Options{Workers: workers, check: checkChanges, give: worldGive()})
			seed := *fsxSeed
			for end := time.Now().Add(*fsxTime / 2); time.Now().Before(end); {
				if *fsxSeed == 0 {
					seed = rand.Uint64()
				}
				r := w.mount(nil, w.parent())
				cmd := reexec.Command(t.Context(), "test-fsx", r.root, fmt.Sprint(seed), fmt.Sprint(time.Until(end).Milliseconds()))
				cmd.Dir = "/"
				var model, errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = &model, &errs
				if err := cmd.Run(); err != nil {
					t.Fatalf("-fsx-seed %d: %v\n%s", seed, err, errs.String())
				}
				res := r.finish()
				if got := r.data(res, "fsx0") + r.data(res, "fsx1"); got != model.String() {
					t.Fatalf("-fsx-seed %d: the pack does not hold what was seen in the end", seed)
				}
				if *fsxSeed != 0 {
					return
				}
			}
		})
	}
}

const fsxSize = 1 << 20 // a few windows of read-ahead

// fsxFile is a file, what it should hold, and ways to it.
type fsxFile struct {
	path    string
	model   []byte
	created *os.File // bypasses the page cache
	cached  *os.File
	append  *os.File
	mapped  []byte // of fsxSize bytes; behind the end nobody may look
}

// runFsx is the process that uses the mount. It prints the models.
func runFsx() int {
	seed, err := strconv.ParseUint(os.Args[2], 10, 64)
	if err == nil {
		err = os.Chdir(os.Args[1])
	}
	ms, _ := strconv.Atoi(os.Args[3])
	if err == nil {
		err = fsx(rand.New(rand.NewPCG(seed, 7)), time.Now().Add(time.Duration(ms)*time.Millisecond))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func fsx(r *rand.Rand, end time.Time) error {
	files := make([]*fsxFile, 2)
	for k := range files {
		files[k] = &fsxFile{path: fmt.Sprint("fsx", k)}
		if err := files[k].open(); err != nil {
			return err
		}
	}
	var log []string
	for n := 0; n < 1500 && (time.Now().Before(end) || n < 100); n++ {
		f, other := files[n%2], files[1-n%2]
		what, err := f.step(r, other)
		log = append(log, fmt.Sprint(n, " ", what))
		if err == nil {
			err = f.check(r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w; before it %q", what, err, log[max(0, len(log)-12):])
		}
	}
	for _, f := range files {
		if err := f.whole(); err != nil {
			return err
		}
		if _, err := os.Stdout.Write(f.model); err != nil {
			return err
		}
	}
	return nil
}

func (f *fsxFile) open() (err error) {
	if f.created, err = os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		return err
	}
	return f.reopen()
}

func (f *fsxFile) reopen() (err error) {
	if f.mapped != nil {
		err = errors.Join(unix.Munmap(f.mapped), f.cached.Close(), f.append.Close())
	}
	if err != nil {
		return err
	}
	if f.cached, err = os.OpenFile(f.path, os.O_RDWR, 0); err != nil {
		return err
	}
	if f.append, err = os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return err
	}
	f.mapped, err = unix.Mmap(int(f.cached.Fd()), 0, fsxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

// step does one operation on f and its model.
func (f *fsxFile) step(r *rand.Rand, other *fsxFile) (what string, err error) {
	off, n := r.IntN(fsxSize), 1+r.IntN([]int{10, 4096, 70000, 300000}[r.IntN(4)])
	n = min(n, fsxSize-off)
	p := bytes.Repeat([]byte{byte(r.IntN(255) + 1)}, n)
	handle, name := f.created, "created"
	if r.IntN(2) == 0 {
		handle, name = f.cached, "cached"
	}
	what = fmt.Sprintf("%s %s %d+%d", f.path, name, off, n)
	switch r.IntN(12) {
	case 0, 1, 2:
		_, err = handle.WriteAt(p, int64(off))
		f.put(off, p)
		return "write " + what, err
	case 3:
		if len(f.model)+n > fsxSize {
			return "nothing", nil
		}
		_, err = f.append.Write(p)
		f.put(len(f.model), p)
		return "append " + what, err
	case 4:
		err = handle.Truncate(int64(off))
		f.size(off)
		return "truncate " + what, err
	case 5, 6:
		mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
		if r.IntN(2) == 0 {
			mode = unix.FALLOC_FL_ZERO_RANGE
			f.size(max(len(f.model), off+n))
		}
		if off < len(f.model) {
			clear(f.model[off:min(off+n, len(f.model))])
		}
		return fmt.Sprint("fallocate ", mode, " ", what), unix.Fallocate(int(handle.Fd()), mode, int64(off), int64(n))
	case 7, 8:
		if off >= len(f.model) {
			return "nothing", nil
		}
		n = min(n, len(f.model)-off)
		copy(f.mapped[off:], p[:n])
		f.put(off, p[:n])
		if r.IntN(3) == 0 {
			err = unix.Msync(f.mapped, unix.MS_SYNC)
		}
		return "map " + what, err
	case 9:
		from, src := other, r.IntN(fsxSize)
		if r.IntN(3) == 0 {
			from = f
		}
		n = min(n, len(from.model)-src)
		if n <= 0 || from == f && src < off+n && off < src+n {
			return "nothing", nil
		}
		return fmt.Sprintf("copy from %s %d to %s", from.path, src, what), f.copyRange(from, src, off, n)
	case 10:
		return "reopen " + f.path, f.reopen()
	}
	return "sync " + f.path, handle.Sync()
}

func (f *fsxFile) copyRange(from *fsxFile, src, dst, n int) error {
	if err := unix.Msync(from.mapped, unix.MS_SYNC); err != nil {
		return err
	}
	in, out := int64(src), int64(dst)
	f.put(dst, bytes.Clone(from.model[src:src+n]))
	for n > 0 {
		k, err := unix.CopyFileRange(int(from.cached.Fd()), &in, int(f.cached.Fd()), &out, n, 0)
		if err != nil {
			return err
		}
		if k == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= k
	}
	return nil
}

func (f *fsxFile) put(off int, p []byte) {
	f.size(max(len(f.model), off+len(p)))
	copy(f.model[off:], p)
}

func (f *fsxFile) size(n int) {
	if n > len(f.model) {
		f.model = append(f.model, make([]byte, n-len(f.model))...)
	}
	f.model = f.model[:n:n]
}

// check looks at a part of the file in every way.
func (f *fsxFile) check(r *rand.Rand) error {
	for _, h := range []*os.File{f.created, f.cached} {
		var st unix.Stat_t
		if err := unix.Fstat(int(h.Fd()), &st); err != nil {
			return err
		}
		if st.Size != int64(len(f.model)) {
			return fmt.Errorf("size of %s: got %d, want %d", f.path, st.Size, len(f.model))
		}
	}
	if len(f.model) == 0 {
		return nil
	}
	off := r.IntN(len(f.model))
	n := min(1+r.IntN(100000), len(f.model)-off)
	return f.look(off, n)
}

func (f *fsxFile) whole() error { return f.look(0, len(f.model)) }

func (f *fsxFile) look(off, n int) error {
	want := f.model[off : off+n]
	if err := same("mapping", f.path, off, f.mapped[off:off+n], want); err != nil {
		return err
	}
	got := make([]byte, n)
	for name, h := range map[string]*os.File{"handle of the CREATE": f.created, "second handle": f.cached} {
		if _, err := h.ReadAt(got, int64(off)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := same(name, f.path, off, got, want); err != nil {
			return err
		}
	}
	return nil
}

func same(how, path string, off int, got, want []byte) error {
	for k := range want {
		if got[k] != want[k] {
			return fmt.Errorf("%s of %s: got %d at %d, want %d", how, path, got[k], off+k, want[k])
		}
	}
	return nil
}

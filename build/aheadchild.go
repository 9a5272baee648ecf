package build

import (
	"bufio"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

// aheadChild compresses files beside a RUN, in a process of its own: its threads are of
// the class that runs where nobody else wants the processor, and a collector of the
// build's would wait for them.
const aheadChild = "compress-ahead"

// aheadAsk is what the child is asked: the digest of a file whose bytes are in a pack,
// or its frames.
type aheadAsk struct {
	Pack    string // a file
	Extents []tree.Extent
	Frames  bool
}

func (a *aheadAsk) size() (n int64) {
	for _, x := range a.Extents {
		n += x.Len
	}
	return n
}

type aheadAnswer struct {
	Digest tree.Digest
	Frames []layer.Frame // their places are in the child's file
	Err    string
}

// aheadMain is the body of the child. Questions come on stdin, frames go to descriptor 3.
// Its argument is the compression and its level.
func aheadMain() int {
	if err := yieldAlways(); err != nil {
		return 1
	}
	runtime.GOMAXPROCS(1)
	if len(os.Args) != 3 {
		return 1
	}
	level, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return 1
	}
	a, err := layer.NewAhead(layer.Options{Compression: os.Args[1], Level: level})
	if err != nil || a == nil {
		return 1
	}
	w := &aheadWorker{a: a, out: os.NewFile(3, "frames")}
	in, out := gob.NewDecoder(bufio.NewReader(os.Stdin)), gob.NewEncoder(os.Stdout)
	for {
		var ask aheadAsk
		if in.Decode(&ask) != nil {
			return 0
		}
		answer, err := w.answer(&ask)
		if err != nil {
			answer.Err = err.Error()
		}
		if out.Encode(answer) != nil {
			return 0
		}
	}
}

// yieldAlways puts all threads of this process into the class of those that run where
// nobody else wants to. Threads that they start are in it as well. Where the kernel shares
// processors among sessions first, the class counts inside of one only: this process is
// a session of its own, which gets the least share.
func yieldAlways() error {
	_ = os.WriteFile("/proc/self/autogroup", []byte("19"), 0) // not every kernel does
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		err = unix.SchedSetAttr(id, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

type aheadWorker struct {
	a   *layer.Ahead
	out *os.File
	at  int64 // the end of out
}

func (w *aheadWorker) answer(ask *aheadAsk) (*aheadAnswer, error) {
	none := &aheadAnswer{}
	f, err := os.OpenFile(ask.Pack, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return none, fmt.Errorf("open pack: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	var parts []io.Reader
	for _, x := range ask.Extents {
		parts = append(parts, io.NewSectionReader(f, x.Off, x.Len))
	}
	r := io.MultiReader(parts...)
	if !ask.Frames {
		d, err := contentDigest(r, ask.size())
		for _, x := range ask.Extents {
			// On its way to the disk meanwhile: the end of the build waits for it.
			_ = unix.SyncFileRange(int(f.Fd()), x.Off, x.Len, unix.SYNC_FILE_RANGE_WRITE)
		}
		return &aheadAnswer{Digest: d}, err
	}
	frames, err := w.a.File(io.NewOffsetWriter(w.out, w.at), r, ask.size())
	if err != nil {
		return none, err
	}
	end := w.at
	for i := range frames {
		frames[i].Off += w.at
		end += frames[i].Len
	}
	w.at = end
	return &aheadAnswer{Frames: frames}, nil
}

// contentDigest hashes what r gives, which must be size bytes.
func contentDigest(r io.Reader, size int64) (tree.Digest, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return sum(h), err
}

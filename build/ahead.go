package build

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/internal/reexec"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/tree"
)

const (
	// aheadEvery is how often the recorder is asked which files are done.
	aheadEvery = 250 * time.Millisecond
	// aheadFiles is how many it names at a time.
	aheadFiles = 32
	// aheadMost bounds the frames of one RUN that are kept for its end.
	aheadMost = 1 << 30
)

// aheads compresses what a RUN has written while it runs, on processors that nobody
// wants. What comes of it are frames under the keys of their bytes (LAWS 27), in a file
// without a name: sealing the layer looks there first. Nothing of it is an error; what
// was not done is done at the end.
type aheads struct {
	cancel context.CancelFunc
	ended  chan struct{}
	file   *os.File // nil where nothing was done
}

// end stops the work at once, so that the end of the RUN has all processors, and returns
// where its frames are, nil for nowhere.
func (a *aheads) end() *os.File {
	if a == nil {
		return nil
	}
	a.cancel()
	<-a.ended
	return a.file
}

// compressAhead starts the work for a RUN, nil where there is no use in it.
func (b *builder) compressAhead(ctx context.Context, rec *recorderProc, kind, id string) *aheads {
	o := stepCompression(b.opts.Outputs).options()
	l, err := layer.NewAhead(o)
	if err != nil || l == nil || kind != RecorderFUSE || runtime.GOMAXPROCS(0) < 2 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &aheads{cancel: cancel, ended: make(chan struct{})}
	w := &aheadWork{b: b, a: a, o: o, l: l, rec: rec, id: id}
	go func() {
		defer close(a.ended)
		w.run(ctx)
		w.stop()
	}()
	return a
}

// aheadWork is the goroutine of an aheads.
type aheadWork struct {
	b    *builder
	a    *aheads
	o    layer.Options
	l    *layer.Ahead
	rec  *recorderProc
	id   string
	size int64 // of the file

	cmd  *osexec.Cmd // nil until there is something to do
	ask  *gob.Encoder
	tell *gob.Decoder
}

func (w *aheadWork) run(ctx context.Context) {
	tick := time.NewTicker(aheadEvery)
	defer tick.Stop()
	for w.size < aheadMost {
		files, err := w.rec.Settled(ctx, w.id, w.l.Least(), aheadFiles)
		if err != nil {
			return
		}
		for _, f := range files {
			if err := w.compress(ctx, f); err != nil {
				// The recorder counts on a processor that is used, until it is asked again.
				_, _ = w.rec.Settled(ctx, w.id, w.l.Least(), 0)
				return
			}
		}
		if len(files) > 0 {
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	_, _ = w.rec.Settled(ctx, w.id, w.l.Least(), 0)
}

// compress makes the frames of one file, unless the store has them.
func (w *aheadWork) compress(ctx context.Context, extents []tree.Extent) error {
	if len(extents) == 0 || !pack.Valid(extents[0].Pack) {
		return nil
	}
	if w.cmd == nil {
		if err := w.start(ctx); err != nil {
			return err
		}
	}
	ask := aheadAsk{Pack: filepath.Join(w.b.store.Packs().Dir(), string(extents[0].Pack)+pack.PartSuffix), Extents: extents}
	if w.size+ask.size() > aheadMost { // its frames may be as large, and the RUN needs the disk as well
		return nil
	}
	answer, err := w.asked(ask)
	if err != nil || answer.Err != "" || w.b.frames.has(w.l.First(answer.Digest)) {
		return err
	}
	ask.Frames = true
	if answer, err = w.asked(ask); err != nil || answer.Err != "" {
		return err
	}
	for _, f := range answer.Frames {
		w.size += f.Len
	}
	w.b.frames.addAhead(w.a.file, answer.Frames)
	return nil
}

func (w *aheadWork) asked(ask aheadAsk) (aheadAnswer, error) {
	var answer aheadAnswer
	err := w.ask.Encode(ask)
	if err == nil {
		err = w.tell.Decode(&answer)
	}
	return answer, err
}

// start starts the child and makes its file.
func (w *aheadWork) start(ctx context.Context) error {
	f, err := os.CreateTemp(w.b.temp, "frames-")
	if err != nil {
		return fmt.Errorf("compress ahead: %w", err)
	}
	w.b.frames.keepOpen(f)
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("compress ahead: %w", err)
	}
	cmd := reexec.Command(ctx, aheadChild, w.o.Compression, strconv.Itoa(w.o.Level))
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // see yieldAlways
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("compress ahead: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("compress ahead: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("compress ahead: %w", err)
	}
	w.cmd, w.a.file = cmd, f
	w.ask, w.tell = gob.NewEncoder(in), gob.NewDecoder(out)
	return nil
}

// stop ends the child.
func (w *aheadWork) stop() {
	if w.cmd == nil {
		return
	}
	err := w.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) || err == nil {
		_ = w.cmd.Wait() // it was killed
	}
}

package exec

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"

	"golang.org/x/sys/unix"
)

// outputs are the pipes behind a child's stdout and stderr: one pipe when both go to the same writer, so that the order of what was printed is kept.
type outputs struct {
	out, err *os.File
	copies   []copying
}

type copying struct {
	from *os.File
	to   io.Writer
}

func newOutputs(stdout, stderr io.Writer) (*outputs, error) {
	o := &outputs{}
	var err error
	if o.out, err = o.pipe(stdout); err != nil {
		return nil, err
	}
	if sameWriter(stdout, stderr) {
		o.err = o.out
		return o, nil
	}
	if o.err, err = o.pipe(stderr); err != nil {
		o.abandon()
		return nil, err
	}
	return o, nil
}

func sameWriter(a, b io.Writer) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

func (o *outputs) pipe(to io.Writer) (*os.File, error) {
	if to == nil {
		f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("open null device: %w", err)
		}
		return f, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	// The child shares the open file description, and programs do not expect EAGAIN from their stdout.
	if err := unix.SetNonblock(int(w.Fd()), false); err != nil {
		closeFiles([]*os.File{r, w})
		return nil, fmt.Errorf("make pipe blocking: %w", err)
	}
	o.copies = append(o.copies, copying{r, to})
	return w, nil
}

func (o *outputs) writers() []*os.File { return []*os.File{o.out, o.err} }

// drain closes our ends for writing and copies until the child's are closed too.
func (o *outputs) drain(wg *sync.WaitGroup) {
	closeFiles(o.writers())
	for _, c := range o.copies {
		wg.Go(func() {
			defer func() { _ = c.from.Close() }() // only read
			if _, err := io.Copy(c.to, c.from); err != nil {
				// The writer is broken, not the child: it must not block on a full pipe.
				_, _ = io.Copy(io.Discard, c.from)
			}
		})
	}
}

func (o *outputs) abandon() {
	if o.out != nil {
		closeFiles([]*os.File{o.out})
	}
	if o.err != nil && o.err != o.out {
		closeFiles([]*os.File{o.err})
	}
	for _, c := range o.copies {
		closeFiles([]*os.File{c.from})
	}
}

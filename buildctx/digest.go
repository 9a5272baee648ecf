package buildctx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/tree"
)

// Sink stores contents. Its methods are called from several goroutines at once.
type Sink interface {
	// Find returns where the content D of SIZE bytes lies, if it is stored.
	Find(d tree.Digest, size int64) ([]tree.Extent, bool)
	// Put stores all of R and returns its digest, its size and where it lies. An error of R is returned wrapped or as it is.
	Put(ctx context.Context, r io.Reader) (tree.Digest, int64, []tree.Extent, error)
}

// Digests gives each regular file of PATHS (a directory stands for everything below it) its digest: from the stat cache
// where that is safe (LAWS 23), else by reading it once into SINK, whose extents are kept. Size, mode and time are those
// of the moment when the digest was found out.
func (c *Context) Digests(ctx context.Context, t tree.Tree, paths []string, sink Sink) (tree.Tree, error) {
	return c.each(ctx, t, paths, func(ctx context.Context, p string, n *tree.Node) (tree.Node, bool, error) {
		if n.Digest != "" {
			return tree.Node{}, false, nil
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(c.root.Fd()), p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return tree.Node{}, false, pathError("read", p, changed(err))
		}
		if d, ok := c.cache.lookup(p, signatureOf(&st)); ok && st.Mode&unix.S_IFMT == unix.S_IFREG {
			out := withStat(n, &st)
			out.Digest = d
			return out, true, nil
		}
		out, err := c.read(ctx, p, n, sink)
		return out, true, err
	})
}

// Fill gives every regular file of PATHS (a directory stands for everything below it) extents: those that SINK finds under
// its digest, else by reading it again. A digest that came out different stands in the result: the caller's key is then
// another one.
func (c *Context) Fill(ctx context.Context, t tree.Tree, paths []string, sink Sink) (tree.Tree, error) {
	return c.each(ctx, t, paths, func(ctx context.Context, p string, n *tree.Node) (tree.Node, bool, error) {
		if len(n.Extents) > 0 || n.Size == 0 && n.Digest != "" {
			return tree.Node{}, false, nil
		}
		if n.Digest != "" {
			if extents, ok := sink.Find(n.Digest, n.Size); ok {
				out := n.Attrs()
				out.Extents = extents
				return out, true, nil
			}
		}
		out, err := c.read(ctx, p, n, sink)
		return out, true, err
	})
}

// file is one regular file of a tree.
type file struct {
	path string
	node *tree.Node
}

// each calls FN for the regular files at and below PATHS, several at once, and returns the tree with the nodes that FN
// gave back.
func (c *Context) each(ctx context.Context, t tree.Tree, paths []string,
	fn func(ctx context.Context, p string, n *tree.Node) (out tree.Node, changed bool, err error),
) (tree.Tree, error) {
	files := make(chan file, 4*workers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(files)
		for _, p := range paths {
			err := t.WalkFrom(p, func(p string, n *tree.Node) error {
				if n.Kind != tree.File {
					return nil
				}
				select {
				case files <- file{p, n}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				return fmt.Errorf("read build context: %w", err)
			}
		}
		return nil
	})
	var mu sync.Mutex
	editor := t.Edit()
	for range workers {
		g.Go(func() error {
			for f := range files {
				out, changed, err := fn(ctx, f.path, f.node)
				if err != nil {
					return err
				}
				if !changed {
					continue
				}
				mu.Lock()
				err = editor.Put(f.path, out)
				mu.Unlock()
				if err != nil {
					return fmt.Errorf("read build context: %w", err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return tree.Tree{}, err
	}
	return editor.Tree(), nil
}

// read stores the contents of a file. Where the file changes meanwhile, it is read a second time, and no third.
func (c *Context) read(ctx context.Context, p string, n *tree.Node, sink Sink) (tree.Node, error) {
	for range 2 {
		out, start, sig, err := c.readOnce(ctx, p, n, sink)
		if err == nil {
			c.cache.add(p, sig, out.Digest, start)
			return out, nil
		}
		if !errors.Is(err, errMoved) {
			return tree.Node{}, err
		}
	}
	return tree.Node{}, pathError("read", p, ErrChanged)
}

// errMoved says that a file changed under the reader.
var errMoved = errors.New("changed while it was read")

func (c *Context) readOnce(ctx context.Context, p string, n *tree.Node, sink Sink) (out tree.Node, start time.Time, sig signature, err error) {
	fail := func(err error) (tree.Node, time.Time, signature, error) {
		return tree.Node{}, start, sig, err
	}
	start = c.now() // before the first look: what is written from now on is not covered
	f, err := openBeneath(c.root, p, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return fail(pathError("read", p, changed(err)))
	}
	defer func() { _ = f.Close() }() // only read
	var before, after unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &before); err != nil {
		return fail(pathError("read", p, err))
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(pathError("read", p, ErrChanged))
	}
	r := &body{ctx: ctx, r: io.LimitReader(f, before.Size+1)}
	digest, size, extents, err := sink.Put(ctx, r)
	if r.err != nil {
		return fail(pathError("read", p, r.err))
	}
	if err != nil {
		return fail(fmt.Errorf("store %q of build context: %w", p, err))
	}
	if err := unix.Fstat(int(f.Fd()), &after); err != nil {
		return fail(pathError("read", p, err))
	}
	sig = signatureOf(&before)
	if sig != signatureOf(&after) || r.n != before.Size || size != before.Size {
		return fail(errMoved)
	}
	out = withStat(n, &before)
	out.Digest, out.Extents = digest, extents
	return out, start, sig, nil
}

// withStat is N with the size, mode and time of ST.
func withStat(n *tree.Node, st *unix.Stat_t) tree.Node {
	out := n.Attrs()
	out.Size, out.Mode, out.Extents = st.Size, st.Mode&0o7777, nil
	out.Mtime = tree.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}
	return out
}

// body is a file's contents on their way into the sink: it ends with the context and keeps its own errors apart from the
// sink's.
type body struct {
	ctx context.Context //nolint:containedctx // Read has no parameter for it
	r   io.Reader
	n   int64
	err error
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		b.err = err
		return 0, err
	}
	n, err := b.r.Read(p)
	b.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

package layer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fbuild/fbuild/tree"
)

// The tar that fbuild writes: USTAR headers in the order of the changes, PAX
// records only for what USTAR cannot say; relative names, directories with a
// slash at the end ("./" is the root); whole seconds; owners as numbers, without
// names; the first name of a link group holds the contents, the others are links
// to it with the same attributes (an unpacker that changes the owner through a
// link drops file capabilities, so they stand in every header); whiteouts are
// empty files .wh.NAME and .wh..wh..opq with no mode and the time 0; holes of 1
// MiB and more in one file make it sparse (PAX 1.0); two blocks of zeros end it.

// WriteTar writes cs as a deterministic tar, uncompressed, whatever the options
// say. A change that no unpacker could follow is an error (LAWS 21, 24).
func WriteTar(ctx context.Context, w io.Writer, cs tree.Changes, c Contents, o Options) error {
	buf := bufio.NewWriterSize(w, 256<<10)
	t := newTarWriter(buf, c, o)
	if err := t.all(ctx, cs); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

type tarWriter struct {
	w     io.Writer
	c     Contents
	clamp *tree.Time
	dense bool // holes are written as zeros
	open  bool // the end is somebody else's to write
	notes notes
	buf   []byte
	first map[*tree.Node]string
	// entry is told of each path before its header, and file of each content before
	// its bytes: the node, what of it is stored (itself, or a copy without the
	// holes that are left out), and where that lies in the file.
	entry func(path string) error
	wrote func(h *header) error // told of each header behind it
	file  func(n, stored *tree.Node, spans []span) error
}

func newTarWriter(w io.Writer, c Contents, o Options) *tarWriter {
	return &tarWriter{
		w: w, c: c, clamp: o.ClampMtime, first: map[*tree.Node]string{},
		entry: func(string) error { return nil }, wrote: func(*header) error { return nil },
		file: func(_, _ *tree.Node, _ []span) error { return nil },
	}
}

// all writes the whole tar.
func (t *tarWriter) all(ctx context.Context, cs tree.Changes) error {
	shared := sharedNodes(cs)
	for i := range cs {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if i > 0 && tree.Compare(cs[i-1].Path, cs[i].Path) >= 0 {
			return fmt.Errorf("write layer: %q stands behind %q", cs[i].Path, cs[i-1].Path)
		}
		if err := t.change(ctx, &cs[i], shared); err != nil {
			return fmt.Errorf("write %q to the layer: %w", cs[i].Path, err)
		}
	}
	if t.open {
		return nil
	}
	var end [2 * blockSize]byte
	return t.bytes(end[:])
}

// sharedNodes returns the nodes that stand for more than one path.
func sharedNodes(cs tree.Changes) map[*tree.Node]bool {
	seen := make(map[*tree.Node]bool, len(cs))
	for i := range cs {
		if n := cs[i].Node; n != nil && n.Kind != tree.Dir {
			_, again := seen[n]
			seen[n] = again
		}
	}
	for n, again := range seen {
		if !again {
			delete(seen, n)
		}
	}
	return seen
}

func (t *tarWriter) change(ctx context.Context, c *tree.Change, shared map[*tree.Node]bool) error {
	if err := checkPath(c.Path); err != nil {
		return err
	}
	if err := t.entry(c.Path); err != nil {
		return err
	}
	if c.LinkTo != "" {
		return fmt.Errorf("it is a hard link to %q of a layer below, whose attributes are not known", c.LinkTo)
	}
	if c.Whiteout() {
		dir, name := tree.Split(c.Path)
		if name == "" {
			return errors.New("the root cannot be removed")
		}
		return t.mark(tree.Join(dir, whPrefix+name))
	}
	if c.Node != nil {
		if err := t.node(ctx, c.Path, c.Node, shared[c.Node]); err != nil {
			return err
		}
	}
	if c.Opaque {
		return t.mark(tree.Join(c.Path, whOpaque))
	}
	return nil
}

// checkPath refuses what a layer cannot say and nobody could unpack.
func checkPath(p string) error {
	if len(p) > maxPath {
		return fmt.Errorf("its path has %d bytes, more than the %d that Linux takes", len(p), maxPath)
	}
	if p == "" {
		return nil
	}
	if strings.IndexByte(p, 0) >= 0 {
		return errors.New("its name has a NUL")
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return errors.New("its path is not clean")
		case len(part) > maxName:
			return fmt.Errorf("its name has %d bytes, more than the %d that Linux takes", len(part), maxName)
		case strings.HasPrefix(part, whPrefix):
			return fmt.Errorf("names that start with %q mean deletions in an image", whPrefix)
		}
	}
	return nil
}

// mark writes a whiteout or an opaque mark.
func (t *tarWriter) mark(name string) error {
	h := header{name: name, typ: typeFile}
	return t.header(&h)
}

func (t *tarWriter) node(ctx context.Context, p string, n *tree.Node, shared bool) error {
	h := header{name: p, mode: n.Mode & 0o7777, uid: n.UID, gid: n.GID, mtime: t.mtime(n)}
	var err error
	if h.xattrs, err = t.xattrs(p, n); err != nil {
		return err
	}
	if shared {
		if first, ok := t.first[n]; ok {
			h.typ, h.link = typeLink, first
			return t.header(&h)
		}
		t.first[n] = p
	}
	switch n.Kind {
	case tree.File:
		return t.regular(ctx, &h, n)
	case tree.Dir:
		if p == "" {
			h.name = "."
		}
		h.typ, h.name = typeDir, h.name+"/"
	case tree.Symlink:
		if n.Target == "" || len(n.Target) > maxPath || strings.IndexByte(n.Target, 0) >= 0 {
			return fmt.Errorf("its link target has %d bytes, outside of the 1 to %d that Linux takes", len(n.Target), maxPath)
		}
		h.typ, h.link = typeSymlink, n.Target
	case tree.Fifo:
		h.typ = typeFifo
	case tree.CharDevice, tree.BlockDevice:
		if isWhiteoutDevice(n) {
			return errors.New("the character device 0/0 means a deletion to overlayfs")
		}
		if n.Major > maxMajor || n.Minor > maxMinor {
			return fmt.Errorf("device number %d/%d is impossible", n.Major, n.Minor)
		}
		h.typ, h.major, h.minor = typeChar, n.Major, n.Minor
		if n.Kind == tree.BlockDevice {
			h.typ = typeBlock
		}
	default:
		return fmt.Errorf("its kind %d is unknown", n.Kind)
	}
	return t.header(&h)
}

func (t *tarWriter) mtime(n *tree.Node) int64 {
	if t.clamp != nil && t.clamp.Before(n.Mtime) {
		return t.clamp.Sec
	}
	return n.Mtime.Sec
}

func (t *tarWriter) xattrs(p string, n *tree.Node) ([]tree.Xattr, error) {
	var out []tree.Xattr
	for _, x := range n.Xattrs {
		if err := checkXattr(x, p); err != nil {
			return nil, err
		}
		if strings.Contains(x.Name, "=") {
			return nil, fmt.Errorf("the name of its xattr %q cannot stand in a tar", x.Name)
		}
		if overlayXattr(x.Name) {
			t.notes.add("xattr %s of %q is left out: it would steer overlayfs", x.Name, p)
			continue
		}
		out = append(out, x)
	}
	return out, nil
}

// regular writes a regular file with its contents.
func (t *tarWriter) regular(ctx context.Context, h *header, n *tree.Node) error {
	l, err := layoutOf(n)
	if err != nil {
		return err
	}
	if t.dense {
		l = layout{data: n.Extents, stored: n.Size}
	}
	h.typ, h.size = typeFile, l.stored
	if !l.sparse {
		if err := t.header(h); err != nil {
			return err
		}
		if n.Size == 0 {
			return nil
		}
		if err := t.file(n, n, []span{{0, n.Size}}); err != nil {
			return err
		}
		return t.contents(ctx, n)
	}
	table := l.sparseMap(n.Size)
	h.sparse, h.size = n.Size, l.stored+int64(len(table))
	if err := t.header(h); err != nil {
		return err
	}
	if err := t.bytes(table); err != nil {
		return err
	}
	part := n.Attrs()
	part.Extents, part.Size, part.Digest = l.data, l.stored, ""
	if err := t.file(n, &part, l.spans); err != nil {
		return err
	}
	return t.contents(ctx, &part)
}

// contents writes n.Size bytes, which is what the reader must have, and fills
// the last block.
func (t *tarWriter) contents(ctx context.Context, n *tree.Node) (err error) {
	if n.Size == 0 {
		return nil
	}
	r, err := t.c.Open(n)
	if err != nil {
		return fmt.Errorf("open contents: %w", err)
	}
	defer func() {
		if cerr := r.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close contents: %w", cerr)
		}
	}()
	if t.buf == nil {
		t.buf = make([]byte, 256<<10)
	}
	for left := n.Size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k, end, err := readFull(r, t.buf[:min(left, int64(len(t.buf)))])
		left -= int64(k)
		if err != nil {
			return fmt.Errorf("read contents: %w", err)
		}
		if end && left > 0 {
			return fmt.Errorf("contents end %d bytes early: %w", left, io.ErrUnexpectedEOF)
		}
		if err := t.bytes(t.buf[:k]); err != nil {
			return err
		}
	}
	var one [1]byte
	if k, _, err := readFull(r, one[:]); k > 0 {
		return fmt.Errorf("contents are longer than %d bytes", n.Size)
	} else if err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	return t.bytes(zeroBlock[:-n.Size&(blockSize-1)])
}

func (t *tarWriter) header(h *header) error {
	b, err := h.encode()
	if err != nil {
		return err
	}
	if err := t.bytes(b); err != nil {
		return err
	}
	return t.wrote(h)
}

func (t *tarWriter) bytes(b []byte) error {
	if _, err := t.w.Write(b); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

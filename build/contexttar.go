package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"github.com/fbuild/fbuild/dockerfile"
	"github.com/fbuild/fbuild/internal/pack"
	"github.com/fbuild/fbuild/oci/layer"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/snapshot"
	"github.com/fbuild/fbuild/tree"
)

// contentError is a context whose bytes are of no use, and what to do.
type contentError struct{ text, hint string }

func (e *contentError) Error() string { return e.text }

var (
	errNotTar = &contentError{"not a tar archive", "a context is a tar, plain or compressed with gzip, bzip2, xz or zstd"}
	errEmpty  = &contentError{"it is empty", "give a Dockerfile or a tar: fbuild build - < Dockerfile, or tar c . | fbuild build -"}
)

// transferring is docker's word for a context on its way.
const transferring = "transferring context:"

// headLen bytes tell a tar or a compressed file from a Dockerfile: a tar has its
// mark behind the first 257.
const headLen = 512

// fromStream reads a tar in any compression, or a Dockerfile, to its end. Nothing
// is left where it fails.
func (f *FetchedContext) fromStream(ctx context.Context, r io.Reader, step *progress.Step) error {
	c := &counted{r: ctxReader{ctx, r}, step: step}
	br := bufio.NewReaderSize(c, 64<<10)
	head, err := br.Peek(headLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(head) == 0 {
		return errEmpty
	}
	if !isText(head) {
		dir := filepath.Join(f.temp, "tree")
		if err := unpackContext(ctx, br, f.temp, dir, step); err != nil {
			return err
		}
		c.done()
		f.Dir = dir
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(br, dockerfile.MaxSize+1))
	if err != nil {
		return err
	}
	if len(text) > dockerfile.MaxSize {
		return &contentError{
			fmt.Sprintf("neither a tar nor a Dockerfile: text of more than %d bytes", dockerfile.MaxSize), errNotTar.hint,
		}
	}
	c.done()
	f.Dockerfile = text
	return nil
}

// isText says that these are the first bytes of a Dockerfile: no archive and no
// compressed file begins without a control character in them.
func isText(head []byte) bool {
	if bytes.HasPrefix(head, []byte("BZh")) && len(head) > 9 && head[4] == 0x31 && head[5] == 0x41 { // bzip2, block magic
		return false
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 && len(head) >= utf8.UTFMax {
			return false
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != '\f' && r != 0x1b {
			return false
		}
		head = head[n:]
	}
	return true
}

// counted shows how much has come.
type counted struct {
	r    io.Reader
	step *progress.Step
	n    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.step.Status(transferring, c.n, 0, false)
	return n, err
}

func (c *counted) done() {
	c.step.Status(transferring, c.n, c.n, true)
}

// unpackContext unpacks a tar into dir by way of a pack and a tree, so that no
// entry can lead out of it and none comes before all of the tar was read. The pack
// goes at once.
func unpackContext(ctx context.Context, r io.Reader, temp, dir string, step *progress.Step) error {
	packs, err := mkdirIn(temp, "pack-")
	if err != nil {
		return err
	}
	w, err := pack.Create(packs, "tar")
	if err != nil {
		return err
	}
	defer w.Abort()
	cs, info, err := layer.Extract(ctx, r, w.ID(), w, layer.Limits{})
	switch {
	case errors.Is(err, layer.ErrNotArchive):
		return errNotTar
	case errors.Is(err, layer.ErrCorrupt):
		return &contentError{err.Error(), cutHint}
	case err != nil:
		return err
	}
	if err := checkEnd(w.File(), info.TarSize); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	t, err := tree.Empty().Apply(cs)
	if err != nil {
		return err
	}
	for _, n := range info.Notes {
		step.Warn(n)
	}
	set := pack.NewSet(packs)
	err = snapshot.Materialize(ctx, t, set, dir, snapshot.MaterializeOptions{NoOwners: true, Skipped: func(path, what string) {
		step.Warn(fmt.Sprintf("%q: %s is left out", path, what))
	}})
	return errors.Join(err, set.Close(), os.RemoveAll(packs))
}

const cutHint = "the archive is damaged, or was cut short on its way; nothing of it was used"

// endMark is the length of the zeros that every tar ends with.
const endMark = 1024

// checkEnd refuses a tar without its end: one that was cut between two entries
// looks whole otherwise, and its last files would be missing in the image.
func checkEnd(tar io.ReaderAt, size int64) error {
	end := make([]byte, endMark)
	if size >= endMark {
		if _, err := tar.ReadAt(end, size-endMark); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read tar: %w", err)
		}
		if !slices.ContainsFunc(end, func(b byte) bool { return b != 0 }) {
			return nil
		}
	}
	return &contentError{"corrupt archive: the end of the tar is missing", cutHint}
}

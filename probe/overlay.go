package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fbuild/fbuild/exec"
	"github.com/fbuild/fbuild/internal/tail"
	"github.com/fbuild/fbuild/snapshot"
)

// ErrNoOverlay says that the overlay recorder cannot work here; the error around it
// says why and what would help.
var ErrNoOverlay = errors.New("overlayfs is not available")

// Overlay reports whether the overlay recorder can work in the sandbox with its
// directories below dir: it mounts a small overlayfs there and uses it (LAWS 31).
func Overlay(ctx context.Context, box *exec.Sandbox, dir string) error {
	if box.Isolation() == exec.IsolationChroot {
		return fmt.Errorf("%w: it needs namespaces, and RUN happens in a chroot here", ErrNoOverlay)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("try overlayfs: %w", err)
	}
	var said tail.Buffer
	p, err := box.Start(ctx, snapshot.OverlayProbe, []*os.File{r}, &said)
	if err := errors.Join(err, r.Close()); err != nil {
		return errors.Join(fmt.Errorf("try overlayfs: %w", err), w.Close())
	}
	_, err = w.WriteString(dir)
	err = errors.Join(err, w.Close(), p.Wait())
	if err == nil || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if text := strings.TrimSpace(said.String()); text != "" {
		return fmt.Errorf("%w: %s", ErrNoOverlay, text)
	}
	return fmt.Errorf("%w: %w", ErrNoOverlay, err)
}

// overlay tries it where the store is, or would be.
func overlay(ctx context.Context, store string) Check {
	c := Check{Name: "overlay"}
	err := func() error {
		box, err := exec.Open(ctx, exec.Config{})
		if err != nil {
			return err
		}
		return errors.Join(Overlay(ctx, box, scratch(store)), box.Close())
	}()
	if err != nil {
		c.Detail = err.Error() + "; the recorder overlay cannot be used"
		return c
	}
	c.OK, c.Detail = true, "overlayfs can be mounted on the store's disk: the recorder overlay can be used"
	return c
}

// scratch is where temporary files of a store at dir lie; where there is none yet, the
// directory that would hold it.
func scratch(dir string) string {
	if tmp := filepath.Join(dir, "tmp"); isDir(tmp) {
		return tmp
	}
	return existing(dir)
}

// existing is dir, or the nearest directory above that exists.
func existing(dir string) string {
	for dir != "/" && !isDir(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

func isDir(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.IsDir()
}

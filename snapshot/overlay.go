package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
	"github.com/fbuild/fbuild/tree"
)

// NewOverlay returns the overlay recorder: each layer is a directory that is made
// once, and a step an overlayfs on those of its layers. It must run inside the user
// namespace of the commands, with a mount namespace to mount in.
func NewOverlay(o Options) recorder.Backend {
	return newBackend(o, &overlayer{o: o, trees: treeStore{held: map[string]*heldTree{}}})
}

// overlayer is the rung of the recorder "overlay".
type overlayer struct {
	o     Options
	trees treeStore
}

// overlay is what a step has of it.
type overlay struct {
	upper   string // the directory that overlayfs writes to
	mounted bool
}

// Names below a step's work directory.
const (
	upperName = "upper"
	workName  = "work"
	linksName = "lower" // holds a link with a short name to each lower directory
	madeName  = "made"  // directories of layers that are kept for this step only
)

func (o *overlayer) prepare(ctx context.Context, s *step, chain []layered) error {
	stubs, err := plan(s.parent, s.spec.Stubs)
	if err != nil {
		return err
	}
	var lowers []string
	below := layered{Tree: tree.Empty()}
	for _, l := range chain {
		dir, err := o.trees.layer(ctx, s, below, l, o.o.Workers)
		if err != nil {
			return err
		}
		if dir != "" {
			lowers = append(lowers, dir)
		}
		below = l
	}
	s.over = &overlay{upper: s.path(upperName)}
	if err := o.makeUpper(ctx, s, stubs); err != nil {
		return err
	}
	for _, dir := range []string{s.root, s.path(workName)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if len(lowers) == 0 { // overlayfs wants one
		lowers = []string{s.path(madeName, "empty")}
		if err := os.MkdirAll(lowers[0], 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := linkLowers(s.path(linksName), lowers); err != nil {
		return err
	}
	if err := mountOverlay(s.spec.WorkDir, len(lowers), s.root); err != nil {
		return err
	}
	s.over.mounted = true
	return nil
}

func (s *step) path(elem ...string) string {
	return filepath.Join(append([]string{s.spec.WorkDir}, elem...)...)
}

// makeUpper makes the directory that the step writes to. It has the attributes of the
// tree's root, which an overlayfs takes from there, and stubs with the directories above
// them, so that a stub is known by its inode (LAWS 25).
func (o *overlayer) makeUpper(ctx context.Context, s *step, stubs []stubEntry) error {
	edit := tree.Empty().Edit()
	if err := edit.Put("", overlayAttrs(s.parent.Root())); err != nil {
		return err
	}
	for _, stub := range stubs {
		for i := range stub.path {
			if stub.path[i] != '/' {
				continue
			}
			if n := s.parent.Lookup(stub.path[:i]); n != nil {
				if err := edit.Put(stub.path[:i], overlayAttrs(n)); err != nil {
					return err
				}
			}
		}
	}
	var err error
	s.disk, err = materialize(ctx, edit.Tree(), s.packs, s.over.upper, stubs, MaterializeOptions{Workers: o.o.Workers})
	return err
}

// linkLowers makes links to the lower directories, the topmost first: by short names
// hundreds of them fit into the 4 KiB of mount options (LAWS 29).
func linkLowers(dir string, lowers []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	for i, lower := range lowers {
		if err := os.Symlink(lower, filepath.Join(dir, strconv.Itoa(len(lowers)-1-i))); err != nil {
			return fmt.Errorf("name layer: %w", err)
		}
	}
	return nil
}

// overlayOptions are the same for every step. The xattrs of overlayfs are user.overlay.*
// (LAWS 26), and nothing is ever synced: an interrupted step is thrown away (LAWS 33).
const overlayOptions = "userxattr,volatile,index=off,xino=off"

// mountOverlay mounts the first COUNT links of WORK/lower, with WORK/upper and WORK/work,
// on root.
func mountOverlay(work string, count int, root string) error {
	names := make([]string, count)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	options := fmt.Sprintf("%s,lowerdir=%s,upperdir=../%s,workdir=../%s", overlayOptions, strings.Join(names, ":"), upperName, workName)
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("mount overlay: %d layers are more than a mount can name", count)
	}
	done := make(chan error)
	go func() {
		// The thread gets a working directory of its own, and is never used again.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(filepath.Join(work, linksName))
		}
		if err == nil {
			err = unix.Mount("fbuild", root, "overlay", unix.MS_NODEV, options)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// finish unmounts the step and walks what its command left in the upper directory.
func (o *overlayer) finish(ctx context.Context, s *step) (recorder.Result, error) {
	if err := writtenBack(s.root); err != nil {
		return recorder.Result{}, err
	}
	if err := s.unmount(ctx); err != nil {
		return recorder.Result{}, err
	}
	res, err := s.scanner().finish(ctx, (*scanner).upper)
	res.Doubt = "the overlay recorder does not trace"
	return res, err
}

// writtenBack reports whether the kernel lost something on its way to the disk: a
// volatile mount syncs nothing, but it remembers that (LAWS 17).
func writtenBack(root string) error {
	fd, err := openDirAt(unix.AT_FDCWD, root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // only a handle
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("write to the disk: %w", err)
	}
	return nil
}

// unmountTime is how long the root may be busy: every process of the step is gone, but
// the kernel may still be putting away what it had open.
const unmountTime = 5 * time.Second

func (s *step) unmount(ctx context.Context) error {
	end := time.Now().Add(unmountTime)
	for {
		err := unix.Unmount(s.root, unix.UMOUNT_NOFOLLOW)
		if err == nil {
			s.over.mounted = false
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("unmount root: %w", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// clean leaves the directories of layers: other steps stand on them.
func (o *overlayer) clean(s *step) error {
	var errs []error
	if s.over != nil && s.over.mounted {
		if err := unix.Unmount(s.root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount root: %w", err))
		}
		s.over.mounted = false
	}
	for _, name := range []string{filepath.Base(s.root), upperName, workName, linksName, madeName} {
		if err := RemoveAll(s.path(name)); err != nil {
			errs = append(errs, fmt.Errorf("remove step's directory: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (o *overlayer) close() error { return o.trees.close() }

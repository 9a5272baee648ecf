package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
)

// maxWrite is the largest READ and WRITE.
const maxWrite = 1 << 20

// start shows the stubs, mounts the step and serves it.
func (s *step) start(spec recorder.Spec, workers int) error {
	if err := s.addStubs(spec.Stubs); err != nil {
		return err
	}
	if err := os.Mkdir(s.root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create mount point: %w", err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	s.device = fd
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, maxWrite)
	// Never nosuid: setuid programs and file capabilities work in a RUN (LAWS 19).
	if err := unix.Mount("fbuild", s.root, "fuse", unix.MS_NODEV, data); err != nil {
		return errors.Join(fmt.Errorf("mount FUSE: %w", err), unix.Close(fd))
	}
	if err := s.serve(workers); err != nil {
		return errors.Join(fmt.Errorf("start FUSE server: %w", err), s.unmount(unix.MNT_DETACH), unix.Close(fd), s.spool.drop())
	}
	return nil
}

// mountOptions are the settings of the measurements in docs: few requests, no
// truncation lost (no ATOMIC_O_TRUNC beside "no OPEN"), no passthrough.
func (s *step) mountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:             maxWrite,
		MaxBackground:        64,
		Logger:               log.New(io.Discard, "", 0), // it names requests that are answered with ENOSYS
		EnableSymlinkCaching: true,
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT,
		EnableAcl:            true,
		// AUTO_INVAL_DATA stays: until 6.19 a direct write did not drop what a read
		// that raced with it had put into the page cache; the new mtime does.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH | fuse.CAP_ATOMIC_O_TRUNC,
		PanicHandler:         s.panicked,
	}
}

// panicked is told of a handler that panicked: the step has failed.
func (s *step) panicked(v any) fuse.Status {
	s.fail(fmt.Errorf("serve root: panic: %v\n%s", v, debug.Stack()))
	return fuse.EIO
}

func (s *step) unmount(flags int) error {
	if err := unix.Unmount(s.root, flags); err != nil {
		return fmt.Errorf("unmount root: %w", err)
	}
	return nil
}

// detach unmounts and serves on until the kernel says that nobody can ask any
// more (LAWS 12). By then the root stands nowhere; what the kernel still frees, a
// microsecond and more for each name that it knew, is left to a thread of its own.
func (s *step) detach(ctx context.Context) error {
	select {
	case <-s.served:
		// MNT_DETACH: the mount point may be gone with whoever ended the server.
		return errors.Join(errors.New("the root was unmounted before the step was over"), s.unmount(unix.MNT_DETACH))
	default:
	}
	unmounted := make(chan error, 1)
	s.leaving.Go(func() {
		runtime.LockOSThread() // it ends with the thread, and so does the priority
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
		unmounted <- s.unmount(unix.MNT_DETACH)
	})
	timer := time.NewTimer(s.patience())
	defer timer.Stop()
	for {
		select {
		case <-s.served:
			return nil
		case err := <-unmounted:
			if err != nil {
				return err
			}
			unmounted = nil
		case <-timer.C:
			if s.late.Load() == 0 {
				return fmt.Errorf("unmount root: still in use after %v", detachTime)
			}
			timer.Reset(s.patience()) // not the kernel but the build is slow
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// disconnect unmounts, and where the kernel allows it ends what waits for answers.
func (s *step) disconnect() error {
	err := s.unmount(unix.MNT_FORCE | unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		err = s.unmount(unix.MNT_DETACH)
	}
	return err
}

// left returns when nobody serves an aborted step any more.
func (s *step) left() error {
	timer := time.NewTimer(s.patience())
	defer timer.Stop()
	for {
		select {
		case <-s.served:
			return nil
		case <-timer.C:
			if s.late.Load() == 0 {
				return fmt.Errorf("abort step: root still in use after %v", detachTime)
			}
			timer.Reset(s.patience())
		}
	}
}

// abort throws the step away. The connection is cut first, so that whoever
// waits for an answer gets an error instead.
func (s *step) abort() error {
	defer close(s.over)
	err := s.disconnect()
	if err == nil {
		err = s.left()
	}
	s.spool.w.Abort()
	if rerr := os.Remove(s.root); err == nil {
		err = rerr
	}
	return err
}

package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where nothing can be mounted, what a command finds in its root beside the image is put there as files and directories, and taken out when it has ended. What is in the
// way lies aside in the meantime, in a directory beside the root. Nothing of it is a change of the root (LAWS 25): names and times are what they were.

// placement is everything that was put into one root.
type placement struct {
	root  *os.Root
	aside *os.File // directory for what is in the way
	dir   string   // its name
	put   []*placed
}

// placed is one entry that was put into the root.
type placed struct {
	target string
	parent *os.Root // stays that directory wherever a command moves it
	dir    *os.File // the same, as a descriptor
	name   string
	aside  string         // the name of what was here, "" for nothing
	after  []func() error // before it is removed
}

// place puts /dev, /proc, /sys and the mounts of J into its root.
func place(j job) (*placement, error) {
	p := &placement{dir: j.Root + ".aside"}
	var err error
	if p.root, err = os.OpenRoot(j.Root); err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	if err = os.Mkdir(p.dir, 0o700); err == nil {
		p.aside, err = os.Open(p.dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make place for what is in the way: %w", err), p.root.Close())
	}
	if err = p.all(j); err != nil {
		return nil, errors.Join(err, p.takeOut())
	}
	return p, nil
}

func (p *placement) all(j job) error {
	if err := p.system(j); err != nil {
		return err
	}
	for _, m := range j.Mounts {
		if err := p.mount(m); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.Type, m.Target, err)
		}
	}
	return nil
}

// mount puts the like of one mount into the root.
func (p *placement) mount(m Mount) error {
	switch m.Type {
	case "tmpfs":
		return p.tmpfs(m)
	case "file":
		return p.file(m)
	}
	st, err := os.Stat(m.Source)
	switch {
	case err != nil:
		return err
	case st.IsDir() && !m.ReadOnly:
		return p.move(m)
	case st.Mode()&fs.ModeSocket != 0:
		// A socket cannot be copied; a second name of it is as good.
		_, err := p.add(m.Target, func(e *placed) error {
			return unix.Linkat(unix.AT_FDCWD, m.Source, int(e.dir.Fd()), e.name, 0)
		})
		return err
	}
	_, err = p.add(m.Target, func(e *placed) error { return copyInto(m.Source, e.parent, e.name) })
	return err
}

// tmpfs is an empty directory; its size is not limited.
func (p *placement) tmpfs(m Mount) error {
	mode := uint64(0o1777)
	for option := range strings.SplitSeq(m.Options, ",") {
		if text, ok := strings.CutPrefix(option, "mode="); ok {
			var err error
			if mode, err = strconv.ParseUint(text, 8, 12); err != nil {
				return fmt.Errorf("parse mode of tmpfs: %w", err)
			}
		}
	}
	_, err := p.add(m.Target, func(e *placed) error {
		if err := unix.Mkdirat(int(e.dir.Fd()), e.name, 0o700); err != nil {
			return err
		}
		return unix.Fchmodat(int(e.dir.Fd()), e.name, uint32(mode), 0)
	})
	return err
}

// file is written, and wiped in the end wherever it is then: it may be a secret.
func (p *placement) file(m Mount) error {
	var f *os.File
	e, err := p.add(m.Target, func(e *placed) error {
		var err error
		if f, err = e.parent.OpenFile(e.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		if _, err := f.Write(m.Data); err != nil {
			return err
		}
		if err := f.Chown(int(m.UID), int(m.GID)); err != nil {
			return err
		}
		return unix.Fchmod(int(f.Fd()), m.Perm)
	})
	if e != nil && f != nil {
		e.after = append(e.after, func() error { return wipe(f, len(m.Data)) })
	}
	return err
}

// maxWiped is how much of a file is overwritten that a command made longer.
const maxWiped = 1 << 20

// wipe overwrites what F held, so that it is not on a disk longer than the command ran, cuts it off and closes it.
func wipe(f *os.File, size int) error {
	if st, err := f.Stat(); err == nil && st.Size() > int64(size) {
		size = int(min(st.Size(), maxWiped))
	}
	_, err := f.WriteAt(make([]byte, size), 0)
	return errors.Join(err, f.Truncate(0), f.Close())
}

// move brings a directory here by renaming it, and back by the same way: its contents are never copied, unless the root is on another file system.
func (p *placement) move(m Mount) error {
	source, err := os.OpenRoot(filepath.Dir(m.Source))
	if err != nil {
		return err
	}
	from, err := source.Open(".")
	if err != nil {
		return errors.Join(err, source.Close())
	}
	base := filepath.Base(m.Source)
	copied := false
	e, err := p.add(m.Target, func(e *placed) error {
		err := unix.Renameat(int(from.Fd()), base, int(e.dir.Fd()), e.name)
		if errors.Is(err, unix.EXDEV) {
			copied = true
			err = copyInto(m.Source, e.parent, e.name)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, from.Close(), source.Close())
	}
	was, err := e.parent.Lstat(e.name)
	e.after = append(e.after, func() error {
		err := e.moveBack(source, from, base, was, copied)
		return errors.Join(err, from.Close(), source.Close())
	})
	return err
}

// moveBack returns a directory that was moved here; where the command has put something else in its place, or removed it, an empty one goes back.
func (e *placed) moveBack(source *os.Root, from *os.File, base string, was fs.FileInfo, copied bool) error {
	now, err := e.parent.Lstat(e.name)
	lost := err != nil || !now.IsDir() || !os.SameFile(was, now) // numbers of inodes come again
	switch {
	case copied:
		if err := source.RemoveAll(base); err != nil {
			return err
		}
		if !lost {
			return copyInto(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", e.dir.Fd()), e.name), source, base)
		}
	case !lost:
		return unix.Renameat(int(e.dir.Fd()), e.name, int(from.Fd()), base)
	}
	if err := source.Mkdir(base, 0o700); err != nil {
		return err
	}
	st, ok := was.Sys().(*syscall.Stat_t)
	if ok {
		err = source.Lchown(base, int(st.Uid), int(st.Gid))
	}
	return errors.Join(err, source.Chmod(base, was.Mode()))
}

// add makes room at TARGET, makes what stands there, and remembers how to take it out.
func (p *placement) add(target string, create func(e *placed) error) (*placed, error) {
	dir, name := path.Split(strings.TrimPrefix(target, "/"))
	dir = path.Clean(dir)
	if err := p.directory(dir); err != nil {
		return nil, err
	}
	parent, err := p.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	e := &placed{target: target, parent: parent, name: name}
	if e.dir, err = parent.Open("."); err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	err = keepTimes(e.dir, func() error {
		aside := strconv.Itoa(len(p.put))
		err := unix.Renameat(int(e.dir.Fd()), name, int(p.aside.Fd()), aside)
		if err == nil {
			e.aside = aside
		} else if !errors.Is(err, unix.ENOENT) {
			return err
		}
		return create(e)
	})
	p.put = append(p.put, e)
	return e, err
}

// directory makes a directory that is missing, and those above it: below /dev, or in what was put here before.
func (p *placement) directory(dir string) error {
	st, err := p.root.Stat(dir)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("/%s is not a directory", dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = p.add("/"+dir, func(e *placed) error { return e.mkdir(0o755) })
	return err
}

// mkdir makes a directory with exactly these permissions.
func (e *placed) mkdir(mode uint32) error {
	if err := unix.Mkdirat(int(e.dir.Fd()), e.name, mode); err != nil {
		return err
	}
	return unix.Fchmodat(int(e.dir.Fd()), e.name, mode, 0)
}

// takeOut removes everything that was put into the root, the last first, and puts back what was in the way. It goes on after an error.
func (p *placement) takeOut() error {
	var errs []error
	for _, e := range slices.Backward(p.put) {
		if err := e.takeOut(p.aside); err != nil {
			errs = append(errs, fmt.Errorf("take %s out of the root: %w", e.target, err))
		}
	}
	errs = append(errs, p.aside.Close(), os.RemoveAll(p.dir), p.root.Close())
	return errors.Join(errs...)
}

func (e *placed) takeOut(aside *os.File) error {
	err := keepTimes(e.dir, func() error {
		var errs []error
		for _, f := range e.after {
			errs = append(errs, f())
		}
		errs = append(errs, e.parent.RemoveAll(e.name))
		if e.aside != "" {
			err := unix.Renameat(int(aside.Fd()), e.aside, int(e.dir.Fd()), e.name)
			if errors.Is(err, unix.ENOENT) {
				err = nil // the command removed the directory, and so what was in it
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, e.dir.Close(), e.parent.Close())
}

// keepTimes gives a directory its time of modification back after CHANGE.
func keepTimes(dir *os.File, change func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	err := change()
	if st.Nlink == 0 { // removed meanwhile: there is no name to it
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}
	return errors.Join(err, unix.UtimesNanoAt(int(dir.Fd()), ".", times, 0))
}

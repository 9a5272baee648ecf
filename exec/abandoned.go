package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// What was placed in a root is A's to take out. Where A is killed K does what cannot wait for whoever removes the root: secrets are wiped, and directories that were
// moved there, which are caches, go back (LAWS 25).

// abandoned is one thing in a root that may not stay there.
type abandoned struct {
	Root, Target string
	// Source is where a directory belongs, "" for a file, which is wiped.
	Source string
}

// announce tells K what is going to be in the root of J, and returns how to tell it that all is taken out.
func (s *Sandbox) announce(j job) (taken func() error, err error) {
	s.mu.Lock()
	s.next++
	id := s.next
	s.mu.Unlock()
	taken = func() error { return s.link.send(request{Op: "taken", ID: id}, nil) }
	for _, m := range j.Mounts {
		a := abandoned{Root: j.Root, Target: m.Target}
		if m.Type == "bind" && !m.ReadOnly {
			a.Source = m.Source
		} else if m.Type != "file" {
			continue
		}
		if err := s.link.send(request{Op: "placed", ID: id, Placed: &a}, nil); err != nil {
			return taken, fmt.Errorf("announce mount %s: %w", m.Target, err)
		}
	}
	return taken, nil
}

// takeOut does what A would have done. Nothing runs in the root any more, but what ran there is not to be trusted: no path leads out of it.
func (a *abandoned) takeOut() error {
	root, err := os.OpenRoot(a.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only a handle
	if a.Source == "" {
		err = a.wipe(root)
	} else {
		err = a.giveBack(root)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take %s out of the root: %w", a.Target, err)
	}
	return nil
}

func (a *abandoned) wipe(root *os.Root) error {
	name := a.Target[1:]
	if st, err := root.Lstat(name); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return wipe(f, int(min(st.Size(), maxWiped)))
}

// giveBack renames a directory to its place, unless it was never moved.
func (a *abandoned) giveBack(root *os.Root) error {
	if _, err := os.Lstat(a.Source); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, name := path.Split(a.Target[1:])
	parent, err := root.OpenRoot(path.Clean(dir))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }() // only a handle
	if st, err := parent.Lstat(name); err != nil || !st.IsDir() {
		return err
	}
	at, err := parent.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }() // only a handle
	return unix.Renameat(int(at.Fd()), name, unix.AT_FDCWD, a.Source)
}

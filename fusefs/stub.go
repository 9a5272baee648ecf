package fusefs

import (
	"fmt"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fbuild/fbuild/internal/recorder"
)

// addStubs shows what mounts need and the tree lacks (LAWS 25). No time of a
// directory changes by it.
func (s *step) addStubs(stubs []recorder.Stub) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saw(s.rootDir, ruleEntry)
	s.traceStubs(stubs)
	for _, stub := range stubs {
		path, _, err := s.parent.Resolve(stub.Path)
		if err != nil {
			return fmt.Errorf("make mount point %q: %w", stub.Path, err)
		}
		if err := s.addStub(path, stub.Dir); err != nil {
			return fmt.Errorf("make mount point %q: %w", stub.Path, err)
		}
	}
	return nil
}

func (s *step) addStub(path string, dir bool) error {
	if path == "" {
		return nil
	}
	d := s.rootDir
	names := strings.Split(path, "/")
	for k, name := range names {
		wantDir := dir || k < len(names)-1
		c := s.child(d, name)
		s.sawName(d, name, c)
		if c == nil {
			c = s.newStub(wantDir)
			d.attach(name, c)
		}
		if wantDir != (c.dir != nil) {
			return fmt.Errorf("the image has another kind of file at %q", strings.Join(names[:k+1], "/"))
		}
		d = c
	}
	return nil
}

func (s *step) newStub(dir bool) *inode {
	kind, mode := uint32(unix.S_IFREG), uint32(0o644)
	if dir {
		kind, mode = unix.S_IFDIR, 0o755
	}
	c := s.newInode(kind, mode, fuse.Owner{})
	c.stub = true
	return c
}

// untouched reports whether i is a stub in which nothing stands but stubs.
func (i *inode) untouched() bool {
	if !i.stub {
		return false
	}
	if i.dir != nil {
		for _, c := range i.dir.kids {
			if c != nil && !c.untouched() {
				return false
			}
		}
	}
	return true
}

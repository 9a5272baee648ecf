package buildctx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxNotes bounds the remarks of one context.
const maxNotes = 50

// Options says how a context is read.
type Options struct {
	// Ignore is the contents of the ignore file, nil for none.
	Ignore []byte
	// IgnoreName is the ignore file's name, for errors (default ".dockerignore").
	IgnoreName string
	// StatCache is the file that keeps digests between builds, "" for none. Its directory is made where it is missing.
	StatCache string
	// Now is the clock (nil: time.Now).
	Now func() time.Time
}

// Context is an open build context.
type Context struct {
	root   *os.File // O_PATH
	ignore *ignorer
	cache  *statCache
	now    func() time.Time

	mu    sync.Mutex
	notes []string
	noted map[string]bool
	more  int // notes over maxNotes
}

// Open opens the directory DIR as a build context.
func Open(dir string, o Options) (*Context, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IgnoreName == "" {
		o.IgnoreName = ".dockerignore"
	}
	ignore, err := parseIgnore(o.IgnoreName, o.Ignore)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open build context %q: %w", dir, err)
	}
	c := &Context{root: os.NewFile(uintptr(fd), dir), ignore: ignore, now: o.Now, noted: map[string]bool{}}
	c.cache = openStatCache(o.StatCache, fineTimes(fd))
	return c, nil
}

// Close writes the stat cache, where it has something new, and closes the directory.
func (c *Context) Close() error {
	return errors.Join(c.cache.save(), c.root.Close())
}

// Notes returns the remarks for the user that came up since the last call: what Tree left out of the context and why. The
// same remark comes once.
func (c *Context) Notes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	notes := c.notes
	if c.more > 0 {
		notes = append(notes, fmt.Sprintf("%d more remarks of this kind", c.more))
	}
	c.notes, c.more = nil, 0
	return notes
}

func (c *Context) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.noted[text]:
	case len(c.noted) == maxNotes:
		c.more++
	default:
		c.noted[text] = true
		c.notes = append(c.notes, text)
	}
}

// FindIgnore reads the ignore file of a build: DOCKERFILE.dockerignore where the Dockerfile is a file that has one (pass ""
// where it is not), else .dockerignore of the context. Without either all results are empty.
func FindIgnore(contextDir, dockerfile string) (data []byte, name string, err error) {
	names := []string{filepath.Join(contextDir, ".dockerignore")}
	if dockerfile != "" && dockerfile != "-" {
		names = append([]string{dockerfile + ".dockerignore"}, names...)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, "", fmt.Errorf("read ignore file: %w", err)
		}
		if data == nil {
			data = []byte{}
		}
		return data, name, nil
	}
	return nil, "", nil
}

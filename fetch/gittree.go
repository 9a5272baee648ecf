package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tidy makes of a checkout the same files whoever made it and when: no .git, modes
// that do not hang on the caller's umask, and the commit's time.
func (r *Repo) tidy(ctx context.Context, c Commit) error {
	out, err := r.git(ctx, "log", "-1", "--format=%ct", c.ID)
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return fmt.Errorf("time of commit %s: %w", c.ID, err)
	}
	when := time.Unix(seconds, 0)
	if r.url.CheckoutTime {
		when = time.Now()
	}
	if r.KeepsGitDir() {
		if err := r.keepGitDir(ctx, c); err != nil {
			return err
		}
	}
	return tidyTree(r.tree(), r.KeepsGitDir(), when)
}

// keepGitDir leaves what somebody who cloned one commit would have.
func (r *Repo) keepGitDir(ctx context.Context, c Commit) error {
	if strings.HasPrefix(c.Ref, "refs/") {
		id := c.ID
		if c.Tag != "" && r.object(ctx, c.Tag) {
			id = c.Tag
		}
		if _, err := r.git(ctx, "update-ref", c.Ref, id); err != nil {
			return err
		}
	}
	// An index without the times and inodes of this checkout: the same commit is the
	// same tree, and a COPY of it is found in the cache.
	if err := ignoreMissing(os.Remove(filepath.Join(r.tree(), ".git", "index"))); err != nil {
		return err
	}
	if _, err := r.git(ctx, "read-tree", c.ID); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(filepath.Join(r.tree(), ".git", "FETCH_HEAD")))
}

func (r *Repo) object(ctx context.Context, id string) bool {
	_, err := r.git(ctx, "cat-file", "-e", id)
	return err == nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// tidyTree walks a checkout that nobody else can reach.
func tidyTree(root string, keepGit bool, when time.Time) error {
	var dirs []string
	ts, err := unix.TimeToTimespec(when)
	if err != nil {
		return fmt.Errorf("time of the commit: %w", err)
	}
	times := []unix.Timespec{ts, ts}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" && p != root && !keepGit {
			if err := os.RemoveAll(p); err != nil { //nolint:gosec // nobody else can reach it
				return err
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			dirs = append(dirs, p)
			return os.Chmod(p, 0o755) //nolint:gosec // the mode that git means
		}
		if d.Type().IsRegular() {
			if err := chmodFile(p, d); err != nil {
				return err
			}
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, times, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return fmt.Errorf("tidy checkout: %w", err)
	}
	for _, p := range slices.Backward(dirs) {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("tidy checkout: %w", err)
		}
	}
	return nil
}

func chmodFile(p string, d fs.DirEntry) error {
	fi, err := d.Info()
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if fi.Mode()&0o100 != 0 {
		mode = 0o755
	}
	return os.Chmod(p, mode)
}

// subdir returns the directory that the address names. A symlink on the way is
// refused: it could lead out of the repository.
func (r *Repo) subdir() (string, error) {
	dir := r.tree()
	if r.url.Subdir == "" {
		return dir, nil
	}
	for name := range strings.SplitSeq(r.url.Subdir, "/") {
		dir = filepath.Join(dir, name)
		fi, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("subdirectory %q: %w", r.url.Subdir, errNoSubdir)
		case err != nil:
			return "", fmt.Errorf("subdirectory %q: %w", r.url.Subdir, err)
		case !fi.IsDir():
			return "", fmt.Errorf("subdirectory %q: %q is no directory", r.url.Subdir, name)
		}
	}
	return dir, nil
}

var errNoSubdir = errors.New("the repository has no such directory")

// failed adds the address and what to do.
func (r *Repo) failed(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return &Error{Source: r.url.String(), Hint: r.hint(err), Err: err}
}

// keyscan is the command that prints the host's keys.
func (r *Repo) keyscan() string {
	host, port, ok := strings.Cut(r.url.Host, ":")
	if ok {
		return "ssh-keyscan -p " + port + " " + host
	}
	return "ssh-keyscan " + host
}

func (r *Repo) hint(err error) string {
	said := ""
	if e, ok := errors.AsType[*gitError](err); ok {
		said = e.said
	}
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(said, p) })
	}
	switch {
	case errors.Is(err, errNoGit):
		return "install git (apt-get install git); repositories are fetched with it"
	case has("No space left on device", "Disk quota exceeded"):
		return "make room, or free what the store no longer needs with: fbuild cache prune"
	case errors.Is(err, ErrChecksum):
		return "the ref has moved, or the checksum is of another commit"
	case errors.Is(err, errNoRef), has("couldn't find remote ref"):
		return "is there such a branch, tag or commit? git ls-remote " + r.url.Remote + " lists them"
	case errors.Is(err, errNoSubdir):
		return "what follows the colon is a directory in the repository, as in URL#branch:directory"
	case has("could not read Username", "could not read Password", "Authentication failed", "The requested URL returned error: 401", "The requested URL returned error: 403"):
		if r.authorized {
			return "the repository refuses the password that it was given: is it right, may it read this repository, and has it not expired?"
		}
		return "the repository wants a password: " + r.o.passwordHint()
	case has("returned error: 301", "returned error: 302", "returned error: 307", "returned error: 308"):
		return "the server leads elsewhere, where a header of GIT_AUTH_HEADER does not follow: give the address where the repository is now"
	case has("Host key verification failed"):
		return "the host's key is not known, or has changed: check it and add it with " + r.keyscan() + " >> ~/.ssh/known_hosts"
	case has("Permission denied (publickey"):
		return "no key is accepted: " + r.o.keyHint()
	case has("transport 'file' not allowed", "transport 'ext' not allowed", "not allowed"):
		return "submodules are fetched over https, http, ssh and git only; leave them out with ?submodules=false"
	case has("server certificate verification failed", "SSL certificate problem"):
		return "a certificate that nobody known has signed: add its authority to the system's, or name it in SSL_CERT_FILE"
	case has("ssh: not found", "cannot run ssh"):
		return "install ssh (apt-get install openssh-client)"
	case has("Could not resolve host", "Failed to connect", "Connection refused", "Could not resolve hostname"):
		return "is the address right, and the network there? Proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
	case has("not found", "does not appear to be a git repository", "returned error: 404"):
		return "is the address right? A private repository looks missing to whoever gives no password: " + r.o.passwordHint()
	}
	return ""
}

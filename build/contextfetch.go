package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/progress"
)

// ContextSpec says where a build context comes from.
type ContextSpec struct {
	// Location is "-" or tar://stdin, the address of a tarball, a Dockerfile or a
	// repository, tar://FILE, dir://DIR, or a directory.
	Location string
	Stdin    io.Reader
	// SubPath is a directory in the context that is to be the context; "" is all.
	SubPath string
	// Git are options of the caller's beside what Secrets and SSH say.
	Git fetch.GitOptions
	// GitMethod is what git:// means: "https" or "http" as kaniko has it, "" for
	// git's own protocol, as docker has it.
	GitMethod string
	Secrets   map[string]Secret
	SSH       map[string]SSH
	Progress  *progress.Display
}

// FetchedContext is a context that is a directory now.
type FetchedContext struct {
	// Dir is the directory, "" where there was a Dockerfile alone.
	Dir string
	// Dockerfile is the text of a Dockerfile that came without a context.
	Dockerfile []byte

	temp string
}

// Close removes what was fetched.
func (f *FetchedContext) Close() error {
	if f.temp == "" {
		return nil
	}
	if err := removeTemp(f.temp); err != nil {
		return fmt.Errorf("remove fetched context: %w", err)
	}
	return nil
}

// removeTemp removes a tree in which an archive may have made directories that
// their owner may not write.
func removeTemp(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // RemoveAll says what remains
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// The forms of a location.
const (
	formDir   = "dir"
	formStdin = "stdin"
	formTar   = "tar"
	formHTTP  = "http"
	formGit   = "git"
)

// ContextError is a context that cannot be had from where it is said to be.
type ContextError struct {
	Location string // without credentials
	Err      error
	Hint     string
}

// Error returns location and cause.
func (e *ContextError) Error() string { return fmt.Sprintf("build context %s: %v", e.Location, e.Err) }

// Unwrap returns the cause.
func (e *ContextError) Unwrap() error { return e.Err }

// IsRemoteContext reports whether a location is anything but a directory.
func IsRemoteContext(location string) bool {
	form, _, err := contextForm(location, "")
	return err != nil || form != formDir
}

// contextForm tells what a location is, and what remains of it: a path for
// directories and files. Git addresses are parsed.
func contextForm(location, gitMethod string) (form string, u *fetch.GitURL, err error) {
	switch {
	case location == "-", location == "tar://stdin":
		return formStdin, nil, nil
	case strings.HasPrefix(location, "tar://"):
		return formTar, nil, nil
	case strings.HasPrefix(location, "dir://"):
		return formDir, nil, nil
	case strings.HasPrefix(location, "git://") && gitMethod != "":
		u, err = fetch.ParseKanikoGit(location, gitMethod)
	case strings.HasPrefix(location, "github.com/") && isDir(location):
		return formDir, nil, nil
	default:
		u, err = fetch.ParseGit(location)
	}
	if err == nil {
		return formGit, u, nil
	}
	if !errors.Is(err, fetch.ErrNotGit) {
		return "", nil, err
	}
	scheme, _, ok := strings.Cut(location, "://")
	switch {
	case !ok || isDir(location):
		return formDir, nil, nil
	case scheme == "http" || scheme == "https":
		return formHTTP, nil, nil
	}
	return "", nil, fmt.Errorf("%s:// is not supported", scheme)
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

// FetchContext makes of a location a directory: stdin and http(s) may be a tar in
// any compression or a Dockerfile alone. The caller closes it after the build.
func FetchContext(ctx context.Context, store *cache.Store, spec ContextSpec) (*FetchedContext, error) {
	form, u, err := contextForm(spec.Location, spec.GitMethod)
	if err != nil {
		return nil, spec.failed(err)
	}
	f := &FetchedContext{}
	if form == formDir {
		f.Dir = strings.TrimPrefix(spec.Location, "dir://")
	} else {
		if f.temp, err = store.TempDir("context"); err != nil {
			return nil, err
		}
		if err := f.fetch(ctx, form, u, spec); err != nil {
			return nil, errors.Join(spec.failed(err), f.Close())
		}
	}
	if spec.SubPath != "" {
		if f.Dir, err = subPath(f.Dir, spec.SubPath); err != nil {
			return nil, errors.Join(spec.failed(err), f.Close())
		}
	}
	return f, nil
}

// failed adds the location where the error does not tell it.
func (s *ContextSpec) failed(err error) error {
	if _, ok := errors.AsType[*fetch.Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	e := &ContextError{Location: fetch.Redact(s.Location), Err: err}
	if s.Location == "-" || s.Location == "tar://stdin" {
		e.Location = "on stdin"
	}
	if c, ok := errors.AsType[*contentError](err); ok {
		e.Hint = c.hint
	}
	return e
}

// fetch brings a context of that form, u where it is a repository, into f.temp and
// shows it as one step.
func (f *FetchedContext) fetch(ctx context.Context, form string, u *fetch.GitURL, spec ContextSpec) (err error) {
	name := "[internal] load remote build context"
	if form == formGit {
		name = "[internal] load git source " + u.String()
	}
	step := spec.Progress.Step(name)
	step.Start()
	switch form {
	case formStdin:
		err = f.fromStream(ctx, spec.Stdin, step)
	case formTar:
		err = f.fromFile(ctx, strings.TrimPrefix(spec.Location, "tar://"), step)
	case formHTTP:
		err = f.fromHTTP(ctx, spec, step)
	case formGit:
		f.Dir, err = fetchTree(ctx, u, spec, f.temp, step)
	}
	step.Done(err)
	return err
}

// fetchTree checks a repository out.
func fetchTree(ctx context.Context, u *fetch.GitURL, spec ContextSpec, temp string, step *progress.Step) (string, error) {
	o := gitOptions(spec.Secrets, spec.SSH, step)
	mine := spec.Git
	mine.Log, mine.Authorization = o.Log, o.Authorization
	if len(mine.SSH) == 0 {
		mine.SSH = o.SSH
	}
	if agent := os.Getenv("SSH_AUTH_SOCK"); len(mine.SSH) == 0 && agent != "" { // as docker build does for its context
		mine.SSH = []string{agent}
	}
	repo, err := fetch.OpenRepo(ctx, u, temp, mine)
	if err != nil {
		return "", err
	}
	return repo.Checkout(ctx)
}

func (f *FetchedContext) fromFile(ctx context.Context, name string, step *progress.Step) error {
	r, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only read
	if err := f.fromStream(ctx, r, step); err != nil {
		return err
	}
	if f.Dir == "" {
		return errNotTar
	}
	return nil
}

// fromHTTP unpacks while the bytes come. What the server does wrong is said before
// what that made of the archive.
func (f *FetchedContext) fromHTTP(ctx context.Context, spec ContextSpec, step *progress.Step) error {
	o := httpOptions(spec.Secrets, step, "")
	o.Progress = nil // fromStream shows it
	r, w := io.Pipe()
	got := make(chan error, 1)
	go func() {
		_, err := fetch.Get(ctx, spec.Location, w, o)
		got <- err
		_ = w.CloseWithError(err) // never fails
	}()
	err := f.fromStream(ctx, r, step)
	_ = r.CloseWithError(errUnread) // ends the request where the rest is not wanted
	if gerr := <-got; gerr != nil && !errors.Is(gerr, errUnread) {
		return gerr
	}
	return err
}

var errUnread = errors.New("the rest is not read")

// subPath resolves a directory inside of dir, never out of it.
func subPath(dir, sub string) (string, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	at, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Clean("/"+sub)))
	if err != nil {
		return "", fmt.Errorf("sub path %q: %w", sub, err)
	}
	if at != root && !strings.HasPrefix(at, root+"/") {
		return "", fmt.Errorf("sub path %q leads out of the context", sub)
	}
	if !isDir(at) {
		return "", fmt.Errorf("sub path %q is no directory", sub)
	}
	return at, nil
}

// ReadContextFile reads a file of a context that others made: never one outside of
// it, and no more than most bytes of it and one. It returns fs.ErrNotExist where
// there is none.
func ReadContextFile(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read %s of the context: %w", name, err)
	}
	defer func() { _ = root.Close() }() // only read
	name = strings.TrimPrefix(filepath.Clean("/"+name), "/")
	st, err := root.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read %s of the context: %w", name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s of the context: not a regular file", name)
	}
	r, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s of the context: %w", name, err)
	}
	defer func() { _ = r.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s of the context: %w", name, err)
	}
	return data, nil
}

// Remote says that the context was fetched: its files are not the caller's.
func (f *FetchedContext) Remote() bool { return f.temp != "" }

// CheckLocation refuses a location that FetchContext would refuse for its form.
func CheckLocation(location, gitMethod string) error {
	spec := ContextSpec{Location: location}
	if _, _, err := contextForm(location, gitMethod); err != nil {
		return spec.failed(err)
	}
	return nil
}

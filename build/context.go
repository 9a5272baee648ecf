package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/oci"
)

// localContext is a build context as files of this host.
type localContext struct {
	ctx *buildctx.Context
}

// errNoContext is what a COPY meets after `fbuild build - < Dockerfile`.
var errNoContext = &ContextError{
	Location: "on stdin", Err: errors.New("it is a Dockerfile alone, so there are no files to copy"),
	Hint: "give a directory, or a tar of one: tar c . | fbuild build -",
}

// mainContext opens the build context.
func (b *builder) mainContext(ctx context.Context) (*localContext, error) {
	if b.opts.ContextDir == "" {
		return nil, errNoContext
	}
	return b.localContext(ctx, "", b.opts.ContextDir, b.opts.Ignore)
}

// localContext opens a context once for the whole build: a directory, or a remote
// one that is fetched now.
func (b *builder) localContext(ctx context.Context, name, where string, ignore []byte) (*localContext, error) {
	return once(ctx, &b.family.mu, b.family.contexts, name, func() (*localContext, error) {
		abs, statCache := "", ""
		var err error
		switch remote := IsRemoteContext(where); {
		case remote && b.planning():
			return nil, &unknownError{"a plan does not fetch its context"}
		case remote:
			abs, err = b.fetchNamed(ctx, where)
		default:
			abs, err = filepath.Abs(where)
			if err == nil && !strings.HasPrefix(abs, b.store.Dir()+"/") { // what was fetched has another name each time
				statCache = b.store.ContextFile(abs)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("open build context: %w", err)
		}
		if ignore == nil && name != "" {
			ignore, err = readIgnore(abs)
			if err != nil {
				return nil, fmt.Errorf("read ignore file of context %s: %w", name, err)
			}
		}
		c, err := buildctx.Open(abs, buildctx.Options{Ignore: ignore, StatCache: statCache})
		if err != nil {
			return nil, err
		}
		return &localContext{c}, nil
	})
}

// maxIgnore bounds the ignore file of a context.
const maxIgnore = 1 << 20

// readIgnore reads the ignore file of a named context; nil for none.
func readIgnore(dir string) ([]byte, error) {
	data, err := ReadContextFile(dir, ".dockerignore", maxIgnore)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// fetchNamed brings a named context into the build's temporary directory.
func (b *builder) fetchNamed(ctx context.Context, where string) (string, error) {
	temp, err := mkdirIn(b.temp, "context-")
	if err != nil {
		return "", err
	}
	spec := ContextSpec{Location: where, Secrets: b.opts.Secrets, SSH: b.opts.SSH, Progress: b.opts.Progress}
	f := &FetchedContext{temp: temp}
	form, u, err := contextForm(where, "")
	if err == nil {
		err = f.fetch(ctx, form, u, spec)
	}
	if err != nil {
		return "", spec.failed(err)
	}
	if f.Dir == "" {
		return "", spec.failed(errNotTar)
	}
	return f.Dir, nil
}

// contextDir returns the directory, or the address of files, that a named context
// stands for.
func (b *builder) contextDir(name string) (string, bool) {
	v, ok := b.context(name)
	if !ok || isImageContext(v) {
		return "", false
	}
	return v, true
}

// context returns the named context that a name in the Dockerfile means: of that
// name, of that name in lower case, or of the same image however it is spelled.
func (b *builder) context(name string) (string, bool) {
	for _, n := range []string{name, strings.ToLower(name)} {
		if v, ok := b.opts.Contexts[n]; ok {
			return v, true
		}
	}
	ref, err := oci.ParseRef(name)
	if err != nil {
		return "", false
	}
	for _, n := range slices.Sorted(maps.Keys(b.opts.Contexts)) {
		if r, err := oci.ParseRef(n); err == nil && oci.FullName(r) == oci.FullName(ref) {
			return b.opts.Contexts[n], true
		}
	}
	return "", false
}

// isImageContext says whether the value of a --build-context names an image.
func isImageContext(v string) bool {
	return strings.HasPrefix(v, "docker-image://") || strings.HasPrefix(v, "oci-layout://")
}

// CheckContexts refuses values of --build-context that nothing can be made of.
func CheckContexts(contexts map[string]string) error {
	for name, v := range contexts {
		if isImageContext(v) {
			continue
		}
		form, _, err := contextForm(v, "")
		if err == nil && (form == formStdin || form == formTar || strings.HasPrefix(v, "dir://")) {
			err = errors.New("only the main context can be that")
		}
		if err != nil {
			return fmt.Errorf("build context %s: %q: %w: give a directory, a git or http address, docker-image://REF or oci-layout://PATH", name, fetch.Redact(v), err)
		}
		if form != formDir {
			continue
		}
		st, err := os.Stat(v)
		if err != nil {
			return fmt.Errorf("build context %s: %w", name, err)
		}
		if !st.IsDir() {
			return fmt.Errorf("build context %s: %s is not a directory", name, v)
		}
	}
	return nil
}

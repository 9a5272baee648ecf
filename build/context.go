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
	"github.com/fbuild/fbuild/oci"
)

// localContext is a build context that is a directory of this host.
type localContext struct {
	ctx *buildctx.Context
}

// mainContext opens the build context.
func (b *builder) mainContext(ctx context.Context) (*localContext, error) {
	if b.opts.ContextDir == "" {
		return nil, errors.New("this build has no context to copy from")
	}
	return b.localContext(ctx, "", b.opts.ContextDir, b.opts.Ignore)
}

// localContext opens a directory once for the whole build.
func (b *builder) localContext(ctx context.Context, name, dir string, ignore []byte) (*localContext, error) {
	return once(ctx, &b.mu, b.contexts, name, func() (*localContext, error) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("open build context: %w", err)
		}
		if ignore == nil && name != "" {
			ignore, err = os.ReadFile(filepath.Join(abs, ".dockerignore"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("read ignore file of context %s: %w", name, err)
			}
		}
		c, err := buildctx.Open(abs, buildctx.Options{
			Ignore:    ignore,
			StatCache: b.store.ContextFile(abs),
		})
		if err != nil {
			return nil, err
		}
		return &localContext{c}, nil
	})
}

// closeContexts writes the stat caches.
func (b *builder) closeContexts() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, f := range b.contexts {
		select {
		case <-f.done:
			if f.err == nil && f.val != nil {
				errs = append(errs, f.val.ctx.Close())
			}
		default:
		}
	}
	return errors.Join(errs...)
}

// contextDir returns the directory that a named context stands for.
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

// CheckContexts refuses values of --build-context that are not supported.
func CheckContexts(contexts map[string]string) error {
	for name, v := range contexts {
		scheme, _, ok := strings.Cut(v, "://")
		switch {
		case isImageContext(v):
		case ok || strings.HasPrefix(v, "git@"):
			return fmt.Errorf("build context %s: %q is not supported: give a directory, docker-image://REF or oci-layout://PATH (scheme %q)", name, v, scheme)
		default:
			st, err := os.Stat(v)
			if err != nil {
				return fmt.Errorf("build context %s: %w", name, err)
			}
			if !st.IsDir() {
				return fmt.Errorf("build context %s: %s is not a directory", name, v)
			}
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// outRepo is the beginning of the repositories that builders push to.
const outRepo = "out/"

// repoBlobs keeps the blobs of bases for everybody, and those that a builder
// pushed for its repository alone: what one side sent, another must send as well.
// A registry of one directory would tell the second that the blob is there.
type repoBlobs struct {
	base registry.BlobHandler
	dir  string // of pushed repositories
}

func newRepoBlobs(dir string) *repoBlobs {
	return &repoBlobs{base: registry.NewDiskBlobHandler(filepath.Join(dir, "bases")), dir: filepath.Join(dir, "pushed")}
}

// file is where a blob of a repository lies. The handler above names the
// repository of an upload with "/blobs" at its end.
func (r *repoBlobs) file(repo string, h v1.Hash) string {
	repo = strings.TrimSuffix(repo, "/blobs")
	return filepath.Join(r.dir, strings.ReplaceAll(repo, "/", "+"), h.Hex)
}

// Stat says how large a blob is.
func (r *repoBlobs) Stat(ctx context.Context, repo string, h v1.Hash) (int64, error) {
	if st, err := os.Stat(r.file(repo, h)); err == nil {
		return st.Size(), nil
	}
	base, ok := r.base.(registry.BlobStatHandler)
	if !ok {
		return 0, errors.New("the blobs of bases have no sizes")
	}
	return base.Stat(ctx, repo, h)
}

// Get opens a blob.
func (r *repoBlobs) Get(ctx context.Context, repo string, h v1.Hash) (io.ReadCloser, error) {
	if f, err := os.Open(r.file(repo, h)); err == nil {
		return f, nil
	}
	return r.base.Get(ctx, repo, h)
}

// Put keeps a blob, whose digest the caller verifies while it is read.
func (r *repoBlobs) Put(ctx context.Context, repo string, h v1.Hash, rc io.ReadCloser) error {
	if !strings.HasPrefix(repo, outRepo) {
		base, ok := r.base.(registry.BlobPutHandler)
		if !ok {
			return errors.New("the blobs of bases cannot be written")
		}
		return base.Put(ctx, repo, h, rc)
	}
	file := r.file(repo, h)
	if err := openDirs(filepath.Dir(file)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, rc)
	if err = errors.Join(err, rc.Close(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// forget removes what was pushed to the repositories that begin so.
func (r *repoBlobs) forget(prefix string) error {
	dirs, err := filepath.Glob(filepath.Join(r.dir, strings.ReplaceAll(prefix, "/", "+")+"*"))
	for _, d := range dirs {
		err = errors.Join(err, os.RemoveAll(d))
	}
	return err
}

// countBodies counts what clients send.
func countBodies(next http.Handler, n *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil {
			r.Body = &countedBody{r.Body, n}
		}
		next.ServeHTTP(w, r)
	})
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

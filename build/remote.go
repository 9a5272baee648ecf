package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/fbuild/fbuild/cache"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/progress"
	"github.com/fbuild/fbuild/tree"
)

// kindHTTP are records of files that were fetched, by a digest of their address.
const kindHTTP = "http"

// httpRecord is what the store remembers of a file, whose bytes are a blob.
type httpRecord struct {
	ETag         string      `json:"etag,omitempty"`
	LastModified string      `json:"lastModified,omitempty"`
	Digest       tree.Digest `json:"digest"`
	Size         int64       `json:"size"`
	Racy         bool        `json:"racy,omitempty"` // ETag and LastModified don't tell whether it changed
	// Checksum is one of another algorithm that the file was found to have.
	Checksum fetch.Checksum `json:"checksum,omitempty"`
}

// has reports whether the file is known to have the checksum.
func (h *httpRecord) has(c fetch.Checksum) bool {
	return c != "" && (string(c) == string(h.Digest) || c == h.Checksum)
}

// remoteFile is the file of an ADD of an http address.
type remoteFile struct {
	// Name is what the file is called where the target is a directory.
	Name string
	// Key names the file's bytes and its time. Where a checksum was given it is
	// known, and the file may not have been fetched.
	Key string

	b        *builder
	address  string
	checksum fetch.Checksum
	step     *progress.Step
}

// remoteFile looks at a file, once for a build. Without a checksum the server is
// asked whether the copy in the store is still right, and the file fetched if not.
func (b *builder) remoteFile(ctx context.Context, address, checksum string, step *progress.Step) (*remoteFile, error) {
	f := &remoteFile{Name: fetch.HTTPName(address), b: b, address: address, step: step}
	if checksum != "" {
		c, err := fetch.ParseChecksum(checksum)
		if err != nil {
			return nil, err
		}
		f.checksum, f.Key = c, checksum
		return f, nil
	}
	rec, err := f.fetch(ctx)
	if err != nil {
		return nil, err
	}
	f.Key = string(rec.Digest) + " " + rec.LastModified
	return f, nil
}

// Node stores the file's bytes in the sink's pack and returns its node: mode 0600
// and the server's time, or 1970, as docker has it.
func (f *remoteFile) Node(ctx context.Context, s *sink) (tree.Node, error) {
	rec, err := f.fetch(ctx)
	if err != nil {
		return tree.Node{}, err
	}
	n := tree.Node{Kind: tree.File, Mode: 0o600, Size: rec.Size, Digest: rec.Digest}
	if t, ok := (&fetch.File{LastModified: rec.LastModified}).ModTime(); ok {
		n.Mtime = tree.TimeOf(t).Truncate()
	}
	if ex, ok := s.Find(rec.Digest, rec.Size); ok {
		n.Extents = ex
		return n, nil
	}
	r, err := f.b.store.OpenBlob(rec.Digest)
	if err != nil {
		return tree.Node{}, err
	}
	d, _, ex, err := s.Put(ctx, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return tree.Node{}, err
	}
	if d != rec.Digest { // the next build fetches it again
		err := f.b.store.DeleteRecord(kindHTTP, string(f.recordKey()))
		return tree.Node{}, errors.Join(fmt.Errorf("stored copy of %s: %w", fetch.Redact(f.address), cache.ErrDigest), err)
	}
	n.Extents = ex
	return n, nil
}

// recordKey hides the address: it may hold a password.
func (f *remoteFile) recordKey() Key { return newKey("http").str(f.address).sum() }

// fetch returns the file as the store has it, once for a build.
func (f *remoteFile) fetch(ctx context.Context) (*httpRecord, error) {
	return once(ctx, &f.b.family.mu, f.b.family.files, f.address+"\x00"+string(f.checksum), func() (*httpRecord, error) {
		var old httpRecord
		known := f.b.getJSON(kindHTTP, string(f.recordKey()), &old) && f.b.store.HasBlob(old.Digest)
		if known && old.has(f.checksum) {
			return &old, nil
		}
		o := f.b.httpOptions(f.step, fetch.HTTPName(f.address))
		o.Checksum = f.checksum
		if known && f.checksum == "" && !old.Racy {
			o.ETag, o.LastModified = old.ETag, old.LastModified
		}
		return f.get(ctx, o, &old)
	})
}

// get asks the server; old is the copy whose ETag and time o holds.
func (f *remoteFile) get(ctx context.Context, o fetch.HTTPOptions, old *httpRecord) (*httpRecord, error) {
	f.step.Start()
	w, err := f.b.store.CreateBlob()
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	file, err := fetch.Get(ctx, f.address, w, o)
	if err != nil {
		return nil, err
	}
	if file.NotModified {
		return old, nil
	}
	rec := &httpRecord{ETag: file.ETag, LastModified: file.LastModified, Size: file.Size, Racy: file.Racy, Checksum: f.checksum}
	if rec.Digest, _, err = w.Commit(""); err != nil {
		return nil, err
	}
	return rec, f.b.putJSON(kindHTTP, string(f.recordKey()), rec, []tree.Digest{rec.Digest}, nil)
}

// httpOptions are those of every request of a build.
func (b *builder) httpOptions(step *progress.Step, id string) fetch.HTTPOptions {
	return httpOptions(b.opts.Secrets, step, id)
}

// remoteGit is the tree of an ADD of a git address.
type remoteGit struct {
	// Key names the tree: address, commit, and what of it is wanted. It is known
	// without fetching the tree.
	Key string

	b    *builder
	repo *fetch.Repo
	step *progress.Step
}

// remoteGit finds the commit that an address means, once for a build. checksum is
// the commit that it must be, or its first digits; "" for any.
func (b *builder) remoteGit(ctx context.Context, address, checksum string, keepGitDir bool, step *progress.Step) (*remoteGit, error) {
	id := fmt.Sprintf("%s\x00%s\x00%t", address, checksum, keepGitDir)
	return once(ctx, &b.family.mu, b.family.gits, id, func() (*remoteGit, error) {
		u, err := fetch.ParseGit(address)
		if err != nil {
			return nil, err
		}
		if checksum != "" && u.Commit != "" && checksum != u.Commit {
			return nil, fmt.Errorf("checksum mismatch: %q and %q", checksum, u.Commit)
		}
		if checksum != "" {
			u.Commit = checksum
		}
		dir, err := mkdirIn(b.temp, "git-")
		if err != nil {
			return nil, err
		}
		o := gitOptions(b.opts.Secrets, b.opts.SSH, step)
		o.KeepGitDir = keepGitDir
		repo, err := fetch.OpenRepo(ctx, u, dir, o)
		if err != nil {
			return nil, err
		}
		c, err := repo.Resolve(ctx)
		if err != nil {
			return nil, err
		}
		k := newKey("git").str(u.Remote).str(c.ID).str(u.Subdir).str(fmt.Sprint(repo.Submodules(), repo.KeepsGitDir(), u.CheckoutTime))
		if repo.KeepsGitDir() {
			k.str(c.Ref).str(c.Tag)
		}
		return &remoteGit{Key: string(k.sum()), b: b, repo: repo, step: step}, nil
	})
}

// Context returns the tree as a build context, fetching it once for a build. Its
// files belong to root, and nothing in it is ignored.
func (g *remoteGit) Context(ctx context.Context) (*localContext, error) {
	return once(ctx, &g.b.family.mu, g.b.family.contexts, "\x00"+g.Key, func() (*localContext, error) {
		g.step.Start()
		dir, err := g.repo.Checkout(ctx)
		if err != nil {
			return nil, err
		}
		return openFetched(dir, nil)
	})
}

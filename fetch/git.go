package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// GitOptions say how a repository is asked. The zero value asks as nobody and takes
// submodules.
type GitOptions struct {
	// Username and Password are sent to the host of the repository over http(s). A
	// name alone is a token, as kaniko's GIT_TOKEN.
	Username, Password string
	// Authorization returns the value of that header for a host of http(s), "" for
	// none; it counts before Username. nil is none.
	Authorization func(host string) (string, error)
	// SSH are sockets of agents and files of private keys; none means that ssh is
	// refused, unless Agent is set.
	SSH []string
	// KnownHosts are the files with the keys of known hosts, none is the caller's
	// ~/.ssh/known_hosts.
	KnownHosts []string
	// Branch is a branch or tag to take instead of the address's ref.
	Branch string
	// KeepGitDir leaves .git, with one commit, in the tree.
	KeepGitDir bool
	// Submodules overrides what the address says about them; nil leaves it.
	Submodules *bool
	// PasswordHint and KeyHint say how the user gives a password or a key, where that
	// is not with the flags of `fbuild build`.
	PasswordHint, KeyHint string
	// Log receives what git says; nil drops it.
	Log io.Writer
}

func (o *GitOptions) passwordHint() string {
	if o.PasswordHint != "" {
		return o.PasswordHint
	}
	return "give --secret id=GIT_AUTH_TOKEN,env=NAME (or src=FILE)"
}

func (o *GitOptions) keyHint() string {
	if o.KeyHint != "" {
		return o.KeyHint
	}
	return "give --ssh default (the agent of SSH_AUTH_SOCK) or --ssh default=KEYFILE"
}

// Commit is what a ref means.
type Commit struct {
	ID  string // the full commit
	Ref string // the full name of the ref, "" where it was a commit
	Tag string // the annotated tag on the way, "" for none
}

// Repo is a repository on its way here: an empty one in a directory of its own
// until something is fetched.
type Repo struct {
	url     *GitURL
	o       GitOptions
	dir     string // holds home/ and tree/
	program string
	env     []string
	commit  *Commit
	all     bool // all branches and tags are here
	// authorized says that the server has been shown a password.
	authorized bool
}

// OpenRepo prepares a repository in dir, an empty directory that is the caller's
// to remove.
func OpenRepo(ctx context.Context, g *GitURL, dir string, o GitOptions) (*Repo, error) {
	r := &Repo{url: g, o: o, dir: dir}
	if err := r.open(ctx); err != nil {
		return nil, r.failed(ctx, err)
	}
	return r, nil
}

func (r *Repo) open(ctx context.Context) error {
	if err := checkRef(r.o.Branch); err != nil {
		return err
	}
	var err error
	if r.program, err = findGit(); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	if _, err := r.git(ctx, "init", "--quiet", r.tree()); err != nil {
		return err
	}
	// Submodules may be named relative to it; without one, git takes our directory.
	_, err = r.git(ctx, "remote", "add", "origin", r.url.Remote)
	return err
}

func (r *Repo) tree() string { return filepath.Join(r.dir, "tree") }

// Submodules says whether Checkout takes them.
func (r *Repo) Submodules() bool {
	switch {
	case r.o.Submodules != nil:
		return *r.o.Submodules
	case r.url.Submodules != nil:
		return *r.url.Submodules
	}
	return true
}

// KeepsGitDir says whether Checkout leaves .git there: it belongs to the whole tree
// only, as BuildKit has it.
func (r *Repo) KeepsGitDir() bool {
	keep := r.o.KeepGitDir || r.url.KeepGitDir != nil && *r.url.KeepGitDir
	return keep && r.url.Subdir == ""
}

// Resolve finds the commit. A full one is known without asking anybody.
func (r *Repo) Resolve(ctx context.Context) (Commit, error) {
	if r.commit == nil {
		c, err := r.resolve(ctx)
		if err != nil {
			return Commit{}, r.failed(ctx, err)
		}
		r.commit = &c
	}
	return *r.commit, nil
}

func (r *Repo) ref() string {
	if r.o.Branch != "" {
		return r.o.Branch
	}
	return r.url.Ref
}

func (r *Repo) resolve(ctx context.Context) (Commit, error) {
	ref, want := r.ref(), r.url.Commit
	if IsCommit(ref) {
		return Commit{ID: ref}, matches(want, ref)
	}
	if r.url.Pinned && IsCommit(want) {
		return Commit{ID: want}, nil
	}
	if r.url.Pinned { // a short commit
		return r.resolveShort(ctx, want)
	}
	c, err := r.ask(ctx, ref)
	if errors.Is(err, errNoRef) && shortForm.MatchString(ref) {
		if short, serr := r.resolveShort(ctx, strings.ToLower(ref)); serr == nil {
			return short, matches(want, short.ID)
		}
	}
	if err != nil {
		return Commit{}, err
	}
	if c.Tag != "" && want != "" && strings.HasPrefix(c.Tag, want) {
		return c, nil
	}
	return c, matches(want, c.ID)
}

// matches compares the commit with its first digits that the caller knows.
func matches(want, got string) error {
	if !strings.HasPrefix(got, want) {
		return fmt.Errorf("%w: the ref is commit %s, not %s", ErrChecksum, got, want)
	}
	return nil
}

var errNoRef = errors.New("the repository has no such ref")

// ask has the server list what ref can mean and chooses as BuildKit does: the name
// in full, then a branch, then a tag.
func (r *Repo) ask(ctx context.Context, ref string) (Commit, error) {
	if ref == "" {
		ref = "HEAD"
	}
	out, err := r.remote(ctx, "ls-remote", "--quiet", "--", r.url.Remote, ref, ref+"^{}")
	if err != nil {
		return Commit{}, err
	}
	ids := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if IsCommit(id) {
			ids[name] = id
		}
	}
	names := []string{"refs/" + strings.TrimPrefix(ref, "refs/"), "refs/heads/" + ref, "refs/tags/" + ref}
	if ref == "HEAD" {
		names = []string{"HEAD"}
	}
	for _, name := range names {
		id := ids[name]
		if id == "" {
			continue
		}
		c := Commit{ID: id, Ref: name}
		if peeled := ids[name+"^{}"]; peeled != "" {
			c.ID, c.Tag = peeled, id
		}
		return c, nil
	}
	if ref == "HEAD" {
		return Commit{}, errors.New("the repository is empty: its HEAD is no commit")
	}
	return Commit{}, fmt.Errorf("%w: %s", errNoRef, ref)
}

// resolveShort fetches everything, since a server does not tell what begins with
// some digits.
func (r *Repo) resolveShort(ctx context.Context, short string) (Commit, error) {
	if err := r.fetchAll(ctx); err != nil {
		return Commit{}, err
	}
	out, err := r.git(ctx, "rev-parse", "--quiet", "--verify", short+"^{commit}")
	if err != nil {
		return Commit{}, fmt.Errorf("%w: %s", errNoRef, short)
	}
	id := strings.TrimSpace(string(out))
	if !strings.HasPrefix(id, short) {
		return Commit{}, fmt.Errorf("%w: %s", errNoRef, short)
	}
	return Commit{ID: id}, nil
}

// Checkout fetches the commit and returns the directory with its files: the
// subdirectory where the address names one.
func (r *Repo) Checkout(ctx context.Context) (string, error) {
	dir, err := r.checkout(ctx)
	if err != nil {
		return "", r.failed(ctx, err)
	}
	return dir, nil
}

func (r *Repo) checkout(ctx context.Context) (string, error) {
	c, err := r.Resolve(ctx)
	if err != nil {
		return "", err
	}
	if err := r.fetch(ctx, c); err != nil {
		return "", err
	}
	if _, err := r.git(ctx, "checkout", "--quiet", "--force", "--detach", c.ID, "--"); err != nil {
		return "", err
	}
	if r.Submodules() {
		if _, err := os.Lstat(filepath.Join(r.tree(), ".gitmodules")); err == nil {
			if _, err := r.remote(ctx, "submodule", "update", "--quiet", "--init", "--recursive", "--depth=1", "--checkout"); err != nil {
				return "", err
			}
		}
	}
	if err := r.tidy(ctx, c); err != nil {
		return "", err
	}
	return r.subdir()
}

// fetch brings one commit, without its history where the server allows.
func (r *Repo) fetch(ctx context.Context, c Commit) error {
	if r.all && r.has(ctx, c.ID) {
		return nil
	}
	what := c.ID
	if c.Tag != "" && r.KeepsGitDir() {
		what = c.Tag
	}
	_, err := r.remote(ctx, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--depth=1", "--", r.url.Remote, what)
	if err == nil && r.has(ctx, c.ID) {
		return nil
	}
	if err != nil && !refusesCommit(err) {
		return err
	}
	if err := r.fetchAll(ctx); err != nil {
		return err
	}
	if !r.has(ctx, c.ID) {
		return fmt.Errorf("%w: %s", errNoRef, c.ID)
	}
	return nil
}

func (r *Repo) has(ctx context.Context, id string) bool {
	_, err := r.git(ctx, "cat-file", "-e", id+"^{commit}")
	return err == nil
}

// fetchAll brings all branches and tags, under names of our own.
func (r *Repo) fetchAll(ctx context.Context) error {
	_, err := r.remote(ctx, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--force", "--", r.url.Remote,
		"+refs/heads/*:refs/fbuild/heads/*", "+refs/tags/*:refs/fbuild/tags/*")
	r.all = err == nil
	return err
}

// refusesCommit says that a server gives refs only, or knows no shallow fetch.
func refusesCommit(err error) bool {
	e, ok := errors.AsType[*gitError](err)
	if !ok {
		return false
	}
	for _, s := range []string{"not our ref", "unadvertised object", "shallow", "--depth", "remote ref", "allow-reachable", "allow-any"} {
		if strings.Contains(e.said, s) {
			return true
		}
	}
	return false
}

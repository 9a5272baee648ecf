package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// ErrNotGit is returned for an address that means no git repository.
var ErrNotGit = errors.New("not a git address")

// The protocols that git may speak, for submodules too.
var gitSchemes = map[string]bool{"http": true, "https": true, "ssh": true, "git": true}

var (
	schemeForm = regexp.MustCompile(`^([a-zA-Z0-9]+)://`)
	scpForm    = regexp.MustCompile(`^([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):([^?#]*)(?:\?([^#]*))?(?:#(.*))?$`)
	commitForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	shortForm  = regexp.MustCompile(`^[0-9a-fA-F]{4,64}$`)
)

// GitURL is the address of a tree in a git repository.
type GitURL struct {
	Remote string // what git is given: without credentials, fragment and query
	Scheme string // http, https, ssh or git
	Host   string // with the port, where it has one
	Ref    string // branch, tag, refs/... or commit; "" is the remote's HEAD
	Subdir string // relative and clean; "" is the whole tree
	// Commit is the commit that Ref must mean, or the first digits of it; "" for any.
	Commit string
	// Pinned is a full commit to fetch whatever Ref means now: kaniko's second
	// fragment, and fetch-by-commit.
	Pinned bool
	// KeepGitDir and Submodules are what the address says about them; nil is nothing.
	KeepGitDir, Submodules *bool
	CheckoutTime           bool // mtime=checkout: files are as new as the checkout
	user                   *url.Userinfo
}

// IsCommit reports whether a ref is a full commit.
func IsCommit(ref string) bool { return commitForm.MatchString(ref) }

// ParseGit reads an address as BuildKit does: URL.git#ref:subdir, ?ref=&subdir=,
// git@host:path, ssh://, git://, and github.com/x/y. A second fragment is a commit,
// as kaniko has it. ErrNotGit is returned for what is no repository: paths, and
// http addresses that do not end in .git.
func ParseGit(text string) (*GitURL, error) {
	short := strings.HasPrefix(text, "github.com/")
	if short {
		text = "https://" + text
	} else if m := schemeForm.FindStringSubmatch(text); m == nil {
		return parseSCP(text)
	} else if s := strings.ToLower(m[1]); !gitSchemes[s] {
		return nil, ErrNotGit
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("git address: %w", withoutURL(err))
	}
	isHTTP := u.Scheme == "http" || u.Scheme == "https"
	if isHTTP && !short && !strings.HasSuffix(u.Path, ".git") {
		return nil, ErrNotGit
	}
	return fromURL(u)
}

// ParseKanikoGit reads the rest of kaniko's git://HOST/PATH#REF#COMMIT, whose
// protocol is https, or http where method says so.
func ParseKanikoGit(text, method string) (*GitURL, error) {
	switch method {
	case "":
		method = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("git pull method %q: there are https and http", method)
	}
	u, err := url.Parse(method + "://" + strings.TrimPrefix(text, "git://"))
	if err != nil {
		return nil, fmt.Errorf("git address: %w", withoutURL(err))
	}
	return fromURL(u)
}

func fromURL(u *url.URL) (*GitURL, error) {
	g := &GitURL{Scheme: strings.ToLower(u.Scheme), Host: u.Host, user: u.User}
	bare := *u
	bare.Fragment, bare.RawFragment, bare.RawQuery, bare.ForceQuery = "", "", "", false
	if g.Scheme != "ssh" { // a user of ssh is an account, not a secret
		bare.User = nil
	} else if u.User != nil {
		bare.User = url.User(u.User.Username())
	}
	if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
		return nil, fmt.Errorf("git address %s: no host", Redact(u.String()))
	}
	g.Remote = bare.String()
	err := g.parseRest(u.Fragment, u.Query())
	return g, err
}

// parseSCP reads user@host:path.
func parseSCP(text string) (*GitURL, error) {
	m := scpForm.FindStringSubmatch(text)
	if m == nil {
		return nil, ErrNotGit
	}
	if strings.HasPrefix(m[2], "-") || m[3] == "" {
		return nil, fmt.Errorf("git address %q: no host or path", text)
	}
	query, err := url.ParseQuery(m[4])
	if err != nil {
		return nil, fmt.Errorf("git address %q: %w", text, err)
	}
	g := &GitURL{Remote: m[1] + "@" + m[2] + ":" + m[3], Scheme: "ssh", Host: m[2]}
	err = g.parseRest(m[5], query)
	return g, err
}

func (g *GitURL) parseRest(fragment string, query url.Values) error {
	fragment, commit, pinned := strings.Cut(fragment, "#")
	ref, subdir, _ := strings.Cut(fragment, ":")
	g.Ref, g.Subdir = ref, cleanSubdir(subdir)
	if pinned {
		if !shortForm.MatchString(commit) {
			return fmt.Errorf("git address %s: commit %q is no hexadecimal number", g.Remote, commit)
		}
		g.Commit, g.Pinned = strings.ToLower(commit), true
	}
	if err := g.parseQuery(query); err != nil {
		return fmt.Errorf("git address %s: %w", g.Remote, err)
	}
	return g.check()
}

func (g *GitURL) check() error {
	if err := checkRef(g.Ref); err != nil {
		return fmt.Errorf("git address %s: %w", g.Remote, err)
	}
	if g.Commit != "" && !shortForm.MatchString(g.Commit) {
		return fmt.Errorf("git address %s: checksum %q is no hexadecimal number", g.Remote, g.Commit)
	}
	return nil
}

// checkRef refuses what git could take for an option or a pattern.
func checkRef(ref string) error {
	if strings.HasPrefix(ref, "-") || strings.ContainsAny(ref, " \t\n\\^~?*[:") || strings.Contains(ref, "..") || len(ref) > 1024 ||
		strings.IndexFunc(ref, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		return fmt.Errorf("invalid ref %.60q", ref)
	}
	return nil
}

func cleanSubdir(s string) string { return strings.TrimPrefix(path.Join("/", s), "/") }

// parseQuery reads the parameters that BuildKit knows; others are an error.
func (g *GitURL) parseQuery(query url.Values) error {
	for name, values := range query {
		if len(values) != 1 {
			return fmt.Errorf("query %q has several values", name)
		}
		v := values[0]
		var err error
		switch name {
		case "ref":
			err = g.setRef(v)
		case "tag":
			err = g.setRef("refs/tags/" + strings.TrimPrefix(v, "refs/tags/"))
		case "branch":
			err = g.setRef("refs/heads/" + strings.TrimPrefix(v, "refs/heads/"))
		case "subdir":
			if g.Subdir != "" && g.Subdir != cleanSubdir(v) {
				err = fmt.Errorf("subdir conflicts: %q and %q", g.Subdir, v)
			}
			g.Subdir = cleanSubdir(v)
		case "checksum", "commit":
			g.Commit = strings.ToLower(v)
		case "keep-git-dir":
			g.KeepGitDir, err = parseFlag(name, v)
		case "submodules":
			g.Submodules, err = parseFlag(name, v)
		case "fetch-by-commit":
			var b *bool
			if b, err = parseFlag(name, v); err == nil {
				g.Pinned = *b
			}
		case "mtime":
			if v != "commit" && v != "checkout" {
				err = fmt.Errorf("invalid mtime %q: there are commit and checkout", v)
			}
			g.CheckoutTime = v == "checkout"
		default:
			err = fmt.Errorf("unexpected query %q", name)
		}
		if err != nil {
			return err
		}
	}
	if g.Pinned && g.Commit == "" && !IsCommit(g.Ref) {
		return errors.New("fetch-by-commit needs a commit: give checksum=COMMIT")
	}
	return nil
}

func (g *GitURL) setRef(ref string) error {
	if g.Ref != "" && g.Ref != ref {
		return fmt.Errorf("ref conflicts: %q and %q", g.Ref, ref)
	}
	if strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/") == "" {
		return errors.New("a ref without a value")
	}
	g.Ref = ref
	return nil
}

// parseFlag reads a boolean; the name alone is true.
func parseFlag(name, v string) (*bool, error) {
	if v == "" {
		v = "true"
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return nil, fmt.Errorf("invalid %s value %q", name, v)
	}
	return &b, nil
}

// String returns the address without credentials.
func (g *GitURL) String() string {
	s := g.Remote
	if g.Ref == "" && g.Subdir == "" {
		return s
	}
	s += "#" + g.Ref
	if g.Subdir != "" {
		s += ":" + g.Subdir
	}
	return s
}

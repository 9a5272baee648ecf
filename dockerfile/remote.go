package dockerfile

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// What SourceKind says of a source that ADD has to fetch.
const (
	SourceHTTP = "http"
	SourceGit  = "git"
)

var (
	scheme   = regexp.MustCompile(`^([a-zA-Z0-9]+)://`)
	scpStyle = regexp.MustCompile(`^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:`)
	digest   = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$`)
	commit   = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
)

// SourceKind tells what BuildKit takes the expanded source SRC of an ADD for: SourceGit for a repository, SourceHTTP for
// another URL, "" for a path of the build context.
func SourceKind(src string) string {
	m := scheme.FindStringSubmatch(src)
	if m == nil {
		if scpStyle.MatchString(src) {
			return SourceGit
		}
		return ""
	}
	switch strings.ToLower(m[1]) {
	case "git", "ssh":
		return SourceGit
	case "http", "https":
		u, err := url.Parse(src)
		if err == nil && strings.HasSuffix(u.Path, ".git") {
			return SourceGit
		}
		return SourceHTTP
	}
	return ""
}

// check judges what only the expanded instruction shows.
func (a *Add) check() error {
	if a.Checksum == "" {
		return nil
	}
	if len(a.Sources) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	switch SourceKind(a.Sources[0]) {
	case SourceHTTP:
		if !digest.MatchString(a.Checksum) {
			return fmt.Errorf("--checksum=%s: the checksum of a URL is sha256: and 64 lower-case hexadecimal digits", a.Checksum)
		}
	case SourceGit:
		if !commit.MatchString(a.Checksum) {
			return fmt.Errorf("--checksum=%s: the checksum of a repository is a commit, or the start of one", a.Checksum)
		}
	default:
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
	return nil
}

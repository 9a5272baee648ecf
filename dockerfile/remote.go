package dockerfile

import (
	"net/url"
	"regexp"
	"strings"
)

var (
	scheme   = regexp.MustCompile(`^([a-zA-Z0-9]+)://`)
	scpStyle = regexp.MustCompile(`^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:`)
)

// remoteKind tells whether BuildKit would take the source SRC for something to fetch: "git ref", "URL", or "" for a path.
func remoteKind(src string) string {
	m := scheme.FindStringSubmatch(src)
	if m == nil {
		if scpStyle.MatchString(src) {
			return "git ref"
		}
		return ""
	}
	switch strings.ToLower(m[1]) {
	case "git", "ssh":
		return "git ref"
	case "http", "https":
		u, err := url.Parse(src)
		if err == nil && strings.HasSuffix(u.Path, ".git") {
			return "git ref"
		}
		return "URL"
	}
	return ""
}

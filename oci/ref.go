package oci

import (
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	hubDomain   = "docker.io"
	hubLegacy   = "index.docker.io"
	hubLibrary  = "library/"
	defaultTag  = "latest"
	maxRepoName = 255 // characters of domain and path together
)

// The grammar of distribution/reference.
var (
	domainRE = regexp.MustCompile(`^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$`)
	pathRE   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE    = regexp.MustCompile(`^\w[\w.-]{0,127}$`)
	hexRE    = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// ParseRef parses an image name as docker does: docker.io, library/ and :latest
// are understood, and a digest wins over a tag. Errors are ErrRef.
func ParseRef(s string) (name.Reference, error) {
	fail := func(why string) (name.Reference, error) {
		if why != "" {
			why = ": " + why
		}
		return nil, fmt.Errorf("parse image name %q: %w%s", s, ErrRef, why)
	}
	if strings.Contains(s, "://") {
		return fail("an image name has no scheme")
	}
	rest, digest, hasDigest := strings.Cut(s, "@")
	rest, tag := cutTag(rest)
	if hexRE.MatchString(rest) {
		return fail("64 hexadecimal digits are no repository name")
	}
	domain, path := splitDomain(rest)
	switch {
	case rest == "":
		return fail("no repository name")
	case strings.ToLower(path) != path:
		return fail(fmt.Sprintf("repository name (%s) must be lowercase", path))
	case !domainRE.MatchString(domain) || !pathRE.MatchString(path):
		return fail("")
	case len(domain)+1+len(path) > maxRepoName:
		return fail(fmt.Sprintf("repository name must not be more than %d characters", maxRepoName))
	case tag != "" && !tagRE.MatchString(tag) || tag == "" && strings.HasSuffix(rest+tag, ":"):
		return fail("bad tag")
	}
	if domain == hubDomain {
		domain = hubLegacy
	}
	var opts []name.Option
	if isLoopback(domain) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(domain, opts...)
	if err != nil {
		return fail("bad registry " + domain)
	}
	repo := reg.Repo(path)
	if !hasDigest {
		if tag == "" {
			tag = defaultTag
		}
		return repo.Tag(tag), nil
	}
	h, err := v1.NewHash(digest)
	if err != nil {
		return fail("bad digest: want sha256: and 64 hexadecimal digits")
	}
	return repo.Digest(h.String()), nil
}

// cutTag splits a name at the colon of its tag, not that of a port. An empty tag
// stays in the name and makes it invalid.
func cutTag(s string) (rest, tag string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i == len(s)-1 || strings.ContainsRune(s[i:], '/') {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func splitDomain(s string) (domain, path string) {
	first, rest, ok := strings.Cut(s, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, path = hubDomain, s
	} else {
		domain, path = first, rest
	}
	if domain == hubLegacy {
		domain = hubDomain
	}
	if domain == hubDomain && !strings.Contains(path, "/") {
		path = hubLibrary + path
	}
	return domain, path
}

// FullName writes a reference with its registry and tag or digest as docker
// does: docker.io/library/alpine:latest.
func FullName(ref name.Reference) string {
	sep := ":"
	if _, ok := ref.(name.Digest); ok {
		sep = "@"
	}
	return repoName(ref.Context()) + sep + ref.Identifier()
}

func repoName(repo name.Repository) string {
	host := repo.RegistryStr()
	if host == hubLegacy {
		host = hubDomain
	}
	return host + "/" + repo.RepositoryStr()
}

// isLoopback reports whether a registry, with or without a port, is this
// machine by its name alone.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// LayoutRef is the value of --build-context name=oci-layout://PATH[:tag|@digest].
type LayoutRef struct {
	Path string
	Name string // tag or digest; "" where none was given
}

const layoutScheme = "oci-layout://"

// ParseLayoutRef splits an oci-layout:// reference; ok is false for anything
// else. A colon counts as a tag's only behind the last slash.
func ParseLayoutRef(s string) (ref LayoutRef, ok bool, err error) {
	rest, ok := strings.CutPrefix(s, layoutScheme)
	if !ok {
		return LayoutRef{}, false, nil
	}
	ref.Path = rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 && !strings.Contains(rest[i:], "/") {
		ref.Path, ref.Name = rest[:i], rest[i+1:]
		if _, err := v1.NewHash(ref.Name); err != nil {
			return LayoutRef{}, true, fmt.Errorf("parse %q: %w: bad digest: want sha256: and 64 hexadecimal digits", s, ErrRef)
		}
		// A tag beside a digest says nothing more.
		ref.Path, _ = cutTag(ref.Path)
	} else {
		ref.Path, ref.Name = cutTag(rest)
		if ref.Name != "" && !tagRE.MatchString(ref.Name) {
			return LayoutRef{}, true, fmt.Errorf("parse %q: %w: bad tag", s, ErrRef)
		}
	}
	if ref.Path == "" {
		return LayoutRef{}, true, fmt.Errorf("parse %q: %w: no path", s, ErrRef)
	}
	return ref, true, nil
}

package build

import (
	"fmt"
	"os"
	"strings"

	"github.com/fbuild/fbuild/buildctx"
	"github.com/fbuild/fbuild/fetch"
	"github.com/fbuild/fbuild/progress"
)

// maxCredential bounds a secret that goes into a header.
const maxCredential = 64 << 10

// httpOptions are those of every request for a file; the secrets are BuildKit's
// HTTP_AUTH_HEADER_host and HTTP_AUTH_TOKEN_host.
func httpOptions(secrets map[string]Secret, step *progress.Step, id string) fetch.HTTPOptions {
	return fetch.HTTPOptions{
		UserAgent: "fbuild",
		Progress:  func(current, total int64) { step.Status(id, current, total, total > 0 && current == total) },
		Authorization: func(host string) (string, error) {
			return authorization(secrets, []authSecret{{"HTTP_AUTH_HEADER_" + host, ""}, {"HTTP_AUTH_TOKEN_" + host, "Bearer "}})
		},
	}
}

// gitOptions are those of every repository; the secrets are BuildKit's
// GIT_AUTH_HEADER and GIT_AUTH_TOKEN, with and without .host.
func gitOptions(secrets map[string]Secret, ssh map[string]SSH, step *progress.Step) fetch.GitOptions {
	o := fetch.GitOptions{Log: logWriter{step, 2}, Authorization: func(host string) (string, error) {
		return authorization(secrets, []authSecret{
			{"GIT_AUTH_HEADER." + host, ""}, {"GIT_AUTH_TOKEN." + host, tokenUser}, {"GIT_AUTH_HEADER", ""}, {"GIT_AUTH_TOKEN", tokenUser},
		})
	}}
	if s, ok := ssh["default"]; ok {
		o.SSH = s.Paths
		if agent := os.Getenv("SSH_AUTH_SOCK"); len(s.Paths) == 0 && agent != "" {
			o.SSH = []string{agent}
		}
	}
	return o
}

// tokenUser says that a token is the password of a user of that name.
const tokenUser = "x-access-token"

// authSecret is a secret that may hold a header, and what makes one of it.
type authSecret struct{ id, scheme string }

// authorization returns the header in the first of the secrets that the caller has.
func authorization(secrets map[string]Secret, ids []authSecret) (string, error) {
	for _, a := range ids {
		s, ok := secrets[a.id]
		if !ok {
			continue
		}
		v, err := credential(a.id, s)
		if err != nil {
			return "", err
		}
		if a.scheme == tokenUser {
			return fetch.BasicAuth(tokenUser, v), nil
		}
		return a.scheme + v, nil
	}
	return "", nil
}

// credential reads a secret that is one line.
func credential(id string, s Secret) (string, error) {
	data, err := s.read()
	if err != nil {
		return "", fmt.Errorf("read secret %s: %w", id, err)
	}
	v := strings.TrimSpace(string(data))
	if len(v) > maxCredential || strings.ContainsAny(v, "\r\n\x00") {
		return "", fmt.Errorf("secret %s: not one line, which a header must be", id)
	}
	if v == "" {
		return "", fmt.Errorf("secret %s: it is empty", id)
	}
	return v, nil
}

// openFetched opens a directory that holds a remote context. Its files are new at
// every fetch, so that there is no stat cache.
func openFetched(dir string, ignore []byte) (*localContext, error) {
	c, err := buildctx.Open(dir, buildctx.Options{Ignore: ignore})
	if err != nil {
		return nil, err
	}
	return &localContext{c}, nil
}

// mkdirIn makes a directory of a name of its own.
func mkdirIn(dir, prefix string) (string, error) {
	name, err := os.MkdirTemp(dir, prefix)
	if err != nil {
		return "", fmt.Errorf("make work directory: %w", err)
	}
	return name, nil
}

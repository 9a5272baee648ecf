package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RegistryHost is the host that a registry's name means for `login`: "" and
// docker.io are docker hub. Errors are ErrRef.
func RegistryHost(text string) (string, error) {
	host := strings.TrimPrefix(strings.TrimPrefix(text, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", hubDomain, hubLegacy, "registry-1.docker.io":
		return hubDomain, nil
	}
	if !domainRE.MatchString(host) {
		return "", fmt.Errorf("%w: registry %q", ErrRef, text)
	}
	return host, nil
}

// configKey is where config.json has the credentials of a host.
func configKey(host string) string {
	if host == hubDomain {
		return hubAuthKey
	}
	return host
}

// Login asks a registry whether it knows a user, and keeps the password where
// docker login does: with the helper that config.json names, or in that file. It
// returns where.
func (r *Remote) Login(ctx context.Context, host, user, password string) (where string, err error) {
	if err := r.tryLogin(ctx, host, user, password); err != nil {
		return "", &RemoteError{Op: "log in to", Ref: host, Host: host, Err: err}
	}
	cf, err := r.writableConfig()
	if err != nil {
		return "", err
	}
	key := configKey(host)
	err = cf.GetCredentialsStore(key).Store(types.AuthConfig{ServerAddress: key, Username: user, Password: password})
	if err != nil {
		return "", fmt.Errorf("keep credentials of %s: %s", host, scrub(shorten(err.Error(), maxErrorText), []string{password}))
	}
	if helper := cf.CredentialHelpers[key]; helper != "" {
		return "docker-credential-" + helper, nil
	}
	if cf.CredentialsStore != "" {
		return "docker-credential-" + cf.CredentialsStore, nil
	}
	return cf.Filename, nil
}

func (r *Remote) tryLogin(ctx context.Context, host, user, password string) error {
	opts := []name.Option{}
	insecure := r.insecure(host)
	if insecure {
		opts = append(opts, name.Insecure)
	}
	base, err := r.transport(host)
	if err != nil {
		return err
	}
	reg, err := name.NewRegistry(strings.ReplaceAll(host, hubDomain, hubLegacy), opts...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRef, err)
	}
	creds := newCredentials(types.AuthConfig{Username: user, Password: password})
	s := &session{pace: r.pace, secrets: creds.secrets}
	inner := transport.NewUserAgent(&guard{inner: base, plainHTTP: insecure}, r.opts.UserAgent)
	return s.retry(ctx, func() error {
		ctx, stop := s.deadline(ctx, s.pace.answer)
		defer stop()
		t, err := transport.NewWithContext(ctx, reg, authn.FromConfig(authn.AuthConfig{Username: user, Password: password}), inner, nil)
		if err != nil {
			return s.cause(ctx, err)
		}
		s.client = &http.Client{Transport: t}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, reg.Scheme()+"://"+reg.RegistryStr()+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := s.do(ctx, req, s.pace.answer, nil, http.StatusOK)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

// Known returns the name and password that are kept for a host, "" for none.
func (r *Remote) Known(host string) (user, password string, err error) {
	cf, err := r.writableConfig()
	if err != nil {
		return "", "", err
	}
	ac, err := cf.GetAuthConfig(configKey(host))
	if err != nil {
		return "", "", fmt.Errorf("get credentials of %s from its helper: %s", host, shorten(err.Error(), maxErrorText))
	}
	if ac.Username == "" || ac.Password == "" {
		return "", "", nil // a token alone is for no login
	}
	return ac.Username, ac.Password, nil
}

// Logout forgets the credentials of a host. It reports whether there were any.
func (r *Remote) Logout(host string) (known bool, err error) {
	cf, err := r.writableConfig()
	if err != nil {
		return false, err
	}
	key := configKey(host)
	ac, err := cf.GetAuthConfig(key)
	if err != nil {
		return false, fmt.Errorf("get credentials of %s from its helper: %s", host, shorten(err.Error(), maxErrorText))
	}
	ac.ServerAddress = ""
	if (ac == types.AuthConfig{}) {
		return false, nil
	}
	if err := cf.GetCredentialsStore(key).Erase(key); err != nil {
		return true, fmt.Errorf("forget credentials of %s: %s", host, shorten(err.Error(), maxErrorText))
	}
	return true, nil
}

// writableConfig is docker's config.json, new where there is none.
func (r *Remote) writableConfig() (*configfile.ConfigFile, error) {
	dir := r.opts.ConfigDir
	if dir == "" {
		dir = os.Getenv("DOCKER_CONFIG")
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("find docker's config.json: %w", err)
		}
		dir = filepath.Join(home, ".docker")
	}
	file := filepath.Join(dir, config.ConfigFileName)
	cf := configfile.New(file)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return cf, nil
	}
	return cf, loadConfig(cf, file)
}

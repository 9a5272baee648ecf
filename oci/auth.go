package oci

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// hubAuthKey is docker hub's place in config.json.
const hubAuthKey = "https://index.docker.io/v1/"

// credentials are what is sent to one registry.
type credentials struct {
	auth    authn.Authenticator
	secrets []string // what must never be shown
}

// credentials looks a repository up in $DOCKER_AUTH_CONFIG, then in docker's
// config.json, its helpers included, else in podman's auth.json. It runs a helper without a context:
// docker's library has none.
func (r *Remote) credentials(ctx context.Context, repo name.Repository) (credentials, error) {
	file, err := r.configFile()
	if err != nil || file == "" && os.Getenv(configfile.DockerEnvConfigKey) == "" {
		return credentials{auth: authn.Anonymous}, err
	}
	cf := configfile.New(file)
	if file != "" {
		if err := loadConfig(cf, file); err != nil {
			return credentials{}, err
		}
	}
	var empty types.AuthConfig
	for _, key := range authKeys(repo) {
		if err := context.Cause(ctx); err != nil {
			return credentials{}, err
		}
		ac, err := cf.GetAuthConfig(key)
		if err != nil {
			return credentials{}, fmt.Errorf("get credentials of %s from its helper: %s", key, shorten(err.Error(), maxErrorText))
		}
		ac.ServerAddress = ""
		if ac != empty {
			return newCredentials(ac), nil
		}
	}
	return credentials{auth: authn.Anonymous}, nil
}

func loadConfig(cf *configfile.ConfigFile, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read credentials: %w", err)
	}
	err = cf.LoadFromReader(f)
	if err := errors.Join(err, f.Close()); err != nil {
		// The cause is not repeated: it may quote the file.
		return fmt.Errorf("read credentials: %s is not a valid docker config", file)
	}
	return nil
}

// authKeys are the names under which a repository's credentials may stand: the
// repository (podman), then the registry.
func authKeys(repo name.Repository) []string {
	host := repo.RegistryStr()
	if host == hubLegacy {
		return []string{repoName(repo), hubAuthKey}
	}
	return []string{repoName(repo), host}
}

func newCredentials(ac types.AuthConfig) credentials {
	c := credentials{auth: authn.FromConfig(authn.AuthConfig{
		Username: ac.Username, Password: ac.Password, Auth: ac.Auth,
		IdentityToken: ac.IdentityToken, RegistryToken: ac.RegistryToken,
	})}
	for _, s := range []string{ac.Password, ac.Auth, ac.IdentityToken, ac.RegistryToken} {
		if s != "" {
			c.secrets = append(c.secrets, s)
		}
	}
	if ac.Password != "" {
		c.secrets = append(c.secrets, base64.StdEncoding.EncodeToString([]byte(ac.Username+":"+ac.Password)))
	}
	return c
}

// configFile is the first of docker's and podman's files that exists, "" for
// none.
func (r *Remote) configFile() (string, error) {
	dir := r.opts.ConfigDir
	if dir == "" {
		dir = os.Getenv("DOCKER_CONFIG")
	}
	home, homeErr := os.UserHomeDir()
	var files []string
	switch {
	case dir != "":
		files = append(files, dir, filepath.Join(dir, "config.json"))
	case homeErr == nil:
		files = append(files, filepath.Join(home, ".docker", "config.json"))
	}
	if r.opts.ConfigDir == "" {
		files = append(files, podmanFiles(home)...)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read credentials: %w", err)
		}
		if info.Mode().IsRegular() {
			return f, nil
		}
	}
	return "", nil
}

func podmanFiles(home string) []string {
	var files []string
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		files = append(files, f)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	} else if home != "" {
		files = append(files, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	return files
}

// scrub removes secrets from a text that somebody else wrote.
func scrub(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "xxxxx")
	}
	return s
}

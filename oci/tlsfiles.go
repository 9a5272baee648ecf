package oci

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Certificate is what one registry's TLS needs beside the system's authorities.
type Certificate struct {
	Host      string // with its port, as in an image name
	CA        string // file of authorities, "" for none
	Cert, Key string // files of a client's certificate, "" for none
}

// certDirs are where docker and podman look for HOST/*.crt (authorities), and
// HOST/*.cert with HOST/*.key (a client's certificate); the first that has HOST counts.
func certDirs() []string {
	var dirs []string
	config := os.Getenv("XDG_CONFIG_HOME")
	if home, err := os.UserHomeDir(); err == nil && config == "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		dirs = append(dirs, filepath.Join(config, "containers", "certs.d"), filepath.Join(config, "docker", "certs.d"))
	}
	return append(dirs, "/etc/containers/certs.d", "/etc/docker/certs.d")
}

// certificates are those of a host: the caller's, else the first directory's.
func (r *Remote) certificates(host string) ([]Certificate, error) {
	if host == hubLegacy {
		host = hubDomain
	}
	var out []Certificate
	for _, c := range r.opts.Certificates {
		if c.Host == host {
			out = append(out, c)
		}
	}
	if out != nil {
		return out, nil
	}
	for _, dir := range r.opts.CertDirs {
		entries, err := os.ReadDir(filepath.Join(dir, host))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read certificates of %s: %w", host, err)
		}
		for _, e := range entries {
			file := filepath.Join(dir, host, e.Name())
			switch filepath.Ext(file) {
			case ".crt":
				out = append(out, Certificate{Host: host, CA: file})
			case ".cert":
				out = append(out, Certificate{Host: host, Cert: file, Key: strings.TrimSuffix(file, ".cert") + ".key"})
			}
		}
		return out, nil
	}
	return nil, nil
}

// transport is what requests to a host go through.
func (r *Remote) transport(host string) (http.RoundTripper, error) {
	base := r.plain
	lax := r.insecure(host)
	if lax {
		base = r.lax
	}
	certs, err := r.certificates(host)
	if err != nil || len(certs) == 0 {
		return base, err
	}
	plain, ok := base.(*http.Transport)
	if !ok {
		return base, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.own[host]; t != nil {
		return t, nil
	}
	own := plain.Clone()
	own.TLSClientConfig = &tls.Config{InsecureSkipVerify: lax} //nolint:gosec // loopback, or asked for by name
	for _, c := range certs {
		if err := addCertificate(own.TLSClientConfig, c); err != nil {
			return nil, fmt.Errorf("read certificates of %s: %w", host, err)
		}
	}
	r.own[host] = own
	return own, nil
}

func addCertificate(cfg *tls.Config, c Certificate) error {
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return err
		}
		if cfg.RootCAs == nil {
			if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
				cfg.RootCAs = x509.NewCertPool()
			}
		}
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate", c.CA)
		}
	}
	if c.Cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	cfg.Certificates = append(slices.Clip(cfg.Certificates), pair)
	return nil
}

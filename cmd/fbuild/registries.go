package main

import (
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fbuild/fbuild/oci"
)

// registryFlags say how registries are reached.
type registryFlags struct {
	insecure, mirrors, authorities, certificates []string
}

// mirrorVar are mirrors for every command, with commas between them.
const mirrorVar = "FBUILD_REGISTRY_MIRROR"

func (f *registryFlags) define(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.insecure, "insecure", nil, "registry host that may be asked without TLS, or without a valid certificate")
	fl.StringArrayVar(&f.mirrors, "registry-mirror", nil, "where images of a registry are looked for first (HOST=MIRROR, or the MIRROR of docker.io)")
	fl.StringArrayVar(&f.authorities, "registry-ca", nil, "authority that signed a registry's certificate (HOST=FILE)")
	fl.StringArrayVar(&f.certificates, "registry-cert", nil, "certificate of this client for a registry (HOST=CERT,KEY)")
}

// remote talks to registries as the flags say.
func (f *registryFlags) remote() (*oci.Remote, error) {
	o := oci.RemoteOptions{Insecure: f.insecure, UserAgent: "fbuild/" + version}
	for _, text := range append(f.mirrors, strings.FieldsFunc(os.Getenv(mirrorVar), func(r rune) bool { return r == ',' })...) {
		m, err := oci.ParseMirror(strings.TrimSpace(text))
		if err != nil {
			return nil, &usageError{err}
		}
		o.Mirrors = append(o.Mirrors, m)
	}
	var err error
	if o.Certificates, err = certificates("--registry-ca", f.authorities, "--registry-cert", f.certificates); err != nil {
		return nil, err
	}
	return oci.NewRemote(o), nil
}

// certificates reads HOST=FILE of authorities and HOST=CERT,KEY of clients.
func certificates(caFlag string, authorities []string, certFlag string, clients []string) ([]oci.Certificate, error) {
	var out []oci.Certificate
	for _, text := range authorities {
		host, file, ok := strings.Cut(text, "=")
		if !ok || host == "" || file == "" {
			return nil, usagef("%s %q: want HOST=FILE", caFlag, text)
		}
		out = append(out, oci.Certificate{Host: host, CA: file})
	}
	for _, text := range clients {
		host, files, _ := strings.Cut(text, "=")
		cert, key, ok := strings.Cut(files, ",")
		if !ok || host == "" || cert == "" || key == "" {
			return nil, usagef("%s %q: want HOST=CERT,KEY", certFlag, text)
		}
		out = append(out, oci.Certificate{Host: host, Cert: cert, Key: key})
	}
	return out, nil
}

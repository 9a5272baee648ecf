package oci

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// An image is looked for in mirrors first, and its bytes wherever they are.
func TestMirrors(t *testing.T) {
	origin, mirror, empty := newRegistry(t), newRegistry(t), newRegistry(t)
	img := imageFor(t, amd64)
	origin.put(t, "a/app:v1", img)
	mirror.put(t, "copy/a/app:v1", img)
	for _, tt := range []struct {
		name    string
		mirrors []Mirror
		only    bool
		from    *fakeRegistry
		want    error
	}{
		{"none", nil, false, origin, nil},
		{"has it", []Mirror{{origin.host, mirror.host + "/copy"}}, false, mirror, nil},
		{"of another registry", []Mirror{{"r.example", mirror.host + "/copy"}}, false, origin, nil},
		{"does not have it", []Mirror{{origin.host, empty.host}}, false, origin, nil},
		{"the second has it", []Mirror{{origin.host, empty.host}, {origin.host, mirror.host + "/copy"}}, false, mirror, nil},
		{"not there", []Mirror{{origin.host, "127.0.0.1:1"}}, false, origin, nil},
		{"no other is asked", []Mirror{{origin.host, empty.host}}, true, nil, ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := testRemote(t, RemoteOptions{Mirrors: tt.mirrors, MirrorsOnly: tt.only})
			before := map[*fakeRegistry]int{origin: origin.count(""), mirror: mirror.count("")}
			found, err := r.Resolve(t.Context(), origin.host+"/a/app:v1", amd64)
			if !errors.Is(err, tt.want) {
				t.Fatalf("resolve: got %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			checkLayers(t, found, 1)
			for f, n := range before {
				if asked := f.count("") > n; asked != (f == tt.from) {
					t.Errorf("%s: asked %v, want %v", f.host, asked, f == tt.from)
				}
			}
		})
	}
}

func TestParseMirror(t *testing.T) {
	for text, want := range map[string]Mirror{
		"m.example": {"docker.io", "m.example"}, "https://m.example/": {"docker.io", "m.example"}, "r.example=m.example:5000/x/y": {"r.example", "m.example:5000/x/y"},
		"index.docker.io=m.example": {"docker.io", "m.example"}, "": {}, "a=": {}, "m.example/UP": {}, "=m.example": {},
	} {
		got, err := ParseMirror(text)
		if got != want || (err == nil) != (want != Mirror{}) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

// A registry whose authority only certs.d or an option knows, and which wants a
// certificate from its clients.
func TestRegistryCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := clientCert(t, dir)
	srv := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	pool := x509.NewCertPool()
	data, err := os.ReadFile(cert)
	must(t, err)
	pool.AppendCertsFromPEM(data)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(dir, "ca.crt")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	// A name that the certificate holds, and that is not loopback's own.
	host := strings.Replace(strings.TrimPrefix(srv.URL, "https://"), "127.0.0.1", "example.com", 1)

	certs := filepath.Join(dir, "certs.d")
	must(t, os.MkdirAll(filepath.Join(certs, host), 0o700))
	for from, to := range map[string]string{ca: "ca.crt", cert: "client.cert", key: "client.key"} {
		must(t, os.Symlink(from, filepath.Join(certs, host, to)))
	}
	for _, tt := range []struct {
		name string
		o    RemoteOptions
		want error
	}{
		{"nothing", RemoteOptions{CertDirs: []string{}}, ErrTLS},
		{"the authority alone", RemoteOptions{Certificates: []Certificate{{Host: host, CA: ca}}}, ErrUnreachable},
		{"both", RemoteOptions{Certificates: []Certificate{{Host: host, CA: ca}, {Host: host, Cert: cert, Key: key}}}, ErrNotFound},
		{"of another host", RemoteOptions{CertDirs: []string{}, Certificates: []Certificate{{Host: "r.example", CA: ca}}}, ErrTLS},
		{"a directory", RemoteOptions{CertDirs: []string{filepath.Join(dir, "none"), certs}}, ErrNotFound},
		{"no file", RemoteOptions{Certificates: []Certificate{{Host: host, CA: ca + "x"}}}, os.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := testRemote(t, tt.o)
			r.plain = dialTo(r.plain, strings.TrimPrefix(srv.URL, "https://"))
			_, err := r.Resolve(t.Context(), host+"/app:v1", amd64)
			if !errors.Is(err, tt.want) {
				if tt.name == "the authority alone" && errors.Is(err, ErrTLS) {
					return // how the refusal arrives depends on who closes first
				}
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Loopback needs no certificate, unless the caller says whose it must be.
func TestAuthorityOfLoopback(t *testing.T) {
	srv := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	plain := newRegistry(t)
	dir := t.TempDir()
	own, _ := clientCert(t, dir) // an authority that signed nothing here
	ca := filepath.Join(dir, "ca.crt")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	host := strings.TrimPrefix(srv.URL, "https://")
	for _, tt := range []struct {
		name, host, ca string
		insecure       []string
		want           error
	}{
		{"none", host, "", nil, ErrNotFound},
		{"the right one", host, ca, nil, ErrNotFound},
		{"another", host, own, nil, ErrTLS},
		{"another, and insecure", host, own, []string{host}, ErrNotFound},
		{"without TLS", plain.host, ca, nil, ErrTLS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := RemoteOptions{CertDirs: []string{}, Insecure: tt.insecure}
			if tt.ca != "" {
				o.Certificates = []Certificate{{Host: tt.host, CA: tt.ca}}
			}
			if _, err := testRemote(t, o).Resolve(t.Context(), tt.host+"/app:v1", amd64); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// dialTo makes every connection one to addr.
func dialTo(rt http.RoundTripper, addr string) http.RoundTripper {
	t := rt.(*http.Transport).Clone()
	t.Proxy = nil
	inner := t.DialContext
	t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { return inner(ctx, network, addr) }
	return t
}

func clientCert(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	must(t, err)
	der, err := x509.MarshalECPrivateKey(private)
	must(t, err)
	cert, key = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
	return cert, key
}

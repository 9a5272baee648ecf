//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const debianSuite = "bookworm"

// debianBase is a layout of a Debian as debootstrap makes it, once for a machine.
// It needs no root: an ordinary user's debootstrap runs in a user namespace.
var debianBase = sync.OnceValues(func() (string, error) {
	return cachedBase("debian-"+debianSuite, "debootstrap minbase 1", func(dir string) error {
		tmp, err := os.MkdirTemp(filepath.Dir(dir), ".debootstrap-")
		if err != nil {
			return err
		}
		const script = `set -e
			debootstrap --variant=minbase "$1" "$2/root" >"$2/log" 2>&1 || { tail -n 20 "$2/log" >&2; exit 1; }
			rm -f "$2"/root/var/cache/apt/archives/*.deb
			tar --numeric-owner --xattrs --one-file-system -C "$2/root" -cf "$2/root.tar" .
			rm -rf "$2/root"`
		shell := []string{"sh", "-c", script, "sh", debianSuite, tmp}
		unshare := []string{"unshare", "--mount"}
		if os.Getuid() != 0 {
			// debootstrap makes no device nodes where it is told that it is in a container.
			unshare = []string{"env", "container=lxc", "unshare", "--map-auto", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"}
		}
		argv := append(unshare, shell...)
		cmd := osexec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("debootstrap: %w\n%s", err, msg)
		}
		data, err := os.ReadFile(filepath.Join(tmp, "root.tar"))
		if err == nil {
			err = os.RemoveAll(tmp)
		}
		if err != nil {
			return err
		}
		path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		img, err := imageOf(v1.Config{Env: []string{path}, Cmd: []string{"bash"}}, data)
		if err != nil {
			return err
		}
		return writeLayout(dir, img)
	})
})

// golangBase is a layout of this host's Go toolchain and certificates on busybox.
var golangBase = sync.OnceValues(func() (string, error) {
	root, err := goEnv("GOROOT")
	if err != nil {
		return "", err
	}
	version, err := goEnv("GOVERSION")
	if err != nil {
		return "", err
	}
	return cachedBase("golang", "1 "+version, func(dir string) error {
		files, err := busyboxFiles()
		if err != nil {
			return err
		}
		busybox, err := tarOf(files...)
		if err != nil {
			return err
		}
		toolchain, err := tarToolchain(root)
		if err != nil {
			return err
		}
		img, err := imageOf(v1.Config{Env: []string{"PATH=/usr/local/go/bin:/bin", "GOTOOLCHAIN=local"}}, busybox, toolchain)
		if err != nil {
			return err
		}
		return writeLayout(dir, img)
	})
})

// tarToolchain packs what `go build` needs of GOROOT as usr/local/go.
func tarToolchain(root string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if top, _, _ := strings.Cut(rel, "/"); d.IsDir() && (top == "test" || top == "api" || top == "doc" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		info, err := os.Stat(p) // distributions have links in GOROOT
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() && !d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		h := &tar.Header{Name: "usr/local/go/" + filepath.ToSlash(rel), Mode: int64(info.Mode().Perm() | 0o200), ModTime: baseTime, Typeflag: tar.TypeDir}
		if !info.IsDir() {
			h.Typeflag, h.Size = tar.TypeReg, info.Size()
		}
		if err := w.WriteHeader(h); err != nil || info.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		return errors.Join(err, f.Close())
	})
	return buf.Bytes(), errors.Join(err, w.Close())
}

func goEnv(name string) (string, error) {
	out, err := osexec.CommandContext(context.Background(), "go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// hostBundle is the file with the certificate authorities of this host, which may
// have some of its own.
func hostBundle() (string, error) {
	for _, name := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
			return name, nil
		}
	}
	return "", errors.New("no bundle of certificate authorities: install ca-certificates")
}

// hostFiles makes a directory with what a RUN has to know of this host: a build
// gets it as the named context "host", since nothing else of the host passes in.
var hostFiles = sync.OnceValues(func() (string, error) {
	bundle, err := hostBundle()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(bundle)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(suite.dir, "host")
	err = errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "ca-certificates.crt"), data, 0o644))
	return dir, errors.Join(err, os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "ca-certificates.crt"), 0o644))
})

// proxyArgs are the build arguments for the proxies of this host.
func proxyArgs() []string {
	var out []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		for _, n := range []string{name, strings.ToUpper(name)} {
			if v := os.Getenv(n); v != "" {
				out = append(out, "--build-arg="+n+"="+v)
			}
		}
	}
	return out
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
)

// The bases of the real inputs hold everything that the commands would fetch, so
// that the network, which is noise, stays out.

const (
	debianSuite = "bookworm"
	aptPackages = "curl ca-certificates git python3"
	systemPath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// input is the folder of the real inputs.
func (e *env) input(name string) string {
	return filepath.Join(e.repo, "integration", "testdata", "inputs", name)
}

// debian is a tree as debootstrap makes it.
func (e *env) debian(ctx context.Context) (string, error) {
	return e.tree("debian", func(dir string) error {
		err := e.must(ctx, []string{"unshare", "--mount", "debootstrap", "--variant=minbase", debianSuite, dir})
		return errors.Join(err, e.must(ctx, []string{"sh", "-c", `rm -f "$1"/var/cache/apt/archives/*.deb`, "sh", dir}))
	})
}

// copyTree copies what is in one directory into another.
func (e *env) copyTree(ctx context.Context, from, to string) error {
	return e.must(ctx, []string{"cp", "-a", "--reflink=auto", from + "/.", to})
}

// aptTree is that Debian with the packages downloaded, not installed.
func (e *env) aptTree(ctx context.Context) (string, error) {
	base, err := e.debian(ctx)
	if err != nil {
		return "", err
	}
	return e.tree("apt", func(dir string) error {
		if err := e.copyTree(ctx, base, dir); err != nil {
			return err
		}
		script := "apt-get -q update && apt-get -q install -y --no-install-recommends --download-only " + aptPackages
		return e.must(ctx, []string{"unshare", "--mount", "chroot", dir, "/bin/sh", "-c", script}, proxies()...)
	})
}

// proxies are the caller's, for what is fetched.
func proxies() []string {
	var out []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"} {
		if v := os.Getenv(name); v != "" {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// npmTree is that Debian with this host's node, the program and a full cache of npm.
func (e *env) npmTree(ctx context.Context) (string, error) {
	base, err := e.debian(ctx)
	if err != nil {
		return "", err
	}
	node, err := osexec.LookPath("node")
	if err == nil {
		node, err = filepath.EvalSymlinks(node)
	}
	if err != nil {
		return "", fmt.Errorf("find node: %w", err)
	}
	prefix := filepath.Dir(filepath.Dir(node))
	return e.tree("npm", func(dir string) error {
		if err := e.copyTree(ctx, base, dir); err != nil {
			return err
		}
		script := `set -e
			mkdir -p "$2/usr/local/lib/node_modules" "$2/app"
			cp "$1/bin/node" "$2/usr/local/bin/node"
			cp -a "$1/lib/node_modules/npm" "$2/usr/local/lib/node_modules/npm"
			ln -s ../lib/node_modules/npm/bin/npm-cli.js "$2/usr/local/bin/npm"
			cp -a "$3/." "$2/app"
			cp -a "$3/." "$4"
			cd "$4" && npm ci --ignore-scripts --no-audit --no-fund --cache "$2/root/.npm"
			rm -rf "$2/root/.npm/_logs"
			chown -R 0:0 "$2/app" "$2/root" "$2/usr/local"`
		scratch := filepath.Join(e.run, "npm")
		if err := fresh(scratch); err != nil {
			return err
		}
		err := e.must(ctx, []string{"sh", "-c", script, "sh", prefix, dir, e.input("node"), scratch}, proxies()...)
		return errors.Join(err, os.RemoveAll(scratch))
	})
}

// goTree is busybox with this host's Go, the program and its modules.
func (e *env) goTree(ctx context.Context) (string, error) {
	out, err := osexec.CommandContext(ctx, "go", "env", "GOROOT", "GOPROXY", "GOSUMDB").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	v := strings.Split(string(out), "\n")
	if len(v) < 3 {
		return "", fmt.Errorf("go env: %q", out)
	}
	return e.tree("go", func(dir string) error {
		if err := e.busyboxTree(ctx, dir); err != nil {
			return err
		}
		script := `set -e
			mkdir -p "$2/usr/local/go" "$2/src" "$2/root/go/pkg/mod"
			cp -aL "$1/bin" "$1/pkg" "$1/src" "$1/go.env" "$1/VERSION" "$2/usr/local/go"
			cp -a "$3/." "$2/src"
			cd "$2/src" && go mod download
			chown -R 0:0 "$2"`
		vars := append(proxies(), "GOMODCACHE="+dir+"/root/go/pkg/mod", "GOPROXY="+v[1], "GOSUMDB="+v[2],
			"GOTOOLCHAIN=local", "GOCACHE="+filepath.Join(e.run, "gocache"))
		return e.must(ctx, []string{"sh", "-c", script, "sh", v[0], dir, e.input("go")}, vars...)
	})
}

// words are random bytes that compress about as programs do; seeded, so that a
// base is the same every time.
type words struct{ rng *rand.Rand }

func newWords(seed uint64) words { return words{rand.New(rand.NewPCG(seed, 1))} } //nolint:gosec // no secret

func (w words) Read(p []byte) (int, error) {
	for i := 0; i < len(p); {
		n := w.rng.Uint64()
		if n%3 == 0 { // a run that repeats
			i += copy(p[i:], "the same words again and again ")
			continue
		}
		for k := 0; k < 8 && i < len(p); k, i = k+1, i+1 {
			p[i] = byte(n >> (8 * k))
		}
	}
	return len(p), nil
}

// noise is random bytes that do not compress.
func noise(seed byte) io.Reader {
	return rand.NewChaCha8([32]byte{seed})
}

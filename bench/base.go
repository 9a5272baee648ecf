package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The bases of the workloads: everything that their commands would fetch is in
// them, so that no network is in anybody's times.

const debs15 = "bash-completion ca-certificates curl file git jq less make python3 rsync sqlite3 tree unzip wget zip"

// makeGen compiles what makes the files.
func (e *env) makeGen(ctx context.Context) error {
	e.gen = filepath.Join(e.run, "gen")
	cmd := osexec.CommandContext(ctx, "go", "build", "-trimpath", "-o", e.gen, "./bench/workloads/gen") //nolint:gosec // a directory of ours
	cmd.Dir, cmd.Env = e.repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile bench/workloads/gen: %w\n%s", err, tail(string(out), 5))
	}
	return nil
}

// toolsTree is busybox with gen.
func (e *env) toolsTree(ctx context.Context) (string, error) {
	return e.tree("tools", func(dir string) error {
		return errors.Join(e.busyboxTree(ctx, dir), e.must(ctx, []string{"cp", e.gen, filepath.Join(dir, "bin", "gen")}))
	})
}

// layersOf pushes a base of the tools and further layers, each a tree.
func (e *env) layersOf(ctx context.Context, repo string, trees ...string) (base, error) {
	b := base{env: []string{"PATH=/bin"}}
	tools, err := e.toolsTree(ctx)
	if err != nil {
		return b, err
	}
	all := append([]string{tools}, trees...)
	var files, lower []string
	for _, dir := range all {
		f, err := e.treeLayer(ctx, filepath.Base(dir), dir)
		if err != nil {
			return b, err
		}
		files, lower = append(files, f), append([]string{dir}, lower...)
	}
	b.lower = strings.Join(lower, ":")
	b.ref, err = e.push(ctx, repo, v1.Config{Env: b.env, Cmd: []string{"sh"}}, files...)
	return b, err
}

func (e *env) toolsBase(ctx context.Context) (base, error) { return e.layersOf(ctx, "tools") }

// bigTrees are layers of files that take MIB each.
func (e *env) bigTrees(ctx context.Context, count, mib int) ([]string, error) {
	var out []string
	for i := range count {
		dir, err := e.tree(fmt.Sprintf("big%d-%d", mib, i), func(dir string) error {
			return e.must(ctx, []string{e.gen, "big", filepath.Join(dir, fmt.Sprintf("base%d", i)), "8", fmt.Sprint(mib << 20 / 8)})
		})
		if err != nil {
			return nil, err
		}
		out = append(out, dir)
	}
	return out, nil
}

func (e *env) runsBase(ctx context.Context) (base, error) {
	trees, err := e.bigTrees(ctx, 16, e.scaled(128)) // those that growth-base has as well
	if err != nil {
		return base{}, err
	}
	return e.layersOf(ctx, "runs", trees...)
}

func (e *env) metaBase(ctx context.Context) (base, error) {
	dir, err := e.tree("meta", func(dir string) error {
		return e.must(ctx, []string{e.gen, "files", filepath.Join(dir, "data"), fmt.Sprint(e.scaled(60000)), "256", "2048"})
	})
	if err != nil {
		return base{}, err
	}
	return e.layersOf(ctx, "meta", dir)
}

// whole pushes one tree as a base of one layer.
func (e *env) whole(ctx context.Context, label, dir string, vars ...string) (base, error) {
	b := base{lower: dir, env: vars}
	file, err := e.treeLayer(ctx, label, dir)
	if err != nil {
		return b, err
	}
	b.ref, err = e.push(ctx, label, v1.Config{Env: vars, Cmd: []string{"sh"}}, file)
	return b, err
}

// aptBase is Debian with the packages downloaded.
func (e *env) aptBase(ctx context.Context) (base, error) {
	debian, err := e.debian(ctx)
	if err != nil {
		return base{}, err
	}
	dir, err := e.tree("apt15", func(dir string) error {
		if err := e.copyTree(ctx, debian, dir); err != nil {
			return err
		}
		// Debian's configuration for images: keep what was downloaded.
		script := "apt-get -q update && apt-get -q install -y --no-install-recommends --download-only " + debs15
		return e.must(ctx, []string{"unshare", "--mount", "chroot", dir, "/bin/sh", "-c", script}, proxies()...)
	})
	if err != nil {
		return base{}, err
	}
	return e.whole(ctx, "apt15", dir, systemPath, "DEBIAN_FRONTEND=noninteractive")
}

// nodeBase is Debian with node, npm and its cache; the program is not in it.
func (e *env) nodeBase(ctx context.Context) (base, error) {
	npm, err := e.npmTree(ctx)
	if err != nil {
		return base{}, err
	}
	dir, err := e.tree("node", func(dir string) error {
		return errors.Join(e.copyTree(ctx, npm, dir), os.RemoveAll(filepath.Join(dir, "app")))
	})
	if err != nil {
		return base{}, err
	}
	return e.whole(ctx, "node", dir, systemPath, "NPM_CONFIG_UPDATE_NOTIFIER=false")
}

// goBase is busybox with Go and the modules; the program is not in it.
func (e *env) goBase(ctx context.Context) (base, error) {
	src, err := e.goTree(ctx)
	if err != nil {
		return base{}, err
	}
	dir, err := e.tree("golang", func(dir string) error {
		return errors.Join(e.copyTree(ctx, src, dir), os.RemoveAll(filepath.Join(dir, "src")))
	})
	if err != nil {
		return base{}, err
	}
	return e.whole(ctx, "golang", dir, "PATH=/usr/local/go/bin:/bin", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOSUMDB=off")
}

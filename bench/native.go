package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

const (
	// nativeSide runs the commands of a workload in a chroot on overlayfs, COPY as cp -a.
	nativeSide = "native"
	// floorSide begins the names of what must at least be done with the bytes of a layer.
	floorSide = "floor "
	// floorChild is the first argument of this program where it compresses a file.
	floorChild = "compress"
)

// native is a workload without a builder.
type native struct {
	o   *openedWorkload
	dir string // upper directory and the tar of it
}

func (o *openedWorkload) native() *native {
	return &native{o: o, dir: filepath.Join(o.env.work, o.name+"-native")}
}

func (n *native) close() error { return os.RemoveAll(n.dir) }

func (n *native) tar() string { return filepath.Join(n.dir, "difference.tar") }

// sides are the commands themselves, and the floors under whoever stores what they wrote.
func (n *native) sides() []side {
	e := n.o.env
	out := []side{{
		name: nativeSide, version: e.host.Kernel, phases: []string{coldPhase}, run: n.run,
		settings: "the same commands in a chroot on overlayfs, COPY as cp -a, no layer",
		reset:    func(context.Context, int) error { return fresh(n.dir) },
	}}
	for _, f := range []struct {
		name string
		argv []string
	}{
		{"sha256", []string{"openssl", "dgst", "-sha256", n.tar()}},
		{"tar", []string{"sh", "-c", `tar -C "$1" -cf - . | cat >/dev/null`, "sh", filepath.Join(n.dir, "upper")}},
		{"gzip", []string{e.self, floorChild, "gzip", n.tar()}},
		{"zstd", []string{e.self, floorChild, "zstd", n.tar()}},
	} {
		s := side{name: floorSide + f.name, phases: []string{floorPhase}, settings: "of the tar of what the native run wrote; compression on all processors, level 6 and default"}
		if _, err := osexec.LookPath(f.argv[0]); err != nil {
			s.skip = f.argv[0] + " is not installed"
		}
		s.before = func(ctx context.Context, _ string, _ int) error { return n.makeTar(ctx) }
		s.run = func(ctx context.Context, m meter, _ string, _ int) (sample, error) {
			u, err := m.run(ctx, e.command(ctx, f.argv))
			smp := sample{usage: u}
			if st, serr := os.Stat(n.tar()); serr == nil {
				smp.x = float64(st.Size())
			}
			return smp, err
		}
		out = append(out, s)
	}
	return out
}

func (n *native) makeTar(ctx context.Context) error {
	if _, err := os.Stat(n.tar()); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(n.dir, "upper")); err != nil {
		return notYetError{"the native run was of an earlier call"}
	}
	return n.o.env.must(ctx, []string{"tar", "--numeric-owner", "-C", filepath.Join(n.dir, "upper"), "-cf", n.tar(), "."})
}

func (n *native) run(ctx context.Context, m meter, _ string, _ int) (sample, error) {
	e := n.o.env
	script, err := os.ReadFile(filepath.Join(e.repo, "bench", "workloads", n.o.name, "native"))
	if err != nil {
		return sample{}, fmt.Errorf("read native commands: %w", err)
	}
	spec := overlaySpec{
		Lower: n.o.base.lower, Dir: n.dir, Workdir: "/", Command: string(script), Env: append([]string{"HOME=/root"}, n.o.base.env...),
	}
	if n.o.args != nil {
		spec.Env = append(spec.Env, n.o.args(e)...)
	}
	if n.o.context != nil {
		spec.Context = n.o.dir
	}
	cmd, err := e.overlayCommand(ctx, spec)
	if err != nil {
		return sample{}, err
	}
	u, err := m.run(ctx, cmd)
	return sample{usage: u}, err
}

// compressFile compresses a file and throws the result away.
func compressFile(kind, name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var w io.WriteCloser
	switch kind {
	case "gzip":
		z, err := pgzip.NewWriterLevel(io.Discard, 6)
		if err == nil {
			err = z.SetConcurrency(1<<20, 2*runtime.NumCPU())
		}
		if err != nil {
			return err
		}
		w = z
	case "zstd":
		z, err := zstd.NewWriter(io.Discard)
		if err != nil {
			return err
		}
		w = z
	default:
		return fmt.Errorf("compression %q is not known", kind)
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, w.Close())
}

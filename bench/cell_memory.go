package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Memory is measured with 1 GiB in 8 files of bytes that do not compress.
const (
	memoryFiles = 8
	memoryMiB   = 1024
)

// openMemRun is a step that writes them.
func openMemRun(recorder string) func(context.Context, *env, group) (*bench, error) {
	return func(ctx context.Context, e *env, g group) (*bench, error) {
		return e.openMemory(ctx, g, recorder, fmt.Sprintf(
			"RUN for i in $(seq %d); do dd if=/dev/urandom of=/file$i bs=1M count=%d; done\n", memoryFiles, e.scaled(memoryMiB)/memoryFiles))
	}
}

// openMemCopy copies them from the context.
func openMemCopy(ctx context.Context, e *env, g group) (*bench, error) {
	return e.openMemory(ctx, g, "auto", "COPY . /data\n")
}

func (e *env) openMemory(ctx context.Context, g group, recorder, rest string) (*bench, error) {
	ref, err := e.busybox(ctx)
	if err != nil {
		return nil, err
	}
	f, err := newFbuild(e, g, "")
	if err != nil {
		return nil, err
	}
	f.recorder = recorder
	if err := f.write(ref, rest); err != nil {
		return nil, err
	}
	if g.name == "mem-copy" {
		err = e.eachNoise(func(name string, size int64, r io.Reader) error {
			file, err := os.Create(filepath.Join(f.context, name))
			if err != nil {
				return err
			}
			_, err = io.CopyN(file, r, size)
			return errors.Join(err, file.Close())
		})
	}
	return &bench{sides: []side{f.side()}, close: f.close}, err
}

// eachNoise gives the files to WRITE, one after the other.
func (e *env) eachNoise(write func(name string, size int64, r io.Reader) error) error {
	for i := range memoryFiles {
		if err := write(fmt.Sprintf("file%d", i), int64(e.scaled(memoryMiB)/memoryFiles)<<20, noise(byte(i))); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	return nil
}

// openMemPull pulls them as one layer.
func openMemPull(ctx context.Context, e *env, g group) (*bench, error) {
	tree, err := e.tree("busybox", func(dir string) error { return e.busyboxTree(ctx, dir) })
	if err != nil {
		return nil, err
	}
	bottom, err := e.treeLayer(ctx, "busybox", tree)
	if err != nil {
		return nil, err
	}
	big, err := e.layerFile("noise", func(w io.Writer) error {
		t := tar.NewWriter(w)
		err := e.eachNoise(func(name string, size int64, r io.Reader) error { return writeFile(t, name, size, r) })
		return errors.Join(err, t.Close())
	})
	if err != nil {
		return nil, err
	}
	ref, err := e.push(ctx, "noise", v1.Config{Env: []string{"PATH=/bin"}}, bottom, big)
	if err != nil {
		return nil, err
	}
	f, err := newFbuild(e, g, "")
	if err != nil {
		return nil, err
	}
	return &bench{sides: []side{f.side()}, close: f.close}, f.write(ref, "RUN true\n")
}

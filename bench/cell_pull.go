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

const (
	pullFiles  = 20_000
	pullBytes  = 300 << 20
	pullLayers = 5
)

// openPull prepares the pull of a base of 20,000 files: fbuild must run a command
// on it, or it would fetch nothing.
func openPull(ctx context.Context, e *env, g group) (*bench, error) {
	tree, err := e.tree("busybox", func(dir string) error { return e.busyboxTree(ctx, dir) })
	if err != nil {
		return nil, err
	}
	bottom, err := e.treeLayer(ctx, "busybox", tree)
	if err != nil {
		return nil, err
	}
	layers := []string{bottom}
	for i := range pullLayers {
		file, err := e.layerFile(fmt.Sprintf("files-%d", i), func(w io.Writer) error {
			return smallFiles(w, i, e.scaled(pullFiles)/pullLayers, pullBytes/pullFiles)
		})
		if err != nil {
			return nil, err
		}
		layers = append(layers, file)
	}
	ref, err := e.push(ctx, "files", v1.Config{Env: []string{"PATH=/bin"}}, layers...)
	if err != nil {
		return nil, err
	}
	f, err := newFbuild(e, g, "")
	if err != nil {
		return nil, err
	}
	if err := f.write(ref, "RUN true\n"); err != nil {
		return nil, err
	}
	b := newBuildah(e, g, "")
	pull := side{
		name: "buildah", version: b.version, skip: b.skip, reset: b.reset,
		run: func(ctx context.Context, m meter, _ string, _ int) (sample, error) {
			u, err := m.run(ctx, b.command(ctx, "pull", "--quiet", "--tls-verify=false", "docker://"+ref))
			return sample{usage: u}, err
		},
	}
	return &bench{
		sides: []side{f.side(), pull},
		close: func() error { return errors.Join(f.close(), b.close()) },
	}, nil
}

// smallFiles writes files of about the given size, twenty to a directory.
func smallFiles(w io.Writer, layer, files, size int) error {
	t := tar.NewWriter(w)
	text := newWords(uint64(layer))
	for i := range files {
		if i%20 == 0 {
			h := &tar.Header{Name: fmt.Sprintf("data/%d/%04d/", layer, i/20), Mode: 0o755, ModTime: baseTime, Typeflag: tar.TypeDir}
			if err := t.WriteHeader(h); err != nil {
				return err
			}
		}
		n := int64(size/2 + i*7919%size) // from half to one and a half
		if err := writeFile(t, fmt.Sprintf("data/%d/%04d/file%02d", layer, i/20, i%20), n, text); err != nil {
			return err
		}
	}
	return t.Close()
}

// contextFiles makes a build context of that many files of about that size.
func contextFiles(dir string, files, size int) error {
	if err := fresh(dir); err != nil {
		return err
	}
	text := newWords(99)
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/50))
		if err := openDirs(sub); err != nil {
			return err
		}
		data := make([]byte, size/2+i*7919%size)
		if _, err := text.Read(data); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%02d.txt", i%50)), data, 0o644); err != nil { //nolint:gosec // the ordinary user reads it
			return fmt.Errorf("write context: %w", err)
		}
	}
	return nil
}

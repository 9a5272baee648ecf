package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// baseTime is the time of everything that is made here.
var baseTime = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// registryServer is a registry on the loopback interface, in this process: what
// it costs is in nobody's figures.
type registryServer struct {
	srv      *http.Server
	addr     string
	done     chan error
	blobs    *repoBlobs
	received atomic.Int64 // bytes of all bodies so far
}

func startRegistry(ctx context.Context, dir string) (*registryServer, error) {
	if err := openDirs(filepath.Join(dir, "bases"), filepath.Join(dir, "pushed")); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	s := &registryServer{addr: l.Addr().String(), done: make(chan error, 1), blobs: newRepoBlobs(dir)}
	if err := s.blobs.forget(outRepo); err != nil { // of a run that was killed
		return nil, errors.Join(err, l.Close())
	}
	s.srv = &http.Server{
		Handler:           countBodies(registry.New(registry.Logger(quiet), registry.WithBlobHandler(s.blobs)), &s.received),
		ErrorLog:          quiet,
		ReadHeaderTimeout: time.Minute,
	}
	go func() { s.done <- s.srv.Serve(l) }()
	return s, nil
}

func (s *registryServer) close() error {
	err := s.srv.Close()
	if serr := <-s.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// push makes an image of layer files, as makeLayer makes them, and returns its name.
func (e *env) push(ctx context.Context, repo string, cfg v1.Config, layers ...string) (string, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, file := range layers {
		l, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
		if err == nil {
			img, err = mutate.Append(img, mutate.Addendum{
				Layer: l, MediaType: types.OCILayer, History: v1.History{CreatedBy: "bench", Created: v1.Time{Time: baseTime}},
			})
		}
		if err != nil {
			return "", fmt.Errorf("make image %s: %w", repo, err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", repo, err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config, cf.Created = "linux", runtime.GOARCH, cfg, v1.Time{Time: baseTime}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return "", fmt.Errorf("make image %s: %w", repo, err)
	}
	full := e.registry.addr + "/" + repo + ":1"
	ref, err := name.NewTag(full)
	if err == nil {
		err = remote.Write(ref, img, remote.WithContext(ctx))
	}
	if err != nil {
		return "", fmt.Errorf("push image %s: %w", repo, err)
	}
	return full, nil
}

// withDocs is a base with one more layer, in which a file of /usr/share/doc is another.
func (e *env) withDocs(ctx context.Context, b base) (base, error) {
	file, err := e.layerFile("docs", func(w io.Writer) error {
		const text = "a later version\n"
		t := tar.NewWriter(w)
		return errors.Join(writeFile(t, "usr/share/doc/base-files/README", int64(len(text)), strings.NewReader(text)), t.Close())
	})
	if err != nil {
		return base{}, err
	}
	old, err := name.NewTag(b.ref)
	if err != nil {
		return base{}, err
	}
	img, err := remote.Image(old, remote.WithContext(ctx))
	if err != nil {
		return base{}, fmt.Errorf("read base %s: %w", b.ref, err)
	}
	l, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
	if err == nil {
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer, History: v1.History{CreatedBy: "bench", Created: v1.Time{Time: baseTime}}})
	}
	if err == nil {
		b.ref = old.Context().Tag("docs").String()
		err = remote.Write(old.Context().Tag("docs"), img, remote.WithContext(ctx))
	}
	if err != nil {
		return base{}, fmt.Errorf("make another base of %s: %w", b.ref, err)
	}
	return b, nil
}

// layerFile makes a compressed layer once, and returns the file.
func (e *env) layerFile(label string, fill func(w io.Writer) error) (string, error) {
	file := filepath.Join(e.work, "layers", label+".tar.gz")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := openDirs(filepath.Dir(file)); err != nil {
		return "", err
	}
	f, err := os.Create(file + ".new")
	if err != nil {
		return "", fmt.Errorf("make layer %s: %w", label, err)
	}
	z, err := gzip.NewWriterLevel(f, 6) // what most images have
	if err == nil {
		err = errors.Join(fill(z), z.Close())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("make layer %s: %w", label, err), os.Remove(file+".new"))
	}
	return file, nil
}

// treeLayer is a directory as a layer.
func (e *env) treeLayer(ctx context.Context, label, dir string) (string, error) {
	return e.layerFile(label, func(w io.Writer) error {
		cmd := e.command(ctx, []string{"tar", "--numeric-owner", "--xattrs", "--one-file-system", "-C", dir, "-c", "."})
		cmd.Stdout = w
		return cmd.Run()
	})
}

// writeFile adds one file to a tar.
func writeFile(w *tar.Writer, name string, size int64, r io.Reader) error {
	h := &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: baseTime, Typeflag: tar.TypeReg}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.CopyN(w, r, size)
	return err
}

// busyboxTree makes the directory that the small base and the Go base start from.
func (e *env) busyboxTree(ctx context.Context, dir string) error {
	path, err := osexec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("no busybox (bench/setup installs a static one): %w", err)
	}
	out, err := osexec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets of busybox: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp"} {
		if err := openDirs(filepath.Join(dir, d)); err != nil {
			return err
		}
	}
	err = os.WriteFile(filepath.Join(dir, "bin", "busybox"), data, 0o755) //nolint:gosec // a program
	for a := range strings.FieldsSeq(string(out)) {
		if a != "busybox" {
			err = errors.Join(err, os.Symlink("busybox", filepath.Join(dir, "bin", a)))
		}
	}
	err = errors.Join(err, os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky),
		os.WriteFile(filepath.Join(dir, "etc", "passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644), //nolint:gosec // as it is
		os.WriteFile(filepath.Join(dir, "etc", "group"), []byte("root:x:0:\n"), 0o644))                      //nolint:gosec // as it is
	if err != nil {
		return fmt.Errorf("make busybox base: %w", err)
	}
	return nil
}

// tree makes a directory once: fill gets an empty one.
func (e *env) tree(name string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(e.work, "trees", name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp := dir + ".new"
	err := fresh(tmp)
	if err == nil {
		err = fill(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return "", fmt.Errorf("make tree %s: %w", name, err)
	}
	return dir, nil
}

// busybox pushes the small base.
func (e *env) busybox(ctx context.Context) (string, error) {
	dir, err := e.tree("busybox", func(dir string) error { return e.busyboxTree(ctx, dir) })
	if err != nil {
		return "", err
	}
	layer, err := e.treeLayer(ctx, "busybox", dir)
	if err != nil {
		return "", err
	}
	return e.push(ctx, "busybox", v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}, layer)
}

//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// baseTime is the time of everything in the bases, so that they never change.
var baseTime = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// cachedBase returns a directory that fill has filled, once for each key: under
// $XDG_CACHE_HOME, or where temporary files are. Everybody may read it.
func cachedBase(name, key string, fill func(dir string) error) (string, error) {
	parent := filepath.Join(os.TempDir(), fmt.Sprintf("fbuild-test-bases-%d", os.Getuid()))
	if x := os.Getenv("XDG_CACHE_HOME"); x != "" {
		parent = filepath.Join(x, "fbuild-test-bases")
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(key))
	dir := filepath.Join(parent, name+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(parent, ".new-")
	if err != nil {
		return "", err
	}
	err = errors.Join(fill(tmp), os.Chmod(tmp, 0o755))
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("make base %s: %w", name, err), os.RemoveAll(tmp))
	}
	return dir, nil
}

// makeBases returns a directory of OCI layouts: supervise gives each to every
// build as a named context.
func makeBases(dir string) (string, error) {
	bases := filepath.Join(dir, "bases")
	return bases, errors.Join(os.Mkdir(bases, 0o755), writeBusybox(filepath.Join(bases, "busybox")))
}

// file is an entry of a layer made by hand.
type file struct {
	name  string // a trailing slash makes a directory
	data  string
	mode  int64
	uid   int
	gid   int
	link  string // symlink target
	hard  string // hard link target
	kind  byte   // tar type flag, where it is none of the above
	pax   map[string]string
	major int64
	minor int64
}

// tarOf writes entries as they come, however strange.
func tarOf(files ...file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{
			Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.gid, ModTime: baseTime, Size: int64(len(f.data)),
			Typeflag: tar.TypeReg, PAXRecords: f.pax, Devmajor: f.major, Devminor: f.minor,
		}
		switch {
		case f.kind != 0:
			h.Typeflag = f.kind
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case f.hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.hard
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if f.pax != nil {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.name, err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.name, err)
		}
	}
	return buf.Bytes(), w.Close()
}

// imageOf makes an image of layers, each a tar.
func imageOf(cfg v1.Config, tars ...[]byte) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, data := range tars {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
			tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching) // once, and fast: some have 200 MB
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: l, MediaType: types.OCILayer, History: v1.History{CreatedBy: "test base", Created: v1.Time{Time: baseTime}},
		})
		if err != nil {
			return nil, err
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config, cf.Created = "linux", runtime.GOARCH, cfg, v1.Time{Time: baseTime}
	return mutate.ConfigFile(img, cf)
}

// writeLayout writes an image as a layout that everybody may read.
func writeLayout(dir string, img v1.Image) error {
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	err = p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"}))
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(p, 0o755)
		}
		return os.Chmod(p, 0o644)
	})
}

// busyboxFiles are the entries of the busybox base.
func busyboxFiles() ([]file, error) {
	path, err := osexec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox-static is not installed (run .ci/setup): %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out, err := osexec.CommandContext(context.Background(), path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of busybox: %w", err)
	}
	files := []file{
		{name: "bin/", mode: 0o755},
		{name: "bin/busybox", mode: 0o755, data: string(data)},
	}
	for a := range strings.FieldsSeq(string(out)) {
		if a != "busybox" {
			files = append(files, file{name: "bin/" + a, link: "busybox", mode: 0o777})
		}
	}
	return append(files,
		file{name: "dev/", mode: 0o755},
		file{name: "etc/", mode: 0o755},
		file{name: "etc/passwd", mode: 0o644, data: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n"},
		file{name: "etc/group", mode: 0o644, data: "root:x:0:\nwheel:x:10:app\napp:x:1000:\nextra:x:2000:app,root\n"},
		file{name: "home/", mode: 0o755},
		file{name: "home/app/", mode: 0o755, uid: 1000, gid: 1000},
		file{name: "proc/", mode: 0o755},
		file{name: "root/", mode: 0o700},
		file{name: "sys/", mode: 0o755},
		file{name: "tmp/", mode: 0o1777},
	), nil
}

// writeBusybox writes the busybox base as a layout.
func writeBusybox(dir string) error {
	files, err := busyboxFiles()
	if err != nil {
		return err
	}
	data, err := tarOf(files...)
	if err != nil {
		return err
	}
	img, err := imageOf(v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}, data)
	if err != nil {
		return err
	}
	return writeLayout(dir, img)
}

//go:build integration

package integration

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// openImage returns the image that a script means: a layout's directory, an
// archive of one, store:NAME for the store in STORE, or registry:REPO. scratch is
// a directory for what has to be unpacked.
func openImage(ref, store, scratch string) (v1.Image, error) {
	if n, ok := strings.CutPrefix(ref, "store:"); ok {
		return layoutImage(store, n)
	}
	if n, ok := strings.CutPrefix(ref, "registry:"); ok {
		return suite.reg.pull(n)
	}
	st, err := os.Stat(ref)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return layoutImage(ref, "")
	}
	dir, err := os.MkdirTemp(scratch, "archive-")
	if err != nil {
		return nil, err
	}
	if err := untar(ref, dir); err != nil {
		return nil, err
	}
	return layoutImage(dir, "")
}

// untar unpacks the files of an archive whose names are known to be harmless.
func untar(name, dir string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		p := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			return err
		}
	}
}

// describe writes one view of an image as text.
func describe(w io.Writer, img v1.Image, view string, args []string) error {
	switch view {
	case "config":
		return showConfig(w, img)
	case "history":
		return showHistory(w, img)
	case "layers":
		return showLayers(w, img, false)
	case "times":
		return showLayers(w, img, true)
	case "cat":
		return showFile(w, img, args[0])
	case "id":
		h, err := img.ConfigName()
		fmt.Fprintln(w, h)
		return err
	case "digest":
		h, err := img.Digest()
		fmt.Fprintln(w, h)
		return err
	case "manifest":
		raw, err := img.RawManifest()
		fmt.Fprintf(w, "%s\n", raw)
		return err
	case "raw":
		raw, err := img.RawConfigFile()
		fmt.Fprintf(w, "%s\n", raw)
		return err
	case "validate":
		return validate.Image(img)
	}
	return fmt.Errorf("unknown view %q", view)
}

// showConfig writes the config without what varies: times and digests.
func showConfig(w io.Writer, img v1.Image) error {
	raw, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	if m["created"] == nil {
		return errors.New("the config has no time of creation")
	}
	for _, k := range []string{"created", "history", "rootfs", "architecture"} {
		delete(m, k)
	}
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", out)
	return err
}

// showHistory writes a line an entry: its command, and whether it is empty.
func showHistory(w io.Writer, img v1.Image) error {
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	layers := 0
	for _, h := range cf.History {
		mark := "layer"
		if h.EmptyLayer {
			mark = "empty"
		} else {
			layers++
		}
		if h.Created.IsZero() {
			return fmt.Errorf("history entry %q has no time", h.CreatedBy)
		}
		fmt.Fprintf(w, "%s  %s  %s\n", mark, h.CreatedBy, h.Comment)
	}
	if n := len(cf.RootFS.DiffIDs); layers != n {
		return fmt.Errorf("history: got %d layers, the image has %d", layers, n)
	}
	return nil
}

// eachEntry calls fn for every entry of every layer, bottom first.
func eachEntry(img v1.Image, fn func(layer int, h *tar.Header, r io.Reader) error) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			return err
		}
		err = eachOf(rc, func(h *tar.Header, r io.Reader) error { return fn(i, h, r) })
		if err := errors.Join(err, rc.Close()); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return nil
}

func eachOf(rc io.Reader, fn func(h *tar.Header, r io.Reader) error) error {
	r := tar.NewReader(rc)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(h, r); err != nil {
			return err
		}
	}
}

// showLayers lists what the layers hold, below those of the test base.
func showLayers(w io.Writer, img v1.Image, times bool) error {
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	base := 0
	for _, h := range cf.History {
		if h.CreatedBy == "test base" {
			base++
		}
	}
	last := -1
	return eachEntry(img, func(i int, h *tar.Header, _ io.Reader) error {
		if i < base {
			return nil
		}
		if i != last {
			fmt.Fprintf(w, "layer %d\n", i-base)
			last = i
		}
		_, err := fmt.Fprintln(w, entryLine(h, times))
		return err
	})
}

func entryLine(h *tar.Header, times bool) string {
	kinds := map[byte]string{
		tar.TypeReg: "-", tar.TypeDir: "d", tar.TypeSymlink: "l", tar.TypeLink: "h",
		tar.TypeChar: "c", tar.TypeBlock: "b", tar.TypeFifo: "p",
	}
	line := fmt.Sprintf("%s %04o %d:%d %d %s", kinds[h.Typeflag], h.Mode&0o7777, h.Uid, h.Gid, h.Size, h.Name)
	if times {
		line = fmt.Sprintf("%s %d %s", kinds[h.Typeflag], h.ModTime.Unix(), h.Name)
	}
	if h.Linkname != "" {
		line += " -> " + h.Linkname
	}
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if n, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			line += fmt.Sprintf(" %s=%x", n, h.PAXRecords[k])
		}
	}
	return line
}

// showFile writes the contents of a file as the topmost layer that has it.
func showFile(w io.Writer, img v1.Image, name string) error {
	name = strings.Trim(name, "/")
	var data []byte
	found := false
	err := eachEntry(img, func(_ int, h *tar.Header, r io.Reader) (err error) {
		if strings.Trim(h.Name, "/") == name && h.Typeflag == tar.TypeReg {
			found = true
			data, err = io.ReadAll(r)
		}
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("no layer has %s", name)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
